"""The suite's robots as embodiments, which place their features in the unified vectors' slots."""

from actionprior.embodiment import ActionGroup, Embodiment, StateGroup
from actionprior.envs.arms.robots import (
    SIDES,
    ControlMode,
    Robot,
    Station,
    check_control_mode,
    find_robot,
)
from actionprior.envs.recording import CAMERA_KEY


def suite_embodiment(
    robot: str | Robot | Station, control_mode: ControlMode | None = None
) -> Embodiment:
    """Describe a robot of the suite for data modules, models and rollouts.

    Slots follow arXiv 2606.26095, Table I.

    - One arm: joint commands fill the slot ``joints`` (positions are relative to the joint
      angles). Commands of the tip fill ``right_arm``. The gripper follows the arm.
    - A station: its arms' commands fill ``left_arm`` and ``right_arm``. Both tips fill
      ``end_effector``. The states of joints and grippers fill ``body``, because ``joints`` is too
      narrow for two arms.

    Args:
        robot: The robot or station, or its name.
        control_mode: Control mode of the actions. None uses the robot's default. Another mode is
            appended to the embodiment's name, because its actions need separate statistics.

    Raises:
        UserError: The robot or the mode is unknown.
    """
    body = find_robot(robot)
    mode = check_control_mode(control_mode or body.control_mode)
    action: list[ActionGroup] = []
    state: list[StateGroup] = []
    if isinstance(body, Station):
        for number, (side, arm) in enumerate(zip(SIDES, body.arms, strict=True)):
            action += _actions(arm, mode, f"{side}arm", side, gripper_at=6)
            state += _states(arm, side, tip_at=3 * number, slot="body", joints_at=7 * number)
    else:
        ee = mode == "ee_delta"
        action += _actions(body, mode, "right_arm" if ee else "joints", gripper_at=6 if ee else 7)
        state += _states(body)
    return Embodiment(
        name=body.name if mode == body.control_mode else f"{body.name}_{mode}",
        control_hz=body.control_hz,
        action=action,
        state=state,
        cameras=[CAMERA_KEY],
    )


def _actions(
    arm: Robot, mode: ControlMode, slot: str, side: str = "", *, gripper_at: int
) -> list[ActionGroup]:
    """Return the action groups of one arm. ``side`` prefixes the names of features and groups."""

    def names(*kinds: str) -> list[str]:
        return [f"{side}{f.name}" for f in arm.action_features(mode) if f.kind in kinds]

    if mode == "ee_delta":
        shift, turn = names("ee_delta_position"), names("ee_delta_rotation")
        motion = [
            ActionGroup(f"{side}translation", slot, shift, "end_effector_delta", "m"),
            ActionGroup(f"{side}rotation", slot, turn, "end_effector_delta", "rad", 3),
        ]
    else:
        base = f"{side}joints" if mode == "joint_position" else ""
        joints = names(mode)
        motion = [ActionGroup(f"{side}arm", slot, joints, mode, "rad", relative_to=base)]
    gripper = ActionGroup(f"{side}gripper", slot, names("gripper"), "gripper", "1", gripper_at)
    return [*motion, gripper]


def _states(
    arm: Robot, side: str = "", *, tip_at: int = 0, slot: str = "joints", joints_at: int = 0
) -> list[StateGroup]:
    """Return the state groups of one arm.

    The gripper comes after seven joints, or after six for an arm of a station.
    """
    features = arm.state_features
    tip = [f"{side}{f.name}" for f in features if f.kind == "ee_position"]
    joints = [f"{side}{f.name}" for f in features if f.kind == "joint_position"]
    (gripper,) = (f for f in features if f.kind == "gripper")
    gripper_at = joints_at + (6 if side else 7)
    return [
        StateGroup(f"{side}tip", "end_effector", tip, unit="m", offset=tip_at),
        StateGroup(f"{side}joints", slot, joints, unit="rad", offset=joints_at),
        StateGroup(
            f"{side}gripper", slot, [f"{side}{gripper.name}"], "gripper", gripper.unit, gripper_at
        ),
    ]
