"""JSON files from others are read in bounded depth and size, or refused by name."""

import os
from pathlib import Path

import pytest

from actionprior.files import plain_json
from actionprior.files.plain_json import JsonError, parse_json, read_json, read_json_lines


def test_what_is_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, {"b": null}], "c": "é"}')
    assert read_json(tmp_path / "a.json") == {"a": [1, {"b": None}], "c": "é"}


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_has_a_limit(opening: str) -> None:
    closing = "]" if opening == "[" else "}"

    def nested(depth: int) -> str:
        return opening * depth + "1" + closing * depth

    assert parse_json(nested(60), "x")
    for depth in (70, 1_000, 100_000):
        with pytest.raises(JsonError, match="x is nested more than 64 levels deep"):
            parse_json(nested(depth), "x")


@pytest.mark.parametrize("text", ["", "{", "nul", "1" * 5000, '{"a" 1}'])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(JsonError, match="x cannot be read as JSON"):
        parse_json(text, "x")


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "latin").write_bytes(b'"\xe9"')
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_text("1" * 100)
    monkeypatch.setattr(plain_json, "MOST_BYTES", 99)
    for name in ("missing", "latin", "pipe", ".", "large"):
        with pytest.raises(JsonError, match=name) as error:
            read_json(tmp_path / name)
        assert "\n" not in str(error.value)


def test_lines_are_read_within_the_same_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n[2]\n')
    assert read_json_lines(path) == [{"a": 1}, [2]]
    path.write_text("1\n" + "[" * 100 + "]" * 100)
    with pytest.raises(JsonError, match="nested more than 64"):
        read_json_lines(path)
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole, which takes no place on disk
    with pytest.raises(JsonError, match=r"has 1099511627776 bytes"):
        read_json_lines(path)
