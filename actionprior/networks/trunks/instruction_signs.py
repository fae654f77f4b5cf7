"""What trunks read of instructions, and sentences about instructions that they confuse."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from actionprior.errors import shown


class InstructionSigns(NamedTuple):
    """Signs that a trunk reads of one instruction.

    Attributes:
        signs: Numbers of words or of their parts. Two instructions with equal ones are the same
            instruction for the trunk.
        whole: False if the trunk reads only the beginning.
    """

    signs: tuple[int, ...]
    whole: bool


def reading_faults(
    tasks: Sequence[str], signs: Sequence[InstructionSigns], reader: str
) -> list[str]:
    """Return a sentence for each kind of fault in what a trunk reads of distinct instructions.

    Instructions that differ in upper case and spaces only are the same.

    Args:
        tasks: Instructions.
        signs: What the trunk reads of each.
        reader: Name of the trunk, for the sentences.
    """
    found = []
    if cut := [task for task, own in zip(tasks, signs, strict=True) if not own.whole]:
        found.append(
            f"{reader} reads only the beginning of {len(cut)} of {len(tasks)} instructions, such "
            f"as {shown(cut[0], 80)}; shorten them, or choose a trunk that reads more words"
        )
    groups: dict[tuple[int, ...], dict[str, str]] = defaultdict(dict)
    for task, own in zip(tasks, signs, strict=True):
        groups[own.signs].setdefault("".join(task.casefold().split()), task)
    if same := [list(group.values()) for group in groups.values() if len(group) > 1]:
        first, second = (f"{'…' * (len(task) > 60)}{task[-60:]}" for task in same[0][:2])
        found.append(
            f"{reader} reads {sum(map(len, same))} instructions as {len(same)}: it takes {first!r} "
            f"for {second!r}; change their words, or choose a trunk with another vocabulary"
        )
    return found
