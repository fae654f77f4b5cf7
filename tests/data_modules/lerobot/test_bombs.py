"""Small files of a dataset that claim or unpack to much are refused before memory fills."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actionprior.data import DataError
from data_modules.lerobot.columns import read_columns
from data_modules.lerobot.description import describe
from data_modules.lerobot.remote import source_url
from tests.helpers.datasets import arm


@pytest.fixture
def root(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(plain, tmp_path / "source"))


def change_info(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = root / "meta" / "info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


@pytest.mark.parametrize("shape", [[1_000_000_000, 3], [2**40], [-1], "3", None, [2.5], [True]])
def test_shapes_of_vectors_have_a_limit(root: Path, shape: object) -> None:
    change_info(root, lambda info: info["features"]["action"].update(shape=shape, names=None))
    start = time.perf_counter()
    with pytest.raises(DataError, match=r"'action': meta/info\.json has"):
        read_columns(root, arm())
    with pytest.raises(DataError, match=r"info\.json has"):
        describe(str(root))
    assert time.perf_counter() - start < 5


def test_vectors_that_unpack_to_more_than_their_shape_are_refused(root: Path) -> None:
    (path,) = (root / "data").rglob("*.parquet")
    table = pq.read_table(path)
    rows, width = table.num_rows, 1_000_000
    zeros = pa.array([0.0], pa.float32()).take(pa.array([0] * width))
    long = pa.ListArray.from_arrays(pa.array([0] * rows + [width], pa.int32()), zeros)
    place = table.schema.get_field_index("action")
    pq.write_table(table.set_column(place, "action", long), path)
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"'action' has 10000\d\d numbers .* says 3 per row"):
        read_columns(root, arm())


@pytest.mark.parametrize("depth", [100, 100_000])
def test_metadata_that_is_nested_deeply_is_refused(root: Path, depth: int) -> None:
    (root / "meta" / "info.json").write_text("[" * depth + "]" * depth)
    with pytest.raises(DataError, match="nested more than 64 levels deep"):
        read_columns(root, arm())


def test_a_dataset_does_not_choose_a_url_for_its_images(root: Path) -> None:
    (root / "published.json").write_text(json.dumps({"url": "http://stranger/set", "files": {}}))
    assert source_url(root) is None
