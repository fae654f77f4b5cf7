"""A PyBullet suite of tabletop tasks for three arms, registered with gymnasium.

Importing this module registers twelve environments, ``actionprior/{Panda,Kuka,XArm6}{Reach,Push,
Lift,Place}-v0``, and costs nothing else: PyBullet is imported when one is made.

    import gymnasium as gym
    import actionprior.envs
    env = gym.make("actionprior/PandaLift-v0")
"""

from __future__ import annotations

import gymnasium as gym

MAX_EPISODE_STEPS = 60
EVALUATION_SEED = 900_000_000
"""Evaluation uses reset seeds from here on; demonstrations never do."""

_ROBOTS = {"Panda": "panda", "Kuka": "kuka", "XArm6": "xarm6"}
_TASKS = {"Reach": "reach", "Push": "push", "Lift": "lift", "Place": "place"}

ENV_IDS: tuple[str, ...] = tuple(
    f"actionprior/{robot}{task}-v0" for robot in _ROBOTS for task in _TASKS
)
"""The registered ids."""


def _register() -> None:
    for robot, robot_name in _ROBOTS.items():
        for task, task_name in _TASKS.items():
            env_id = f"actionprior/{robot}{task}-v0"
            if env_id not in gym.registry:
                gym.register(
                    env_id,
                    entry_point="actionprior.envs.env:TabletopEnv",
                    max_episode_steps=MAX_EPISODE_STEPS,
                    kwargs={"robot": robot_name, "task": task_name},
                )


_register()
