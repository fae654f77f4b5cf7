"""Small robots and random windows of their motion, for tests without a dataset."""

import torch

from actionprior.batch import TrajectoryBatch
from actionprior.embodiment import ActionGroup, Embodiment, StateGroup

JOINTS = [f"joint_{i}" for i in range(1, 8)]


def delta_arm(name: str = "panda") -> Embodiment:
    """Describe an arm with seven joint deltas and a gripper."""
    return Embodiment(
        name=name,
        control_hz=10,
        action=[
            ActionGroup("arm", "joints", JOINTS, "joint_delta", "rad"),
            ActionGroup("gripper", "joints", ["gripper"], "gripper", "", offset=7),
        ],
        state=[
            StateGroup("arm", "joints", JOINTS, "position", "rad"),
            StateGroup("gripper", "joints", ["gripper"], "gripper", "", offset=7),
        ],
        cameras=["observation.images.front"],
    )


def position_arm(name: str = "kuka") -> Embodiment:
    """Describe an arm with six joint targets, relative to a state stored as sine and cosine."""
    six = JOINTS[:6]
    return Embodiment(
        name=name,
        control_hz=20,
        action=[
            ActionGroup("arm", "right_arm", six, "joint_position", "rad", relative_to="angles")
        ],
        state=[StateGroup("angles", "body", six, "angle_sincos", "rad")],
        cameras=["observation.images.front"],
    )


def plain_arm(name: str = "plain") -> Embodiment:
    """Describe an arm with six joint targets, relative to the same joints."""
    six = JOINTS[:6]
    return Embodiment(
        name=name,
        control_hz=20,
        action=[ActionGroup("arm", "joints", six, "joint_position", "rad", relative_to="arm")],
        state=[StateGroup("arm", "joints", six, "position", "rad")],
        cameras=["observation.images.front"],
    )


def tool_arm(name: str = "tool") -> Embodiment:
    """Describe an arm with pose targets in Euler angles, relative to a state in quaternions."""
    place, turn = ["x", "y", "z"], ["qx", "qy", "qz", "qw"]
    return Embodiment(
        name=name,
        control_hz=20,
        action=[
            ActionGroup(
                "place", "right_arm", place, "end_effector_position", "m", 0, relative_to="place"
            ),
            ActionGroup(
                "turn",
                "right_arm",
                ["roll", "pitch", "yaw"],
                "end_effector_rotation",
                "rad",
                3,
                relative_to="turn",
                encoding="euler_xyz",
            ),
        ],
        state=[
            StateGroup("place", "end_effector", place, "position", "m"),
            StateGroup(
                "turn", "end_effector", turn, "rotation_quaternion", "rad", 3, "quaternion_xyzw"
            ),
        ],
    )


def windows(
    robots: list[Embodiment], batch: int, length: int = 15, seed: int = 0, spread: float = 0.3
) -> TrajectoryBatch:
    """Draw random smooth windows; the last row ends after three steps."""
    g = torch.Generator().manual_seed(seed)
    embodiment_B = torch.arange(batch) % len(robots)
    action_mask = torch.stack([torch.from_numpy(r.action_mask()) for r in robots])[embodiment_B]
    state_mask = torch.stack([torch.from_numpy(r.state_mask()) for r in robots])[embodiment_B]
    action = torch.randn(batch, length, 37, generator=g).mul(spread) * action_mask[:, None]
    state = torch.randn(batch, length, 74, generator=g).cumsum(1).mul(spread) * state_mask[:, None]
    step_mask = torch.ones(batch, length, dtype=torch.bool)
    step_mask[-1, 3:] = False
    positions = torch.stack([~torch.from_numpy(r.delta_mask()) for r in robots])[embodiment_B]
    reference = torch.randn(batch, 37, generator=g) * action_mask * positions
    reference[:, 29:] = 0  # neither grippers nor deltas are relative to a state
    return TrajectoryBatch(action, state, reference, step_mask, embodiment_B)
