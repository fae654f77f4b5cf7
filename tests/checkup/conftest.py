"""Checks of every finding that any test of the doctor's checks makes."""

import pytest

from actionprior.checkup import Finding, Subject
from tests.helpers.advice import check_finding


@pytest.fixture(autouse=True)
def advice_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each finding fail whose advice a parser refuses, or that has none."""
    say = Subject.say

    def checked(self: Subject, level: str, check: str, *args, **more) -> Finding:
        finding = say(self, level, check, *args, **more)
        if check:
            check_finding(self.robot, finding)
        return finding

    monkeypatch.setattr(Subject, "say", checked)
