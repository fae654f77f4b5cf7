"""Register the policies of actionprior: LeRobot imports packages named ``lerobot_policy_…``."""

import actionprior.lerobot.configuration_actionprior  # noqa: F401  # registers the policies
