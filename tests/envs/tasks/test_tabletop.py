import math

import gymnasium as gym
import numpy as np
import pytest

from actionprior.envs import ENV_IDS
from actionprior.envs.experts import TabletopExpert
from actionprior.envs.scene.scene import COLORS, PAD_SIZE, SHAPES, draw_scene
from actionprior.envs.tasks import TASKS, LiftTask, PlaceTask, PushTask, ReachTask
from actionprior.errors import UserError
from tests.helpers.scenes import SCENE, snapshot

SHORT = (ReachTask, PushTask, LiftTask, PlaceTask)


def test_instructions():
    instructions = {task.name: task().instruction(SCENE) for task in SHORT}
    assert instructions == {
        "reach": "reach the red cube",
        "lift": "lift the red cube",
        "push": "push the red cube to the green pad",
        "place": "place the red cube on the green pad",
    }


def test_reach_needs_two_steps_in_a_row():
    task, there, away = ReachTask(), snapshot(tip=(0.0, 0.01, 0.08)), snapshot()
    assert [task.succeeded(SCENE, s) for s in (there, away, there, there)] == [0, 0, 0, 1]


def test_lift_needs_the_target_in_the_gripper():
    high = (0.0, 0.0, 0.13)
    assert LiftTask().succeeded(SCENE, snapshot(high, held=0))
    assert not LiftTask().succeeded(SCENE, snapshot(high, held=1))
    assert not LiftTask().succeeded(SCENE, snapshot((0.0, 0.0, 0.12), held=0))


def test_push_does_not_succeed_after_suction_held_the_target():
    on_pad = (0.0, -0.17, 0.025)
    assert PushTask().succeeded(SCENE, snapshot(on_pad))
    assert not PushTask().succeeded(SCENE, snapshot((0.1, -0.1, 0.025)))  # the other pad
    task = PushTask()
    assert not task.succeeded(SCENE, snapshot(on_pad, held=0))
    assert not task.succeeded(SCENE, snapshot(on_pad))
    task.reset()
    assert task.succeeded(SCENE, snapshot(on_pad))


def test_an_object_that_was_driven_through_the_table_is_lost():
    assert not PushTask().succeeded(SCENE, snapshot((0.0, -0.2, -0.5)))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (snapshot((0.0, -0.2, 0.025)), True),
        (snapshot((0.0, -0.2, -0.5)), False),
        (snapshot((0.0, -0.2, 0.025), held=0), False),
        (snapshot((0.0, -0.2, 0.06)), False),
        (snapshot((0.0, -0.2, 0.025), speed=0.2), False),
        (snapshot((0.0, -0.15, 0.025)), False),
    ],
)
def test_place_needs_the_target_resting_on_the_pad(now, expected):
    assert PlaceTask().succeeded(SCENE, now) is expected


@pytest.mark.parametrize("task", SHORT)
def test_scenes_have_distinct_objects_and_spaced_places(task):
    rng = np.random.default_rng(0)
    targets, goals = set(), set()
    for _ in range(100):
        scene = task().draw(rng)
        assert len({thing.label for thing in scene.things}) == 3
        assert len(scene.pads) == task.pads
        used = [thing.color for thing in scene.things]
        assert not {pad.color for pad in scene.pads} & set(used)
        places = [(item.x, item.y) for item in (*scene.things, *scene.pads)]
        for i, place in enumerate(places):
            assert all(math.dist(place, other) > 0.1 for other in places[:i])
        targets.add(scene.target)
        goals.add(scene.goal)
    assert targets == {0, 1, 2}
    assert goals == ({0, 1} if task.pads else {None})


def test_all_colors_are_drawn():
    rng = np.random.default_rng(0)
    drawn = {thing.color for _ in range(50) for thing in draw_scene(rng).things}
    assert drawn == set(COLORS)


def test_a_scene_without_pads_raises_when_asked_for_its_goal_pad():
    with pytest.raises(UserError, match="no pads"):
        _ = SCENE._replace(pads=(), goal=None).goal_pad


@pytest.mark.parametrize("env_id", ENV_IDS[:4])
def test_success_with_the_wrong_object_does_not_count(env_id):
    env = gym.make(env_id, images=False).unwrapped
    expert = TabletopExpert(env)
    for seed in range(3):
        env.reset(seed=seed)
        expert.reset(seed)
        asked = env.scene
        # The expert gets another target than the task that decides on success.
        wrong = asked._replace(target=(asked.target + 1) % 3)
        for _ in range(50):
            env.scene = wrong
            action = expert()
            env.scene = asked
            assert not env.step(action)[2]


def test_pads_overlap_neither_each_other_nor_objects():
    rng = np.random.default_rng(0)
    for _ in range(300):
        scene = TASKS["place"]().draw(rng)
        first, second = scene.pads
        apart = max(abs(first.x - second.x), abs(first.y - second.y))
        assert apart > PAD_SIZE
        for pad in scene.pads:
            for thing in scene.things:
                beside = [
                    max(0.0, abs(a) - PAD_SIZE / 2) for a in (thing.x - pad.x, thing.y - pad.y)
                ]
                assert math.hypot(*beside) > SHAPES[thing.shape].radius


def test_a_push_is_11_to_18_cm_long():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = TASKS["push"]().draw(rng)
        pad, thing = scene.goal_pad, scene.target_thing
        assert 0.105 < math.hypot(pad.x - thing.x, pad.y - thing.y) < 0.185
