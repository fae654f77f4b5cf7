"""A PyBullet suite of tabletop tasks for five robots, registered with gymnasium.

Importing this module registers ``actionprior/{robot}{task}-v0`` for each robot (``Panda``,
``Kuka``, ``XArm6``, ``Ur5e`` and, with two arms, ``Duo``) and task for as many arms as it has: the
short ``Reach``, ``Push``, ``Lift`` and ``Place``, the long ``Stack``, ``Sort`` and ``Drawer``,
``Recall`` and ``OnceEach``, which need memory, and for two arms ``Handover``. It costs nothing
else: PyBullet is imported when one is made.

    import gymnasium as gym
    import actionprior.envs
    env = gym.make("actionprior/PandaLift-v0")
"""

from __future__ import annotations

import gymnasium as gym

from actionprior.envs.arms.robots import find_robot
from actionprior.envs.tasks import TASKS
from actionprior.errors import UserError

EVALUATION_SEED = 900_000_000
"""Evaluation uses reset seeds from here on; demonstrations never do."""

_ROBOTS = {"Panda": "panda", "Kuka": "kuka", "XArm6": "xarm6", "Ur5e": "ur5e", "Duo": "duo"}
_SHORT = ("reach", "push", "lift", "place")

SUITE: dict[str, list[str]] = {
    "panda": ["push", "stack", "drawer"],
    "kuka": ["place", "sort", "recall"],
    "ur5e": ["lift", "once_each"],
    "duo": ["handover"],
    "xarm6": ["reach", "push", "lift", "place"],
}
"""The thirteen tasks that studies are about, by robot. The last robot's four are meant to be
scarce, with few demonstrations of them among many of the others."""


def env_id(robot: str, task: str) -> str:
    """The id of a robot of the suite at a task, both by their short names (``panda``, ``stack``).

    Raises:
        UserError: the suite does not have it.
    """
    if (robot, task) not in _IDS:
        known = [t for r, t in _IDS if r == robot]
        raise UserError(f"the suite has no task {task!r} for robot {robot!r}; it has {known}")
    return _IDS[robot, task]


def _name(robot: str, task: str) -> str:
    return f"actionprior/{robot}{''.join(word.capitalize() for word in task.split('_'))}-v0"


_IDS = {
    (name, task): _name(shown, task)
    for shown, name in _ROBOTS.items()
    for task, kind in TASKS.items()
    if kind.suits(find_robot(name))
}

ENV_IDS: tuple[str, ...] = tuple(_IDS.values())
"""The registered ids."""
SHORT_ENV_IDS: tuple[str, ...] = tuple(v for (_, task), v in _IDS.items() if task in _SHORT)
"""Those of the four short tasks."""


def _register() -> None:
    for (robot, task), name in _IDS.items():
        if name not in gym.registry:
            gym.register(
                name,
                entry_point="actionprior.envs.env:TabletopEnv",
                max_episode_steps=round(TASKS[task].seconds * find_robot(robot).control_hz),
                kwargs={"robot": robot, "task": task},
            )


_register()
