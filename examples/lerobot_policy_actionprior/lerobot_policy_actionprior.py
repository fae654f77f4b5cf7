"""Lets LeRobot find the policies of actionprior: it imports what is called ``lerobot_policy_…``."""

import actionprior.lerobot.configuration_actionprior  # noqa: F401  # registers them
