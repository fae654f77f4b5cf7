import importlib
from pathlib import Path

import numpy as np
import pytest

from actionprior.envs.arms.arm import ControlledArm
from actionprior.envs.arms.kinematics import (
    TOOL_DOWN,
    Pose,
    rotation_matrix,
    rotation_vector,
    solve_ik,
)
from actionprior.envs.arms.robots import DUO, ROBOTS, UR5E
from actionprior.envs.arms.urdf import PRISM_FILE, TOOL_LENGTH, light_urdf, load_chain
from actionprior.envs.scene.bullet import Bullet
from actionprior.envs.scene.meshes import prism_obj
from actionprior.envs.scene.scene import WORKSPACE

NAMES = sorted(ROBOTS)
ARMS = [*ROBOTS.values(), *DUO.arms]


@pytest.mark.parametrize("name", [name for name in NAMES if ROBOTS[name].urdf])
def test_forward_agrees_with_pybullet_on_the_original_urdf(name):
    robot = ROBOTS[name]
    chain = load_chain(robot)
    bullet = Bullet()
    data = Path(importlib.import_module("pybullet_data").getDataPath())
    arm = bullet.loadURDF(str(data / robot.urdf), useFixedBase=True)
    revolute = [
        i
        for i in range(bullet.getNumJoints(arm))
        if bullet.getJointInfo(arm, i)[2] == bullet.JOINT_REVOLUTE
    ][: robot.dof]
    rng = np.random.default_rng(0)
    for _ in range(5):
        q = rng.uniform(chain.lower, chain.upper)
        for joint, angle in zip(revolute, q, strict=True):
            bullet.resetJointState(arm, joint, angle)
        state = bullet.getLinkState(arm, revolute[-1], computeForwardKinematics=True)
        rotation = np.array(bullet.getMatrixFromQuaternion(state[5])).reshape(3, 3)
        tip = np.array(state[4]) + rotation @ [0, 0, robot.flange + TOOL_LENGTH]
        pose = chain.forward(q)
        np.testing.assert_allclose(pose.position, tip, atol=1e-5)
        np.testing.assert_allclose(pose.rotation, rotation, atol=1e-5)
    bullet.close()


@pytest.mark.parametrize("robot", ARMS, ids=lambda robot: robot.name)
def test_forward_agrees_with_pybullet_on_the_light_urdf(robot, tmp_path):
    chain = load_chain(robot)
    (tmp_path / "arm.urdf").write_text(light_urdf(robot))
    (tmp_path / PRISM_FILE).write_text(prism_obj())
    bullet = Bullet()
    arm = bullet.loadURDF(str(tmp_path / "arm.urdf"), useFixedBase=True)
    rng = np.random.default_rng(0)
    for _ in range(5):
        q = rng.uniform(-3.0, 3.0, chain.dof)
        for joint, angle in enumerate(q):
            bullet.resetJointState(arm, joint, angle)
        state = bullet.getLinkState(arm, robot.dof, computeForwardKinematics=True)
        rotation = np.array(bullet.getMatrixFromQuaternion(state[5])).reshape(3, 3)
        pose = chain.forward(q)
        tip = np.array(state[4]) + rotation @ [0, 0, TOOL_LENGTH]
        np.testing.assert_allclose(pose.position, tip, atol=1e-5)
        np.testing.assert_allclose(pose.rotation, rotation, atol=1e-5)
    bullet.close()


def test_ur5e_flange_is_where_its_manufacturer_documents_it():
    """At zero angles the flange is at (a2 + a3, -(d4 + d6), d1 - d5) with its axis along -y."""
    pose = load_chain(UR5E).forward(np.zeros(6))
    flange = pose.position - TOOL_LENGTH * pose.rotation[:, 2]
    np.testing.assert_allclose(flange, (-0.8172, -0.2329, 0.0628), atol=1e-9)
    np.testing.assert_allclose(pose.rotation[:, 2], (0.0, -1.0, 0.0), atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_jacobian_is_the_derivative_of_forward(name):
    chain = load_chain(ROBOTS[name])
    q = np.random.default_rng(1).uniform(chain.lower, chain.upper)
    jacobian = chain.jacobian(chain.frames(q))
    step = 1e-6
    for i in range(chain.dof):
        change = np.eye(chain.dof)[i] * step
        before, after = chain.forward(q - change), chain.forward(q + change)
        linear = (after.position - before.position) / (2 * step)
        angular = rotation_vector(after.rotation @ before.rotation.T) / (2 * step)
        np.testing.assert_allclose(jacobian[:, i], np.append(linear, angular), atol=1e-6)


def test_rotation_vector_inverts_rotation_matrix():
    rng = np.random.default_rng(2)
    for size in (0.0, 1e-7, 0.3, 2.0, 3.1):
        axis = rng.normal(size=3)
        vector = size * axis / np.linalg.norm(axis)
        np.testing.assert_allclose(rotation_vector(rotation_matrix(vector)), vector, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_ik_reaches_the_whole_workspace_with_the_tool_down(name):
    robot = ROBOTS[name]
    arm = ControlledArm(robot, robot.control_mode)
    chain, home = arm.chain, arm.home
    for x in (-WORKSPACE[0], 0.0, WORKSPACE[0]):
        for y in (-WORKSPACE[1], 0.0, WORKSPACE[1]):
            for z in (0.01, 0.2):
                goal = Pose(arm.to_base(np.array([x, y, z])), TOOL_DOWN)
                found = solve_ik(chain, home, goal, free_yaw=True, posture=home, iterations=60)
                tip = chain.forward(found.q)
                assert np.linalg.norm(tip.position - goal.position) < 1e-3
                assert tip.rotation[2, 2] < -0.999
                assert (found.q >= chain.lower).all()
                assert (found.q <= chain.upper).all()


def test_ik_returns_the_error_of_an_unreachable_goal():
    robot = ROBOTS["panda"]
    found = solve_ik(load_chain(robot), np.array(robot.home), Pose(np.full(3, 2.0), TOOL_DOWN))
    assert found.error > 1.0
