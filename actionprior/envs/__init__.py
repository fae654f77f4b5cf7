"""A PyBullet suite of tabletop tasks for five robots, registered with gymnasium.

Importing this module registers ``actionprior/{robot}{task}-v0`` for each robot and each task that
suits its arms and grippers:

- robots with one arm: ``Panda``, ``Kuka``, ``XArm6`` and ``Ur5e``; with two arms: ``Duo``;
- short tasks: ``Reach``, ``Push``, ``Lift`` and ``Place``;
- long tasks: ``Stack``, ``Sort`` and ``Drawer``;
- tasks that need memory: ``Recall`` and ``OnceEach``;
- the task for two arms: ``Handover``.

The import is cheap: PyBullet is imported when the first environment is made.

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
"""First reset seed of evaluations. Demonstrations use only smaller seeds."""

_ROBOTS = {"Panda": "panda", "Kuka": "kuka", "XArm6": "xarm6", "Ur5e": "ur5e", "Duo": "duo"}
_SHORT = ("reach", "push", "lift", "place")

SUITE: dict[str, list[str]] = {
    "panda": ["push", "stack", "drawer"],
    "kuka": ["place", "sort", "recall"],
    "ur5e": ["lift", "once_each"],
    "duo": ["handover"],
    "xarm6": ["reach", "push", "lift", "place"],
}
"""The thirteen tasks that the studies use, by robot. Studies give the last robot, ``xarm6``, few
demonstrations and the others many."""


def env_id(robot: str, task: str) -> str:
    """Return the environment id of a robot and a task.

    Args:
        robot: Short name of a robot of the suite, such as ``panda``.
        task: Short name of a task, such as ``stack``.

    Raises:
        UserError: The suite does not combine this robot and this task.
    """
    if (robot, task) not in _IDS:
        known = [t for r, t in _IDS if r == robot]
        raise UserError(f"the suite has no task {task!r} for robot {robot!r}; it has {known}")
    return _IDS[robot, task]


def _make_id(robot: str, task: str) -> str:
    return f"actionprior/{robot}{''.join(word.capitalize() for word in task.split('_'))}-v0"


_IDS = {
    (name, task): _make_id(shown, task)
    for shown, name in _ROBOTS.items()
    for task, kind in TASKS.items()
    if kind.suits(find_robot(name))
}

ENV_IDS: tuple[str, ...] = tuple(_IDS.values())
"""Ids of all registered environments."""
SHORT_ENV_IDS: tuple[str, ...] = tuple(v for (_, task), v in _IDS.items() if task in _SHORT)
"""Ids of the environments with one of the four short tasks."""


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
