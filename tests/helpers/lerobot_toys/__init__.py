"""Environment and robot that LeRobot's commands find by ``discover_packages_path``."""

from tests.helpers.lerobot_toys.toy_arm import ToyArm

__all__ = ["ToyArm"]
