"""Benchmarks by others that need more than Gymnasium's interface to be rolled out in, or recorded.

Importing this module registers ``metaworld/reach-v3`` and the other 49 tasks of MetaWorld, and
``libero_spatial/0`` and the other 129 of LIBERO's five suites. It costs nothing else: the packages,
extras of this one, are imported when an environment is made. What speaks Gymnasium's interface
already needs nothing from here (docs/environments.md).
"""

import gymnasium as gym

from actionprior.benchmarks.tasks import LIBERO_SUITES, METAWORLD_TASKS

METAWORLD_IDS = tuple(f"metaworld/{task}" for task in METAWORLD_TASKS)
"""The registered ids of MetaWorld's tasks."""
LIBERO_IDS = tuple(f"{suite}/{i}" for suite, count in LIBERO_SUITES.items() for i in range(count))
"""The registered ids of LIBERO's tasks."""


def _register() -> None:
    for env_id in METAWORLD_IDS:
        if env_id not in gym.registry:
            gym.register(
                env_id,
                entry_point="actionprior.benchmarks.metaworld:MetaWorldEnv",
                max_episode_steps=500,
                kwargs={"task": env_id.rpartition("/")[2]},
            )
    for env_id in LIBERO_IDS:
        if env_id not in gym.registry:
            suite, _, number = env_id.rpartition("/")
            gym.register(
                env_id,
                entry_point="actionprior.benchmarks.libero:LiberoEnv",
                max_episode_steps=600,
                kwargs={"suite": suite, "task": int(number)},
            )


_register()
