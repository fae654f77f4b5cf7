"""Tasks: each one draws its scene, words its instruction, and decides on success.

To add a task, subclass :class:`Task`.
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
from actionprior.envs.tasks.drawer import DrawerTask
from actionprior.envs.tasks.handover import HandoverTask
from actionprior.envs.tasks.long_horizon import SortTask, StackTask
from actionprior.envs.tasks.memory import CUE_SECONDS, OnceEachTask, RecallTask
from actionprior.envs.tasks.tabletop import (
    LIFT_HEIGHT,
    REACH_HEIGHT,
    REACH_TOLERANCE,
    LiftTask,
    PlaceTask,
    PushTask,
    ReachTask,
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
    "DrawerTask",
    "Hand",
    "HandoverTask",
    "LiftTask",
    "OnceEachTask",
    "PlaceTask",
    "PushTask",
    "ReachTask",
    "RecallTask",
    "Snapshot",
    "SortTask",
    "StackTask",
    "Task",
    "Wordings",
    "check_wordings",
    "make_task",
]

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        ReachTask,
        PushTask,
        LiftTask,
        PlaceTask,
        StackTask,
        SortTask,
        DrawerTask,
        RecallTask,
        OnceEachTask,
        HandoverTask,
    )
}


def make_task(task: str | Task) -> Task:
    """Create the task with a name. A :class:`Task` is returned unchanged.

    Raises:
        UserError: No task has this name.
    """
    if isinstance(task, Task):
        return task
    if task not in TASKS:
        raise UserError(f"task {task!r} is not known; choose one of {sorted(TASKS)}")
    return TASKS[task]()
