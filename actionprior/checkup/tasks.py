"""Check that instructions are present and say something."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from actionprior.checkup.advice import PRETRAINED, exclude_listed
from actionprior.checkup.finding import Finding
from actionprior.checkup.subject import Subject
from actionprior.embodiment import BoolArray
from actionprior.networks.trunks.word_encoder import MAX_WORDS, split_words, tokenize

BUCKETS = 4096  # words that SmallTrunk keeps apart
LONGEST_WORD = 24  # letters; longer words are sentences without spaces
READERS = "SmallTrunk and CompactTrunk"
IN_TABLE = "no option sets it, so edit the text in the dataset's meta/tasks.parquet or tasks.jsonl"


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
                advice=f"{IN_TABLE}, or leave the episodes out: "
                + exclude_listed(subject, _episodes(subject, at_N)),
            )
    if unused := sorted(set(range(len(tasks))) - set(used)):
        yield subject.say(
            "warning",
            "unused_task",
            "task",
            f"{len(unused)} of the {len(tasks)} instructions in the table are in no frame, such "
            f"as {tasks[unused[0]]!r}: are episodes missing?",
            advice="no option is needed if none is missing; otherwise download the dataset again",
        )
    yield from _spellings(subject, [tasks[index] for index in used])
    yield from _tokens(subject, [tasks[index] for index in used])
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


def _episodes(subject: Subject, at_N: BoolArray) -> list[int]:
    """List the episodes with any of these frames."""
    frames = np.nonzero(at_N)[0]
    numbers: list[int] = np.unique(np.searchsorted(subject.stop_E, frames, side="right")).tolist()
    return numbers


def _tokens(subject: Subject, tasks: list[str]) -> Iterator[Finding]:
    """Find instructions that trunks with words of their own cut, or read as others or as a word."""
    groups = defaultdict(list)
    for task, row_L in zip(tasks, tokenize(tasks, BUCKETS).tolist(), strict=True):
        groups[tuple(row_L)].append(task)
        words = split_words(task)
        if len(words) > MAX_WORDS:
            yield subject.say(
                "warning",
                "task_cut",
                "task",
                f"has {len(words)} words and marks, of which {READERS} read the first {MAX_WORDS}: "
                f"{task[:60]!r}",
                advice=f"shorten it: {IN_TABLE}; or {PRETRAINED}",
            )
        elif any(len(word) > LONGEST_WORD for word in words):
            longest = max(words, key=len)
            yield subject.say(
                "warning",
                "task_word",
                "task",
                f"has a word of {len(longest)} letters, {longest[:40]!r}, which SmallTrunk reads "
                "as one sign",
                advice=f"put spaces between words: {IN_TABLE}; or {PRETRAINED}",
            )
    for same in groups.values():
        if len({" ".join(split_words(task)) for task in same}) > 1:
            yield subject.say(
                "error",
                "task_tokens",
                "task",
                f"is read by SmallTrunk as the same signs in {len(same)} instructions, such as "
                f"{same[0][-60:]!r} and {same[1][-60:]!r}: a policy takes them for one",
                advice=f"change their words: {IN_TABLE}; or {PRETRAINED}",
            )


def _spellings(subject: Subject, tasks: list[str]) -> Iterator[Finding]:
    groups = defaultdict(list)
    for task in tasks:
        groups[" ".join(task.casefold().strip(" .!").split())].append(task)
    for same in groups.values():
        if len(same) > 1:
            yield subject.say(
                "warning",
                "task_spelling",
                "task",
                f"is spelt in {len(same)} ways: {same}",
                advice=f"keep one spelling: {IN_TABLE}",
            )
