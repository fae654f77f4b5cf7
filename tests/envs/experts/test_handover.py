import itertools

import numpy as np
import pytest

from actionprior.envs.arms.arm import ControlledArm
from actionprior.envs.arms.kinematics import Pose, solve_ik
from actionprior.envs.arms.robots import DUO
from actionprior.envs.env import TabletopEnv
from actionprior.envs.experts import TabletopExpert
from actionprior.envs.scene.scene import WORKSPACE


def test_each_arm_of_a_station_follows_its_part_of_the_action():
    env = TabletopEnv("duo", "handover", images=False)
    assert [name for name in env.action_names if "gripper" in name] == [
        "left_gripper",
        "right_gripper",
    ]
    before = env.reset(seed=0)[0]["state"]
    action = np.zeros(env.action_space.shape)
    action[env.action_names.index("right_joint_1_delta")] = 0.05
    for _ in range(3):
        after = env.step(action)[0]["state"]
    moved = np.abs(after - before) > 0.02
    joints = [i for i, name in enumerate(env.state_names) if "joint" in name]
    assert [env.state_names[i] for i in joints if moved[i]] == ["right_joint_1"]
    env.close()


@pytest.mark.parametrize(("side", "y"), [(0, -0.10), (1, 0.10)])
def test_a_handovers_start_and_pad_are_out_of_the_other_arms_reach(side, y):
    arm = ControlledArm(DUO.arms[side], "joint_delta")
    for x in (-WORKSPACE[0], 0.0, WORKSPACE[0]):
        for z in (0.02, 0.06):
            goal = Pose(arm.to_base(np.array([x, y, z])), arm.upright)
            found = solve_ik(arm.chain, arm.home, goal, free_yaw=True, iterations=100)
            assert found.error > 0.01


def test_the_object_goes_from_the_right_hand_to_the_left_in_the_air():
    env = TabletopEnv("duo", "handover", images=False)
    env.reset(seed=0)
    expert = TabletopExpert(env)
    held, heights, done = [], [], False
    while not done:
        done = env.step(expert())[2]
        now = env.snapshot()
        held.append(tuple(hand.held is not None for hand in now.hands))
        if all(held[-1]):
            heights.append(now.positions[env.scene.target, 2])
    # (left holds, right holds): neither, right, both, left, neither.
    changes = [held[0]] + [b for a, b in itertools.pairwise(held) if a != b]
    assert changes == [
        (False, False),
        (False, True),
        (True, True),
        (True, False),
        (False, False),
    ]
    assert min(heights) > 0.15
    env.close()


def test_a_dropped_object_is_picked_up_again():
    env = TabletopEnv("duo", "handover", images=False)
    env.reset(seed=0)
    expert = TabletopExpert(env)
    while env.world.grippers[1].held is None:
        env.step(expert())
    let_go = np.zeros(env.action_space.shape)
    for _ in range(3):
        env.step(let_go)
    assert env.world.grippers[1].held is None
    done, steps = False, 0
    while not done and steps < env.step_limit:
        done, steps = env.step(expert())[2], steps + 1
    assert done
    env.close()
