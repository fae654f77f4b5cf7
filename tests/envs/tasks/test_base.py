import string

import numpy as np
import pytest

from actionprior.envs.env import TabletopEnv
from actionprior.envs.tasks import TASKS, Task
from actionprior.errors import UserError


class Wait(Task):
    """A user's task without templates, which words its instruction in code."""

    name = "wait"

    def instruction(self, scene):
        return "wait"

    def succeeded(self, scene, now):
        return False


@pytest.mark.parametrize("task", TASKS.values())
def test_wordings_differ_but_name_the_same_fields(task):
    instructions = (*task.wordings, *task.held_out_wordings)
    assert len(set(instructions)) == len(instructions)
    assert len(task.wordings) >= 3
    assert len(task.held_out_wordings) >= 2
    named = [
        {field for _, field, _, _ in string.Formatter().parse(text)} - {None}
        for text in instructions
    ]
    assert all(fields == named[0] for fields in named)


@pytest.mark.parametrize("name", TASKS)
def test_scenes_do_not_depend_on_the_wording(name):
    envs = {
        wordings: TabletopEnv(
            "duo" if TASKS[name].arms == 2 else "panda", name, images=False, wordings=wordings
        )
        for wordings in ("one", "train", "held_out")
    }
    instructions = {wordings: set() for wordings in envs}
    for seed in range(15):
        states = []
        for wordings, env in envs.items():
            observation, info = env.reset(seed=seed)
            states.append(observation["state"])
            assert env.scene == envs["one"].scene
            instructions[wordings].add(info["instruction"])
            allowed = (
                TASKS[name].held_out_wordings if wordings == "held_out" else TASKS[name].wordings
            )
            assert info["instruction"] in {env.task.instruction(env.scene, w) for w in allowed}
        assert all(np.array_equal(states[0], state) for state in states)
        assert envs["one"].instruction == envs["one"].task.instruction(env.scene)
    assert not instructions["held_out"] & instructions["train"]
    starts = {text.split()[0] for text in instructions["train"]}
    assert len(starts) > 1 or len(instructions["train"] - instructions["one"]) > 1


def test_one_scene_can_have_several_instructions():
    env = TabletopEnv("panda", "place", images=False)
    env.reset(seed=4)
    asked = {}
    for target in range(3):
        for goal in range(2):
            scene = env.scene._replace(target=target, goal=goal)
            observation, info = env.reset(seed=4, options={"scene": scene})
            asked[info["instruction"]] = observation["state"]
    assert len(asked) == 6
    assert len({state.tobytes() for state in asked.values()}) == 1


def test_a_task_without_templates_has_one_wording():
    env = TabletopEnv("panda", Wait(), images=False)
    assert env.reset(seed=0)[1]["instruction"] == "wait"
    with pytest.raises(UserError, match="task 'wait' has no wordings 'held_out'; use 'one'"):
        TabletopEnv("panda", Wait(), images=False, wordings="held_out")
