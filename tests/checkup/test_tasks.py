"""Instructions that a trunk with words of its own cuts or takes for one another are found."""

import numpy as np
import pytest

from actionprior.checkup import Finding
from tests.helpers.checked import clean, found

LONG = " then ".join(f"take item {i} and put it away" for i in range(6)) + " and press the "


def of(*tasks: str) -> dict[str, Finding]:
    task_N = np.repeat(np.arange(len(tasks)) % len(tasks), -(-140 // len(tasks)))[:140]
    return found(clean(), tasks=list(tasks), task_N=task_N)


def test_instructions_that_are_cut_are_reported() -> None:
    findings = of(LONG + "red button", "press the red button")
    assert findings["task_cut"].level == "warning"
    assert "of which SmallTrunk and CompactTrunk read the first 31" in findings["task_cut"].message
    assert "task_tokens" not in findings


def test_instructions_that_differ_behind_the_cut_are_an_error() -> None:
    finding = of(LONG + "red button", LONG + "green button")["task_tokens"]
    assert finding.level == "error"
    assert "red button' and " in finding.message


def test_words_that_fall_together_are_an_error() -> None:
    assert of("move the bowl", "shirt the socket")["task_tokens"].level == "error"


def test_a_sentence_without_spaces_is_reported() -> None:
    finding = of("把红色方块放到蓝色盘子里然后关上抽屉再打开绿色的门")["task_word"]
    assert finding.level == "warning"


@pytest.mark.parametrize("tasks", [("lift the cube", "Lift the cube."), ("open", "close")])
def test_short_instructions_are_fine(tasks: tuple[str, ...]) -> None:
    assert {"task_cut", "task_tokens", "task_word"}.isdisjoint(of(*tasks))
