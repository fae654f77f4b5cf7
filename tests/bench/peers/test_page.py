"""The page is written from the table."""

from bench.peers.compare import Row
from bench.peers.page import page_text
from bench.peers.recordings import RecordedRow


def test_seeds_are_added_up_and_each_set_of_cameras_has_a_table() -> None:
    tasks = {"lab/Push-v0": 5, "lab/Lift-v0": 10}
    few = {"lab/Push-v0": 0, "lab/Lift-v0": 1}
    two = ("observation.images.front", "observation.images.wrist")
    rows = [
        Row("actionprior", 10.0, seed, 700, 9.6 + seed, 5_120_000, 10, tasks, two)
        for seed in range(2)
    ]
    rows += [Row("act", 10.0, 0, 80, 9.9, 51_600_000, 10, few, seen) for seen in (two, two[:1])]
    text = page_text(rows, [])
    assert "## 2 tasks, 2 cameras\n\nTasks: Push-v0, Lift-v0. Cameras: front, wrist." in text
    assert "## 2 tasks, 1 camera\n\nTasks: Push-v0, Lift-v0. Cameras: front." in text
    assert text.count("| 10 | act | 10 | 80 |") == 2
    assert (
        "| 10 | actionprior | 10/11 | 700 | 5.1 M | 10 of 20 | 20 of 20 | 75 (60 to 86) |" in text
    )
    assert "| 10 | act | 10 | 80 | 51.6 M | 0 of 10 | 1 of 10 | 5 (1 to 24) |" in text


def test_recordings_have_a_table_with_the_error_of_copying() -> None:
    units = {"left_arm": "rad", "hand": "0-1"}
    errors = {"left_arm": [0.25, 0.75], "hand": [0.5, 0.5]}
    rows = [
        RecordedRow("copying", 0.0, 0, 0, 0.0, units, errors),
        RecordedRow("act", 10.0, 0, 300, 9.5, units, errors),
        RecordedRow("actionprior", 10.0, 0, 900, 9.9, units, errors | {"left_arm": [0.5, 1.0]}),
    ]
    text = page_text([], rows)
    assert "replay 2 held-out episodes" in text
    assert "| granted [CPU min] | policy | spent | steps | left arm [rad] | hand [0-1] |" in text
    measured = "0.5000 (0.2500 to 0.7500) | 0.5000 (0.5000 to 0.5000) |"
    assert f"|  | copying |  |  | {measured}" in text
    assert f"| 10 | act | 9.5 | 300 | {measured}" in text
    assert "- actionprior, 10 minutes: worse than copying in left arm.\n" in text
    assert "- act, 10 minutes" not in text
