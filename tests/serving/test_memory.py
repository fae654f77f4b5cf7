"""Run the measurement of memory briefly; ``python -m tests.serving.memory`` sends 20,000."""

import pytest

from tests.serving.memory import run


@pytest.mark.slow
def test_memory_stays_the_same() -> None:
    result = run(requests=600)
    assert result["requests"] == 600
    assert result["growth"] < 0.05
