"""The list of episodes to exclude holds what the findings advise, and recipes read it."""

from pathlib import Path

from actionprior.checkup import Finding
from actionprior.checkup.exclusion import episodes_to_exclude, write_list
from data_modules.lerobot.exclusion import read_excluded


def finding(level: str, check: str, episodes: tuple[int, ...], dataset: str = "cups") -> Finding:
    return Finding(level, check, "arm", dataset, "state j1", 3, 5, "is wild", episodes)  # type: ignore[arg-type]


def test_episodes_of_errors_and_warnings_are_collected_with_their_reasons() -> None:
    reasons = episodes_to_exclude(
        [
            finding("warning", "wild_frame", (3, 4)),
            finding("error", "sign", (3,)),
            finding("note", "idle", (1,)),
            finding("error", "unit", ()),
        ]
    )
    assert {k: dict(v) for k, v in reasons["arm"].items()} == {
        "cups": {3: ["wild_frame state j1", "sign state j1"], 4: ["wild_frame state j1"]}
    }


def test_the_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    path, name = tmp_path / "list.yaml", "odd: \x1b[31mname # [x]"
    found = [finding("warning", "held", (7, 2)), finding("error", "sign", (1,), name)]
    assert write_list(found, {("arm", "cups"): [9]}, path) == 4
    assert "\x1b" not in path.read_text()
    assert read_excluded(str(path)).numbers == {"arm": {"cups": [2, 7, 9], name: [1]}}


def test_a_list_of_nothing_excludes_nothing(tmp_path: Path) -> None:
    assert write_list([], {}, tmp_path / "list.yaml") == 0
    assert read_excluded(str(tmp_path / "list.yaml")).numbers == {}
