"""A PyBullet suite of tabletop tasks for three arms, registered with gymnasium.

Importing this module registers ``actionprior/{robot}{task}-v0`` for each of the robots (``Panda``,
``Kuka``, ``XArm6``) and tasks: the short ``Reach``, ``Push``, ``Lift`` and ``Place``, the long
``Stack``, ``Sort`` and ``Drawer``, and ``Recall`` and ``OnceEach``, which need memory. It costs
nothing else: PyBullet is imported when one is made.

    import gymnasium as gym
    import actionprior.envs
    env = gym.make("actionprior/PandaLift-v0")
"""

from __future__ import annotations

import gymnasium as gym

from actionprior.envs.robots import CONTROL_HZ
from actionprior.envs.tasks import TASKS
from actionprior.errors import UserError

MAX_EPISODE_STEPS = 60
"""Step limit of the short tasks; ``TabletopEnv.step_limit`` is that of any."""
EVALUATION_SEED = 900_000_000
"""Evaluation uses reset seeds from here on; demonstrations never do."""

_ROBOTS = {"Panda": "panda", "Kuka": "kuka", "XArm6": "xarm6"}
_SHORT = ("reach", "push", "lift", "place")


def env_id(robot: str, task: str) -> str:
    """The id of a robot of the suite at a task, both by their short names (``panda``, ``stack``).

    Raises:
        UserError: the suite does not have it.
    """
    if (robot, task) not in _IDS:
        raise UserError(f"the suite has no robot {robot!r} at a task {task!r}; it has {ENV_IDS}")
    return _IDS[robot, task]


def _name(robot: str, task: str) -> str:
    return f"actionprior/{robot}{''.join(word.capitalize() for word in task.split('_'))}-v0"


_IDS = {(name, task): _name(shown, task) for shown, name in _ROBOTS.items() for task in TASKS}

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
                max_episode_steps=round(TASKS[task].seconds * CONTROL_HZ),
                kwargs={"robot": robot, "task": task},
            )


_register()
