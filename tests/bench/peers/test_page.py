"""The page is written from the table."""

from bench.peers.compare import Row
from bench.peers.page import page_text


def test_seeds_are_added_up() -> None:
    tasks = {"lab/Push-v0": 5, "lab/Lift-v0": 10}
    rows = [
        Row("actionprior", 10.0, seed, 700, 9.6 + seed, 5_120_000, 10, tasks) for seed in range(2)
    ] + [Row("act", 10.0, 0, 80, 9.9, 51_600_000, 10, {"lab/Push-v0": 0, "lab/Lift-v0": 1})]
    text = page_text(rows)
    assert "## 2 tasks: Push-v0, Lift-v0" in text
    assert (
        "| 10 | actionprior | 10/11 | 700 | 5.1 M | 10 of 20 | 20 of 20 | 75 (60 to 86) |" in text
    )
    assert "| 10 | act | 10 | 80 | 51.6 M | 0 of 10 | 1 of 10 | 5 (1 to 24) |" in text
