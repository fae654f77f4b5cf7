"""Files are written atomically."""

import json
from pathlib import Path

import pytest

from actionprior.files.atomic import atomic_file, write_json, write_text


def test_an_error_keeps_the_old_content_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text("old", path)
    with pytest.raises(IsADirectoryError), atomic_file(path) as part:
        part.parent.open("w")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_the_temporary_name_does_not_contain_the_target_s(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "last.ckpt") as part:
        assert "last" not in part.name
        assert part.parent == tmp_path
        part.touch()
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_json_is_written_as_text(tmp_path: Path) -> None:
    write_json({"rate": 0.5, "name": "µ"}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"rate": 0.5, "name": "µ"}
