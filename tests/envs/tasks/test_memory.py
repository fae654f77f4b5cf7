import numpy as np
import pytest

from actionprior.envs.env import TabletopEnv
from actionprior.envs.experts import TabletopExpert
from actionprior.envs.scene.scene import COLORS, Scene, Thing
from actionprior.envs.tasks import CUE_SECONDS, OnceEachTask, Snapshot
from actionprior.envs.tasks.memory import return_spot

TWINS = Scene(
    things=(
        Thing("red", "cube", 0.0, 0.1, 0.0),
        Thing("red", "cube", 0.0, -0.1, 0.0),
        Thing("blue", "disc", 0.1, 0.0, 0.0),
    ),
    pads=(),
    target=0,
    goal=None,
    order=(0, 1),
)
FIRST, SECOND, SPOT = (0.0, 0.1, 0.05), (0.0, -0.1, 0.05), (0.0, 0.0, 0.22)
PLACES = np.array([(0.0, 0.1, 0.025), (0.0, -0.1, 0.025), (0.1, 0.0, 0.013)])


def judge(tips, held=None):
    task = OnceEachTask()
    return [
        task.succeeded(TWINS, Snapshot(np.array(tip), PLACES, np.zeros(3), held, False))
        for tip in tips
    ]


def test_once_each_succeeds_in_any_order():
    assert judge([FIRST, FIRST, SPOT, SECOND]) == [False, False, False, True]
    assert judge([SECOND, SPOT, FIRST])[-1]


def test_once_each_fails_after_a_repeated_touch_or_without_the_return():
    assert not any(judge([FIRST, SPOT, FIRST, SPOT, SECOND]))
    assert not any(judge([FIRST, SECOND, SPOT, SECOND]))
    assert not any(judge([FIRST, SPOT, SECOND], held=0))
    assert not any(judge([(0.0, 0.1, 0.07), SPOT, SECOND]))  # above the object, without touching it


def test_once_each_has_two_identical_objects_and_a_different_one():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = OnceEachTask().draw(rng)
        first, second, third = scene.things
        assert first.label == second.label != third.label
        assert {scene.order} <= {(0, 1), (1, 0)}
    assert OnceEachTask().instruction(TWINS).startswith("touch both red cubes, one after the other")
    np.testing.assert_allclose(return_spot(TWINS), SPOT)


@pytest.mark.parametrize("robot", ["panda", "kuka"])
def test_observations_at_the_spot_do_not_show_which_object_was_touched(robot):
    env = TabletopEnv(robot, "once_each", image_size=64)
    expert = TabletopExpert(env)
    env.reset(seed=1)
    drawn, seen = env.scene, []
    for order in ((0, 1), (1, 0)):
        scene = drawn._replace(order=order, target=order[0])
        env.reset(seed=1, options={"scene": scene})
        expert.reset(1)
        still, done, left = [], False, env.step_limit
        while not done and left:
            observation, _, done, _, _ = env.step(expert())
            left -= 1
            away = np.linalg.norm(env.snapshot().tip - return_spot(scene))
            still.append((away, observation))
        assert done
        seen.append(min(still, key=lambda pair: pair[0])[1])
    assert np.abs(seen[0]["state"] - seen[1]["state"]).max() < 0.02
    changed = np.abs(seen[0]["image"].astype(int) - seen[1]["image"]).max(axis=-1) > 40
    assert changed.mean() < 0.02


def test_observations_after_the_cue_do_not_show_its_color():
    env = TabletopEnv("kuka", "recall", image_size=64)
    env.reset(seed=2)
    drawn, rolls, instructions = env.scene, [], set()
    rng = np.random.default_rng(0)
    steps = int(CUE_SECONDS * env.control_hz) + 12
    middle = (env.action_space.low + env.action_space.high) / 2
    actions = [middle + 0.1 * rng.normal(size=middle.shape) for _ in range(steps)]
    for goal in range(3):
        first, info = env.reset(seed=2, options={"scene": drawn._replace(goal=goal)})
        rolls.append([first, *(env.step(action)[0] for action in actions)])
        instructions.add(info["instruction"])
    assert len(instructions) == 1
    cue = int(CUE_SECONDS * env.control_hz)
    for roll in rolls[1:]:
        for step, (a, b) in enumerate(zip(rolls[0], roll, strict=True)):
            assert np.array_equal(a["image"], b["image"]) == (step >= cue)
            assert np.array_equal(a["state"], b["state"])


def test_the_lamp_shows_the_color_of_the_goal_pad():
    env = TabletopEnv("panda", "recall", render_mode="rgb_array")
    for seed in range(5):
        env.reset(seed=seed)
        lit = env.render().astype(int)
        for _ in range(int(CUE_SECONDS * env.control_hz)):
            env.step(env.action_space.sample() * 0.0)
        dark = env.render().astype(int)
        changed = np.abs(lit - dark).sum(axis=-1) > 60
        changed[:-45] = False  # the arm
        shown = lit[changed].mean(axis=0) / 255
        wanted = np.array(COLORS[env.scene.goal_pad.color])
        assert shown @ wanted / np.linalg.norm(shown) / np.linalg.norm(wanted) > 0.97
