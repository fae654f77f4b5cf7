"""The tasks: how each draws its scene, says its instruction, and judges success.

A task is a small class; the environment asks nothing else of it. Later suites add tasks by
subclassing :class:`Task`.
"""

from actionprior.envs.tasks.base import (
    PAD_TOLERANCE,
    WORDINGS,
    Hand,
    Snapshot,
    Task,
    Wordings,
    check_wordings,
)
from actionprior.envs.tasks.drawer import OpenDrawer
from actionprior.envs.tasks.handover import Handover
from actionprior.envs.tasks.long_horizon import Sort, Stack
from actionprior.envs.tasks.memory import CUE_SECONDS, OnceEach, Recall
from actionprior.envs.tasks.tabletop import (
    LIFT_HEIGHT,
    REACH_HEIGHT,
    REACH_TOLERANCE,
    Lift,
    Place,
    Push,
    Reach,
)
from actionprior.errors import UserError

__all__ = [
    "CUE_SECONDS",
    "LIFT_HEIGHT",
    "PAD_TOLERANCE",
    "REACH_HEIGHT",
    "REACH_TOLERANCE",
    "TASKS",
    "WORDINGS",
    "Hand",
    "Handover",
    "Lift",
    "OnceEach",
    "OpenDrawer",
    "Place",
    "Push",
    "Reach",
    "Recall",
    "Snapshot",
    "Sort",
    "Stack",
    "Task",
    "Wordings",
    "check_wordings",
    "make_task",
]

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (Reach, Push, Lift, Place, Stack, Sort, OpenDrawer, Recall, OnceEach, Handover)
}


def make_task(task: str | Task) -> Task:
    """The task of that name; a :class:`Task` passes through, so users can bring their own.

    Raises:
        UserError: no task has that name.
    """
    if isinstance(task, Task):
        return task
    if task not in TASKS:
        raise UserError(f"task {task!r} is not known; choose one of {sorted(TASKS)}")
    return TASKS[task]()
