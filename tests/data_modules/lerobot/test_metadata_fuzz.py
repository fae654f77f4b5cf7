"""Metadata of any JSON value are read, or refused in one sentence: never a traceback."""

import copy
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actionprior.errors import UserError
from data_modules import LeRobotVLA
from data_modules.lerobot.columns import read_columns
from data_modules.lerobot.description import describe
from data_modules.vla import ImageSettings
from tests.helpers.datasets import CAMERAS, arm

TRIES = int(os.environ.get("ACTIONPRIOR_FUZZ_TRIES", "150"))
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3.5, 1e300, float("nan"), float("inf"), 2**70, "", "0", "3",
    "action", "image", "video", [], [None], [0], [1, 2, 3], [[1], [2]], ["a", "b", "c"], {},
    {"a": None}, {"a": 0, "b": 1, "c": 2}, {"a": {"b": [1]}}, "x" * 300, "\u0000", "é",
)  # fmt: skip


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each value inside of plain data."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*way, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*way, key))


def changed(value: Any, draw: random.Random) -> Any:
    result = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        ways = list(places(result))
        if not ways:
            break
        *way, last = draw.choice(ways)
        inner = result
        for key in way:
            inner = inner[key]
        if draw.random() < 0.2:
            del inner[last]
        else:
            inner[last] = copy.deepcopy(draw.choice(VALUES))
    return result


def read_all(root: Path) -> None:
    """Read a dataset as each verb does; refusals of one line are fine."""
    refusals = []
    for read in (
        lambda: describe(str(root)),
        lambda: read_columns(root, arm()),
        lambda: LeRobotVLA(
            [arm(root, cameras=CAMERAS)],
            images=ImageSettings(image_size=16, cache_images=False, video_backend="pyav"),
            val_fraction=0.0,
            chunk_length=3,
        ).setup("fit"),
    ):
        try:
            read()
        except UserError as error:
            refusals.append(str(error))
    assert not [text for text in refusals if "\n" in text]


@pytest.mark.parametrize("file", ["info.json", "stats.json"])
def test_any_json_value_is_read_or_refused(
    file: str, seen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    root = Path(shutil.copytree(seen, tmp_path / "seen"))
    original, draw = json.loads((root / "meta" / file).read_text()), random.Random(0)
    for _ in range(TRIES if file == "info.json" else TRIES // 3):
        content = json.dumps(changed(original, draw))
        (root / "meta" / file).write_text(content)
        try:
            read_all(root)
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error} for {content[:3000]}") from error


@pytest.mark.parametrize("file", ["info.json", "episodes.jsonl", "tasks.jsonl"])
def test_any_json_value_of_format_v21_is_read_or_refused(
    file: str, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    root = Path(shutil.copytree(old, tmp_path / "old"))
    lines = (root / "meta" / file).read_text().splitlines()
    if file == "info.json":
        lines = ["".join(lines)]
    original, draw = [json.loads(line) for line in lines], random.Random(1)
    for _ in range(TRIES // 3):
        rows = changed(original, draw)
        content = "\n".join(map(json.dumps, rows))
        (root / "meta" / file).write_text(content)
        try:
            read_all(root)
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error} for {content[:3000]}") from error
