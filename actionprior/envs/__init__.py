"""A PyBullet suite of tabletop tasks for five robots, registered with gymnasium.

Importing this module registers ``actionprior/{Panda,Kuka,XArm6,Ur5e}{Reach,Push,Lift,Place}-v0``
and, for two arms, ``actionprior/DuoHandover-v0``, and costs nothing else: PyBullet is imported when
one is made.

    import gymnasium as gym
    import actionprior.envs
    env = gym.make("actionprior/PandaLift-v0")
"""

from __future__ import annotations

import gymnasium as gym

from actionprior.envs.robots import find_robot
from actionprior.envs.tasks import TASKS

EVALUATION_SEED = 900_000_000
"""Evaluation uses reset seeds from here on; demonstrations never do."""

_ROBOTS = {"Panda": "panda", "Kuka": "kuka", "XArm6": "xarm6", "Ur5e": "ur5e", "Duo": "duo"}
_TASKS = {
    "Reach": "reach",
    "Push": "push",
    "Lift": "lift",
    "Place": "place",
    "Handover": "handover",
}


def _register() -> tuple[str, ...]:
    """Register every robot with every task for as many arms as it has."""
    env_ids = []
    for robot, robot_name in _ROBOTS.items():
        arm = find_robot(robot_name)
        for task, task_name in _TASKS.items():
            kind = TASKS[task_name]
            if kind.arms != len(arm.arms):
                continue
            env_id = f"actionprior/{robot}{task}-v0"
            env_ids.append(env_id)
            if env_id not in gym.registry:
                gym.register(
                    env_id,
                    entry_point="actionprior.envs.env:TabletopEnv",
                    max_episode_steps=round(kind.seconds * arm.control_hz),
                    kwargs={"robot": robot_name, "task": task_name},
                )
    return tuple(env_ids)


ENV_IDS: tuple[str, ...] = _register()
"""The registered ids."""
