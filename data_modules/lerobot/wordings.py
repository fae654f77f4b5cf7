"""Other wordings of a dataset's instructions, for a policy that understands more than one."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np

from actionprior.data import DataError
from actionprior.errors import shown

Wordings = Mapping[str, Sequence[str]]


def check_wordings(robot: str, wordings: Wordings, instructions: Sequence[str]) -> None:
    """Refuse wordings of instructions that a robot's data do not have.

    Args:
        robot: Name of the robot.
        wordings: Other wordings, by the instruction in the data.
        instructions: Instructions in the robot's data.

    Raises:
        DataError: An instruction is not in the data, or a wording is empty.
    """
    known = sorted(set(instructions))
    for instruction, others in wordings.items():
        if instruction not in known:
            near = get_close_matches(instruction, known, 1, 0.0)
            found = f"; the nearest is {shown(near[0])}" if near else ""
            raise DataError(
                f"embodiment {robot!r}: other_wordings has {shown(instruction)}, which is no "
                f"instruction of its data{found}; expected instructions as the data have them"
            )
        if empty := [text for text in others if not text.strip()]:
            raise DataError(
                f"embodiment {robot!r}: other_wordings of {shown(instruction)} has "
                f"{shown(empty[0])}, expected sentences"
            )


def reword(task: Sequence[str], wordings: Sequence[Wordings], key: Sequence[int]) -> list[str]:
    """Return each instruction, or one of its other wordings, all equally likely.

    Args:
        task: B instructions.
        wordings: Other wordings that hold for each of them, by instruction.
        key: Numbers from which all draws are seeded.
    """
    draw_B = np.random.default_rng(list(key)).random(len(task))
    chosen = []
    for text, others, draw in zip(task, wordings, draw_B, strict=True):
        choices = [text, *others.get(text, ())]
        chosen.append(choices[int(draw * len(choices))])
    return chosen
