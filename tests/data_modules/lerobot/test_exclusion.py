"""Excluded episodes neither train nor validate, in both stages; wrong lists are refused."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from actionprior.data import DataError
from data_modules import LeRobotTrajectories, LeRobotVLA
from data_modules.lerobot.exclusion import read_excluded
from data_modules.trajectories import RobotMixture
from tests.helpers.datasets import arm, write_dataset

CAMERA = "observation.images.front"
LENGTHS = (12, 7, 9, 11, 8, 10)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))


def listed(tmp_path: Path, content: object) -> RobotMixture:
    path = tmp_path / "list.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return RobotMixture(exclude_episodes=str(path))


def test_excluded_episodes_are_in_no_window(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "mine", (12, 7, 9, 11), cameras={CAMERA: "image"})
    mixture = listed(tmp_path, {"arm": {"mine": [1, 3]}, "another": {"x": [0]}})
    for data in (
        LeRobotTrajectories([arm(root)], mixture=mixture, val_fraction=0.5),
        LeRobotVLA([arm(root, cameras=(CAMERA,))], mixture=mixture, val_fraction=0.5),
    ):
        data.setup("fit")
        used = {*data.frames.train.frames().tolist(), *data.frames.val.frames().tolist()}
        assert used == {*range(12), *range(19, 28)}
        assert sorted(data.split_record()["arm"]["number"]) == [0, 2]


def test_excluded_episodes_do_not_count_for_max_episodes(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "mine", (12, 7, 9, 11))
    mixture = listed(tmp_path, {"arm": {str(root): [0]}})
    data = LeRobotTrajectories([arm(root)], mixture=mixture, max_episodes=2, val_fraction=0)
    data.setup("fit")
    assert data.frames.train.frames().tolist() == [*range(12, 28)]


def test_what_a_checkpoint_held_out_stays_held_out(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "mine", LENGTHS)
    before = LeRobotTrajectories([arm(root)], val_fraction=0.34, seed=3)
    before.setup("fit")
    record = before.split_record()
    held = [
        n for n, t in zip(record["arm"]["number"], record["arm"]["trained"], strict=True) if not t
    ]
    others = [n for n in range(6) if n not in held]
    mixture = listed(tmp_path, {"arm": {"mine": others[:2]}})
    after = LeRobotTrajectories([arm(root)], val_fraction=0.34, seed=3, mixture=mixture)
    after.follow_split(record, "prior.ckpt")
    after.setup("fit")
    stops = np.cumsum(LENGTHS)
    validates, trains = (
        set(np.searchsorted(stops, spans.frames(), side="right").tolist())
        for spans in (after.frames.val, after.frames.train)
    )
    assert set(held) <= validates
    assert validates | trains == {*range(6)} - {*others[:2]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"arm": {"other": [0]}}, "names the dataset 'other' of 'arm', which has "),
        ({"robot": {"mine": [0]}}, "names episodes of 'robot', and the recipe has 'arm'; correct"),
        ({"arm": {"mine": [7]}}, "excludes episode 7 of .*mine, which has 3"),
        ({"arm": {"mine": [0, 1, 2]}}, "excludes all 3 episodes"),
        ({"arm": {"mine": [True]}}, "expected `robot: {dataset"),
        ({"arm": [3]}, "expected `robot: {dataset"),
        ([3], "expected `robot: {dataset"),
        ({3: {"mine": [1]}}, "expected `robot: {dataset"),
        ("a: [", "is not a YAML file"),
        ("&a [*a]", "expected `robot: {dataset"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, content: object, message: str) -> None:
    root = write_dataset(tmp_path / "mine", (12, 7, 9))
    with pytest.raises(DataError, match=message):
        LeRobotTrajectories([arm(root)], mixture=listed(tmp_path, content)).setup("fit")


def test_a_missing_list_is_refused_with_the_command_that_writes_it() -> None:
    with pytest.raises(DataError, match=r"--exclude_episodes nowhere\.yaml writes it"):
        read_excluded("nowhere.yaml")


def test_two_datasets_of_one_name_are_distinguished_by_their_place(tmp_path: Path) -> None:
    roots = [write_dataset(tmp_path / day / "mine", (12, 7)) for day in ("monday", "tuesday")]
    places = [str(root) for root in roots]
    excluded = read_excluded(None)
    assert excluded.of("arm", places, places[0], 2) == set()
    mixture = listed(tmp_path, {"arm": {places[1]: [0]}})
    excluded = read_excluded(mixture.exclude_episodes)
    assert excluded.of("arm", places, places[1], 2) == {0}
    assert excluded.of("arm", places, places[0], 2) == set()
