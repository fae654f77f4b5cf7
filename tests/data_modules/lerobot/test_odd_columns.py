"""Columns and metadata of unusual types are read, or refused in one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actionprior.data import DataError
from actionprior.errors import UserError
from data_modules import LeRobotTrajectories, LeRobotVLA
from data_modules.lerobot.columns import read_columns
from data_modules.lerobot.description import describe
from data_modules.vla import ImageSettings
from tests.helpers.datasets import CAMERAS, arm


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def copy(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "copy"))


def replaced(root: Path, name: str, column: Callable[[list[list[float]]], Any]) -> None:
    path = next((root / "data").glob("*/*.parquet"))
    table = pq.read_table(path)
    place = table.schema.get_field_index(name)
    pq.write_table(table.set_column(place, name, column(table[name].to_pylist())), path)


FORMS: dict[str, Callable[[list[list[float]]], Any]] = {
    "nested": lambda rows: pa.array([[[v] for v in row] for row in rows]),
    "two axes": lambda rows: pa.array([[row] for row in rows]),
    "fixed size": lambda rows: pa.array(rows, pa.list_(pa.float32(), 3)),
    "large lists": lambda rows: pa.array(rows, pa.large_list(pa.float64())),
    "half precision": lambda rows: pa.array(
        [np.array(r, np.float16) for r in rows], pa.list_(pa.float16())
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_vectors_are_read_in_any_nesting(form: str, plain: Path, copy: Path) -> None:
    expected = read_columns(plain, arm()).action_Na[:]
    replaced(copy, "action", FORMS[form])
    found = read_columns(copy, arm()).action_Na[:]
    np.testing.assert_allclose(found, expected, rtol=1e-2 if form == "half precision" else 0)


REFUSED: dict[str, tuple[Callable[[list[list[float]]], Any], str]] = {
    "text": (lambda rows: pa.array([str(r) for r in rows]), "holds string, expected numbers"),
    "texts": (lambda rows: pa.array([list("abc") for _ in rows]), "holds string, expected numb"),
    "struct": (lambda rows: pa.array([{"a": r[0]} for r in rows]), "holds struct<.*expected numb"),
    "nulls": (lambda rows: pa.array([None, *rows[1:]]), "empty or ragged rows"),
    "inner nulls": (lambda rows: pa.array([[None, 1.0, 2.0], *rows[1:]]), "empty or ragged"),
    "ragged": (lambda rows: pa.array([rows[0][:2], *rows[1:]]), "ragged rows"),
    "dates": (lambda rows: pa.array([1] * len(rows), pa.timestamp("s")), "holds timestamp"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_other_columns_are_refused(form: str, copy: Path) -> None:
    column, message = REFUSED[form]
    replaced(copy, "action", column)
    with pytest.raises(DataError, match=message) as error:
        read_columns(copy, arm())
    assert "\n" not in str(error.value)


def test_booleans_are_zeros_and_ones(copy: Path) -> None:
    replaced(copy, "action", lambda rows: pa.array([[v > 0 for v in row] for row in rows]))
    assert set(np.unique(read_columns(copy, arm()).action_Na[:])) == {0.0, 1.0}


def test_a_robot_without_a_state_is_read_and_trains(copy: Path) -> None:
    path = next((copy / "data").glob("*/*.parquet"))
    pq.write_table(pq.read_table(path).drop_columns(["observation.state"]), path)
    info = json.loads((copy / "meta/info.json").read_text())
    del info["features"]["observation.state"]
    (copy / "meta/info.json").write_text(json.dumps(info))
    robot = arm(copy)
    robot.state = []
    for group in robot.action:
        object.__setattr__(group, "relative_to", "")
    columns = read_columns(copy, robot)
    assert columns.state_Ns[:].shape == (28, 0)
    data = LeRobotTrajectories([robot], batch_size=4, chunk_length=5)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert not batch.state_BHS.any()
    assert describe(str(copy)).robot["state"] == []


def table(root: Path) -> Path:
    return next((root / "meta/episodes").glob("*/*.parquet"))


def edit_episodes(root: Path, column: str, values: list[Any]) -> None:
    rows = pq.read_table(table(root))
    rows = rows.drop_columns([column]) if column in rows.column_names else rows
    pq.write_table(rows.append_column(column, pa.array(values)), table(root))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([12, None, 9], "row 1 of the episode table has length None, expected a whole number"),
        ([12.0, float("nan"), 9.0], "row 1 of the episode table has length nan"),
        ([12.5, 7.0, 8.5], r"row 0 of the episode table has length 12\.5"),
        (["12", "7", "9"], "row 0 of the episode table has length '12'"),
        ([12, -7, 9], "row 1 of the episode table has length -7"),
        ([True, True, True], "row 0 of the episode table has length True"),
        ([12, 7, 2**60], "row 2 of the episode table has length"),
    ],
)
def test_lengths_that_are_no_whole_numbers_are_refused(
    values: list[Any], message: str, copy: Path
) -> None:
    edit_episodes(copy, "length", values)
    with pytest.raises(DataError, match=message):
        read_columns(copy, arm())


def test_lengths_may_be_floats(copy: Path) -> None:
    edit_episodes(copy, "length", [12.0, 7.0, 9.0])
    edit_episodes(copy, "episode_index", [0.0, 1.0, 2.0])
    assert read_columns(copy, arm()).lengths_E.tolist() == [12, 7, 9]


def vla(root: Path, **images: Any) -> LeRobotVLA:
    data = LeRobotVLA(
        [arm(root, cameras=(CAMERAS[1],))],
        batch_size=4,
        images=ImageSettings(cache_images=False, video_backend="pyav", **images),
    )
    data.setup("fit")
    return data


@pytest.mark.parametrize("value", [None, float("nan"), 0.5, "0"])
@pytest.mark.parametrize("name", ["chunk_index", "file_index"])
def test_an_episode_without_a_video_place_is_named_or_excluded(
    name: str, value: Any, seen: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(seen, tmp_path / "seen"))
    column = f"videos/{CAMERAS[1]}/{name}"
    edit_episodes(root, column, ["0", value, "0"] if value == "0" else [0.0, value, 0.0])
    with pytest.raises(UserError, match=r"meta does not define the video_path of episode \d"):
        vla(root)
    if value != "0":
        data = vla(root, skip_missing_videos=True)
        assert data.excluded_episodes(0) == {1}
        data.windows(training=False).__getitems__([0])


def test_places_may_be_floats(seen: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(seen, tmp_path / "seen"))
    for name in ("chunk_index", "file_index"):
        edit_episodes(root, f"videos/{CAMERAS[1]}/{name}", [0.0, 0.0, 0.0])
    vla(root).windows(training=False).__getitems__([0])


@pytest.mark.parametrize("feature", [None, "float32", 3, ["action"]])
def test_a_feature_that_is_no_mapping_is_refused(feature: Any, copy: Path) -> None:
    info = json.loads((copy / "meta/info.json").read_text())
    info["features"]["extra"] = feature
    (copy / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=r"describes feature 'extra' as .*expected a mapping"):
        read_columns(copy, arm())
