"""The suite's robots as embodiments: which of their features goes to which slot."""

from actionprior.embodiment import ActionGroup, Embodiment, StateGroup
from actionprior.envs.recording import CAMERA_KEY
from actionprior.envs.robots import (
    CONTROL_HZ,
    ControlMode,
    Robot,
    check_control_mode,
    find_robot,
)


def suite_embodiment(robot: str | Robot, control_mode: ControlMode | None = None) -> Embodiment:
    """Describe a robot of the suite, for data modules, models and rollouts alike.

    Joint commands go to the slot ``joints`` (positions relative to the joint angles), those of
    the tip to ``right_arm``; the gripper follows the arm (arXiv 2606.26095, Table I).

    Args:
        robot: the robot, or its name.
        control_mode: None is the robot's own; another one adds its name to the robot's, for
            its actions need statistics of their own.

    Raises:
        ValueError: robot or mode is unknown.
    """
    arm = find_robot(robot)
    mode = check_control_mode(control_mode or arm.control_mode)
    names = _names_by_unit(arm, mode)
    if mode == "ee_delta":
        action = [
            ActionGroup("translation", "right_arm", names["m"], "end_effector_delta", "m"),
            ActionGroup("rotation", "right_arm", names["rad"], "end_effector_delta", "rad", 3),
            ActionGroup("gripper", "right_arm", names["1"], "gripper", "1", 6),
        ]
    else:
        relative_to = "joints" if mode == "joint_position" else ""
        action = [
            ActionGroup("arm", "joints", names["rad"], mode, "rad", relative_to=relative_to),
            ActionGroup("gripper", "joints", names["1"], "gripper", "1", 7),
        ]
    state = [(f.name, f.unit) for f in arm.state_features]
    return Embodiment(
        name=arm.name if mode == arm.control_mode else f"{arm.name}_{mode}",
        control_hz=CONTROL_HZ,
        action=action,
        state=[
            StateGroup("tip", "end_effector", [n for n, unit in state if unit == "m"], unit="m"),
            StateGroup("joints", "joints", [n for n, unit in state if unit == "rad"], unit="rad"),
            StateGroup("gripper", "joints", ["gripper"], "gripper", "1", 7),
        ],
        cameras=[CAMERA_KEY],
    )


def _names_by_unit(arm: Robot, mode: ControlMode) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for feature in arm.action_features(mode):
        names.setdefault(feature.unit, []).append(feature.name)
    return names
