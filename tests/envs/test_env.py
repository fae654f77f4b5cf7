import dataclasses
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from actionprior.envs import ENV_IDS, EVALUATION_SEED, SHORT_ENV_IDS, env_id
from actionprior.envs.arms.robots import CONTROL_MODES, MAX_JOINT_SPEED, PANDA, find_robot
from actionprior.envs.env import TabletopEnv
from actionprior.envs.experts import TabletopExpert
from actionprior.envs.tasks import TASKS
from actionprior.errors import UserError


def roll(env, actions, seed):
    observations = [env.reset(seed=seed)[0]]
    observations += [env.step(action)[0] for action in actions]
    return observations


def assert_equal(left, right):
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_look_every_repeats_the_last_image_between_renderings():
    env = TabletopEnv("panda", "push")
    rng = np.random.default_rng(0)
    actions = rng.uniform(env.action_space.low, env.action_space.high, (7, 8)).astype(np.float32)
    always = [observation["image"] for observation in roll(env, actions, seed=3)]
    env.look_every = 3
    for _ in range(2):  # the second episode starts with a new image
        seldom = [observation["image"] for observation in roll(env, actions, seed=3)]
        for step, image in enumerate(seldom):
            np.testing.assert_array_equal(image, always[step - step % 3])
    assert not np.array_equal(always[3], always[4])
    env.close()


