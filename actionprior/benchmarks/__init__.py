"""Benchmarks by others that need more than Gymnasium's interface to be rolled out in, or recorded.

Importing this module registers ``metaworld/reach-v3`` and the other 49 tasks of MetaWorld,
``libero_spatial/0`` and the other 129 of LIBERO's five suites, ``aloha/transfer_cube`` and
``aloha/insertion``. It costs nothing else: the packages, extras of this one, are imported when an
environment is made. What speaks Gymnasium's interface well needs nothing from here
(docs/environments.md).
"""

from typing import Any

import gymnasium as gym

from actionprior.benchmarks.tasks import ALOHA_TASKS, LIBERO_SUITES, METAWORLD_TASKS

METAWORLD_IDS = tuple(f"metaworld/{task}" for task in METAWORLD_TASKS)
"""The registered ids of MetaWorld's tasks."""
LIBERO_IDS = tuple(f"{suite}/{i}" for suite, count in LIBERO_SUITES.items() for i in range(count))
"""The registered ids of LIBERO's tasks."""
ALOHA_IDS = tuple(f"aloha/{task}" for task in ALOHA_TASKS)
"""The registered ids of gym-aloha's tasks."""


def _register(env_id: str, entry_point: str, steps: int, **kwargs: Any) -> None:  # noqa: ANN401  Gymnasium's
    if env_id not in gym.registry:
        entry_point = f"actionprior.benchmarks.{entry_point}"
        gym.register(env_id, entry_point, max_episode_steps=steps, kwargs=kwargs)


for _id in METAWORLD_IDS:
    _register(_id, "metaworld:MetaWorldEnv", 500, task=_id.rpartition("/")[2])
for _id in LIBERO_IDS:
    _suite, _, _number = _id.rpartition("/")
    _register(_id, "libero:LiberoEnv", 600, suite=_suite, task=int(_number))
for _id in ALOHA_IDS:
    _register(_id, "aloha:AlohaEnv", 400, task=_id.rpartition("/")[2])
