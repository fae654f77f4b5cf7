"""Check that instructions are present and say something."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from actionprior.checkup.finding import Finding
from actionprior.checkup.subject import Subject


def check_tasks(subject: Subject) -> Iterator[Finding]:
    """Find empty, unused, nearly equal and changing instructions."""
    tasks, task_N = subject.contents.tasks, subject.contents.task_N
    if task_N is None:
        return
    used_N = task_N[:]
    used = np.unique(used_N).tolist()
    for index in used:
        if not tasks[index].strip():
            at_N = used_N == index
            yield subject.say(
                "warning",
                "empty_task",
                "task",
                f"is {tasks[index]!r} in {at_N.mean():.0%} of frames: a policy gets no instruction",
                at=int(at_N.argmax()),
            )
    if unused := sorted(set(range(len(tasks))) - set(used)):
        yield subject.say(
            "warning",
            "unused_task",
            "task",
            f"{len(unused)} of the {len(tasks)} instructions in the table are in no frame, such "
            f"as {tasks[unused[0]]!r}: are episodes missing?",
        )
    yield from _spellings(subject, [tasks[index] for index in used])
    changes = np.nonzero(np.diff(used_N) != 0)[0] + 1
    changes = changes[~np.isin(changes, subject.start_E)]
    if len(changes):
        at = int(changes[0])
        yield subject.say(
            "note",
            "task_changes",
            "task",
            f"changes to {tasks[used_N[at]]!r} within the episode ({len(changes)} such changes)",
            at=at,
        )
    if len(used) == 1 and len(subject.lengths_E) > 1 and tasks[used[0]].strip():
        yield subject.say(
            "note",
            "one_task",
            "task",
            f"is {tasks[used[0]]!r} in all {len(subject.lengths_E)} episodes: a policy cannot "
            "learn to follow language from it",
        )


def _spellings(subject: Subject, tasks: list[str]) -> Iterator[Finding]:
    groups = defaultdict(list)
    for task in tasks:
        groups[" ".join(task.casefold().strip(" .!").split())].append(task)
    for same in groups.values():
        if len(same) > 1:
            yield subject.say(
                "warning", "task_spelling", "task", f"is spelt in {len(same)} ways: {same}"
            )
