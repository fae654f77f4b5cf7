"""Hostile messages in short; ``python -m tests.serving.fuzz`` sends a million."""

import pytest

from tests.serving.fuzz import passed, run


@pytest.mark.slow
def test_hostile_messages_harm_no_other_client() -> None:
    result = run(messages=3000)
    assert passed(result), result
    assert result["messages"] == 3000 == result["refused"] + result["answered"]
    assert result["refused"] > 100
    assert result["answered"] > 0
    assert result["raw_connections"] > 0
