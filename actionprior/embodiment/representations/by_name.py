"""The representations that a robot's description can name. Add a new one to its dict here."""

from actionprior.embodiment.representations.angles import AngleSincos
from actionprior.embodiment.representations.base import ActionRepresentation, StateRepresentation
from actionprior.embodiment.representations.deltas import EndEffectorChange, JointChange
from actionprior.embodiment.representations.grippers import GripperCommand, GripperOpening
from actionprior.embodiment.representations.orientations import (
    EndEffectorTurnTarget,
    Rotation6d,
    RotationQuaternion,
)
from actionprior.embodiment.representations.positions import (
    EndEffectorTarget,
    JointTarget,
    StatePosition,
)
from actionprior.embodiment.representations.wrapped_angle import (
    WrappedAngleState,
    WrappedAngleTarget,
)

ACTION_REPRESENTATIONS: dict[str, type[ActionRepresentation]] = {
    "joint_position": JointTarget,
    "joint_delta": JointChange,
    "end_effector_position": EndEffectorTarget,
    "end_effector_delta": EndEffectorChange,
    "end_effector_rotation": EndEffectorTurnTarget,
    "gripper": GripperCommand,
    "wrapped_angle": WrappedAngleTarget,
}
STATE_REPRESENTATIONS: dict[str, type[StateRepresentation]] = {
    "position": StatePosition,
    "angle_sincos": AngleSincos,
    "rotation_quaternion": RotationQuaternion,
    "rotation_6d": Rotation6d,
    "gripper": GripperOpening,
    "wrapped_angle": WrappedAngleState,
}