def test_importing_the_suite_imports_no_simulator():
    code = (
        "import sys, actionprior.envs; "
        "sys.exit(bool({'pybullet', 'lerobot', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_robots_are_registered_with_tasks_for_their_number_of_arms():
    robots = {gym.spec(env_id).kwargs["robot"] for env_id in ENV_IDS}
    assert robots == {"panda", "kuka", "xarm6", "ur5e", "duo"}
    assert "actionprior/DuoHandover-v0" in ENV_IDS
    assert not {"actionprior/DuoPlace-v0", "actionprior/PandaHandover-v0"} & set(ENV_IDS)


@pytest.mark.parametrize(
    ("env_id", "rate", "steps"),
    [
        ("actionprior/PandaReach-v0", 10, 60),
        ("actionprior/Ur5eReach-v0", 20, 120),
        ("actionprior/DuoHandover-v0", 15, 150),
    ],
)
def test_step_limits_scale_with_the_control_rate(env_id, rate, steps):
    env = gym.make(env_id, images=False)
    assert env.spec.max_episode_steps == env.unwrapped.step_limit == steps
    assert env.unwrapped.control_hz == env.unwrapped.metadata["render_fps"] == rate
    env.close()


def test_speed_limits_do_not_depend_on_the_control_rate():
    for robot in ("panda", "ur5e", "duo"):
        env = TabletopEnv(robot, "handover" if robot == "duo" else "reach", images=False,
                          control_mode="joint_delta")  # fmt: skip
        fastest = env.action_space.high[0] * env.control_hz
        assert fastest == pytest.approx(MAX_JOINT_SPEED)
        env.close()


def test_each_robot_is_registered_with_each_task_that_suits_it():
    assert len(set(ENV_IDS)) == sum(
        t.suits(r)
        for t in TASKS.values()
        for r in map(find_robot, ("panda", "kuka", "xarm6", "ur5e", "duo"))
    )
    assert set(SHORT_ENV_IDS) < set(ENV_IDS) <= set(gym.registry)
    assert len(SHORT_ENV_IDS) == 16
    assert env_id("kuka", "once_each") == "actionprior/KukaOnceEach-v0"
    with pytest.raises(UserError, match=r"no task 'stack' for robot 'duo'; it has \['handover'\]"):
        env_id("duo", "stack")
    with pytest.raises(UserError, match="no task 'drawer' for robot 'ur5e'"):
        env_id("ur5e", "drawer")  # its tab needs a cup


def test_long_tasks_have_longer_limits():
    limits = {
        task: gym.spec(env_id("panda", task)).max_episode_steps
        for task, kind in TASKS.items()
        if kind.arms == 1
    }
    assert {limits[task] for task in ("reach", "push", "lift", "place")} == {60}
    assert limits["stack"] == 160
    assert limits["sort"] == 320
    env = gym.make(env_id("panda", "sort"), images=False)
    assert env.unwrapped.step_limit == 320
    env.close()


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_environments_pass_gymnasiums_checker(env_id):
    env = gym.make(env_id, disable_env_checker=True, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Actions are in physical units, which the checker warns about.
        warnings.filterwarnings("ignore", message=".*symmetric and normalized space")
        check_env(env.unwrapped, skip_close_check=True)
    assert env.unwrapped.render().shape == (256, 256, 3)
    env.close()
    env.close()


@pytest.mark.parametrize(
    "env_id",
    [
        "actionprior/PandaPush-v0",
        "actionprior/Ur5ePlace-v0",
        "actionprior/DuoHandover-v0",
        "actionprior/KukaRecall-v0",
        "actionprior/PandaSort-v0",
        "actionprior/PandaDrawer-v0",
    ],
)
def test_episodes_repeat_bit_by_bit_after_other_episodes(env_id):
    fresh, used = (gym.make(env_id, image_size=32).unwrapped for _ in range(2))
    expert = TabletopExpert(fresh)
    seed = EVALUATION_SEED + 3
    fresh.reset(seed=seed)
    expert.reset(seed)
    actions = []
    for _ in range(60):
        actions.append(expert())
        fresh.step(actions[-1])
    roll(used, actions, seed=5)
    expected = roll(gym.make(env_id, image_size=32).unwrapped, actions, seed)
    assert_equal(roll(used, actions, seed), expected)
    assert_equal(roll(fresh, actions, seed), expected)


def test_rendering_images_does_not_change_the_states():
    with_images = gym.make(ENV_IDS[0]).unwrapped
    without = gym.make(ENV_IDS[0], images=False).unwrapped
    assert "image" not in without.observation_space.spaces
    actions = [with_images.action_space.sample() for _ in range(10)]
    for a, b in zip(roll(with_images, actions, 1), roll(without, actions, 1), strict=True):
        assert "image" not in b
        np.testing.assert_array_equal(a["state"], b["state"])


@pytest.mark.parametrize("robot", ["panda", "kuka", "xarm6", "ur5e"])
@pytest.mark.parametrize("mode", CONTROL_MODES)
def test_names_and_spaces_agree(robot, mode):
    env = TabletopEnv(robot, "lift", images=False, control_mode=mode)
    observation, info = env.reset(seed=0)
    assert observation["state"].shape == (len(env.state_names),)
    assert env.action_space.shape == (len(env.action_names),)
    assert env.control_mode == mode
    assert info["instruction"] == env.instruction
    assert info["instruction"].startswith("lift the ")
    assert info["is_success"] is False
    tip = env.arms[0].to_base(env.snapshot().tip)
    np.testing.assert_allclose(observation["state"][:3], tip, atol=1e-6)
    env.close()


@pytest.mark.parametrize("robot", ["panda", "kuka", "xarm6", "ur5e"])
def test_joint_deltas_add_to_the_held_target(robot):
    env = TabletopEnv(robot, images=False, control_mode="joint_delta")
    before = env.reset(seed=0)[0]["state"][3:-1]
    action = np.zeros(env.action_space.shape)
    action[0] = 0.5 / env.control_hz
    for _ in range(3):
        observation = env.step(action)[0]
    after = observation["state"][3:-1]
    assert after[0] - before[0] == pytest.approx(3 * action[0], abs=0.005)
    np.testing.assert_allclose(after[1:], before[1:], atol=0.005)


@pytest.mark.parametrize("robot", ["panda", "kuka", "xarm6", "ur5e"])
def test_joint_positions_are_approached_no_faster_than_the_limit(robot):
    env = TabletopEnv(robot, images=False, control_mode="joint_position")
    before = env.reset(seed=0)[0]["state"][3:-1]
    action = np.append(before, 0.0)
    action[0] += 0.5
    steps = round(0.5 * env.control_hz)
    moved = [env.step(action)[0]["state"][3] - before[0] for _ in range(steps)]
    assert moved[0] == pytest.approx(MAX_JOINT_SPEED / env.control_hz, abs=0.02)
    assert moved[-1] == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("robot", ["panda", "kuka", "xarm6", "ur5e"])
def test_tip_deltas_move_the_tip(robot):
    env = TabletopEnv(robot, images=False, control_mode="ee_delta")
    before = env.reset(seed=0)[0]["state"][:3]
    action = np.zeros(7)
    action[:3] = (0.01, -0.01, 0.005)
    for _ in range(5):
        observation = env.step(action)[0]
    moved = observation["state"][:3] - before
    np.testing.assert_allclose(moved, (0.05, -0.05, 0.025), atol=0.004)


def test_suction_shows_in_the_state():
    env = TabletopEnv("panda", "lift", images=False)
    assert env.reset(seed=0)[0]["state"][-1] == 0.0
    expert = TabletopExpert(env)
    seen = set()
    for _ in range(60):
        observation, _, terminated, _, _ = env.step(expert())
        seen.add(float(observation["state"][-1]))
        if terminated:
            break
    assert seen >= {0.0, 1.0}
    action = np.zeros(env.action_space.shape)
    assert env.step(action)[0]["state"][-1] == 0.0
    assert env.world.held is None


def test_success_ends_the_episode_with_reward_one():
    env = gym.make("actionprior/PandaReach-v0", images=False)
    env.reset(seed=0)
    expert = TabletopExpert(env)
    rewards, terminated = [], False
    while not terminated:
        _, reward, terminated, truncated, info = env.step(expert())
        rewards.append(reward)
        assert info["is_success"] == info["success"] == terminated
        assert not truncated
    assert rewards[-1] == 1.0
    assert sum(rewards) == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"robot": "duo", "task": "reach"}, r"'reach' is for 1 arm\(s\), but robot 'duo' has 2"),
        ({"task": "handover"}, r"'handover' is for 2 arm\(s\), but robot 'panda' has 1"),
        ({"control_mode": "torque"}, "control_mode 'torque' is not known; choose one of"),
        ({"robot": "ur5"}, "robot 'ur5' is not known; choose one of"),
        ({"task": "cook"}, "task 'cook' is not known; choose one of"),
        ({"image_size": 0}, "image_size is 0"),
        ({"render_mode": "human"}, "render_mode 'human' is not known"),
        ({"wordings": "many"}, "wordings 'many' is not known; choose one of"),
    ],
)
def test_bad_arguments_raise_user_errors(arguments, message):
    with pytest.raises(UserError, match=message):
        TabletopEnv(**arguments)


def test_a_robot_out_of_reach_raises_a_user_error():
    env = TabletopEnv(dataclasses.replace(PANDA, base=(-3.0, 0.0, 0.0)), images=False)
    with pytest.raises(UserError, match="choose another base or home"):
        env.reset(seed=0)


@pytest.mark.parametrize("action", [np.zeros(3), np.full(8, np.nan)])
def test_bad_actions_raise_user_errors(action):
    env = TabletopEnv(images=False)
    with pytest.raises(UserError, match="call reset"):
        env.step(np.zeros(8))
    env.reset(seed=0)
    with pytest.raises(UserError, match="must be 8 finite numbers"):
        env.step(action)


def test_a_missing_simulator_raises_with_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pybullet_data", None)
    with pytest.raises(UserError, match=r"need PyBullet; .* pip install -e '\.\[sim\]'"):
        gym.make("actionprior/PandaReach-v0")
