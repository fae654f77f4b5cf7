"""Benchmarks of other projects that need an adapter for rollouts and recordings.

Importing this module registers the 50 tasks of MetaWorld (``metaworld/reach-v3``, …), the 130 of
LIBERO's five suites (``libero_spatial/0``, …) and the two of gym-aloha (``aloha/transfer_cube``,
``aloha/insertion``). The benchmarks' packages are optional extras. They are imported only when an
environment is made. Environments that follow Gymnasium's interface need no adapter
(docs/environments.md).
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym

from actionprior.benchmarks.metaworld_tasks import METAWORLD_DIFFICULTY, METAWORLD_MT10
from actionprior.benchmarks.tasks import ALOHA_TASKS, LIBERO_SUITES, METAWORLD_TASKS

METAWORLD_IDS = tuple(f"metaworld/{task}" for task in METAWORLD_TASKS)
"""Registered ids of MetaWorld's tasks."""
LIBERO_IDS = tuple(f"{suite}/{i}" for suite, count in LIBERO_SUITES.items() for i in range(count))
"""Registered ids of LIBERO's tasks."""
ALOHA_IDS = tuple(f"aloha/{task}" for task in ALOHA_TASKS)
"""Registered ids of gym-aloha's tasks."""


def _metaworld(tasks: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"metaworld/{task}" for task in tasks)


DIFFICULTY_GROUPS = {
    f"metaworld/{name}": _metaworld(tasks) for name, tasks in METAWORLD_DIFFICULTY.items()
}
"""Groups of tasks whose mean success is published, and the ids of each."""
ENV_GROUPS = {
    "metaworld/mt10": _metaworld(METAWORLD_MT10),
    "metaworld/mt50": METAWORLD_IDS,
    **DIFFICULTY_GROUPS,
    **{
        suite: tuple(f"{suite}/{i}" for i in range(count)) for suite, count in LIBERO_SUITES.items()
    },
}
"""Short names for lists of environment ids, such as ``metaworld/mt50`` or ``libero_spatial``."""


def expand_groups(env_ids: Sequence[str]) -> list[str]:
    """Replace each name of ``ENV_GROUPS`` by its ids."""
    return [env_id for name in env_ids for env_id in ENV_GROUPS.get(name, (name,))]


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
