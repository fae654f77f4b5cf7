"""Names in a dataset lead to files in the dataset, or to an error of one sentence."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actionprior.data import DataError
from data_modules.lerobot.columns import read_columns
from data_modules.lerobot.named_files import (
    LINKED,
    file_below,
    fill_template,
    is_leftover,
    url_below,
    walk_files,
)
from data_modules.lerobot.source import fingerprint
from tests.helpers.datasets import CAMERAS, arm
from tests.helpers.vla_data import module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a dataset with links of all kinds, and a secret beside it."""
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file.png").write_bytes(b"x")
    root = tmp_path / "set"
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta").mkdir()
    (root / "meta/info.json").write_text("{}")
    (root / "data/chunk-000/a.png").write_bytes(b"a")
    (root / "data/inside").symlink_to("chunk-000")
    (root / "data/out").symlink_to(tmp_path / "elsewhere")
    (root / "data/secret.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(root / "data/pipe")
    return root


@pytest.mark.parametrize("name", ["data/chunk-000/a.png", "data/inside/a.png", "data/missing.png"])
def test_files_below_are_found(root: Path, name: str) -> None:
    assert file_below(root, name) == root / name
    assert file_below(root, str(root / name)) == root / name


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "data/../../secret.png",
        "data/secret.png",
        "data/out/file.png",
        "/etc/passwd",
        "data/pipe",
        "data",
        "",
        "a\0b",
        "data/a::/etc/passwd",
        "file:///etc/passwd",
        "x" * 5000,
        None,
        3,
    ],
)
def test_other_names_are_refused(root: Path, name: str) -> None:
    with pytest.raises(DataError) as error:
        file_below(root, name)
    assert str(error.value).startswith(str(root))
    assert len(str(error.value)) < 700
    assert "\0" not in str(error.value)


def test_linked_folders_are_read_if_the_user_lists_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=LINKED):
        file_below(root, "data/out/file.png")
    monkeypatch.setenv(LINKED, f"/nowhere{os.pathsep}{root.parent / 'elsewhere'}")
    assert file_below(root, "data/out/file.png").read_bytes() == b"x"
    assert root / "data/out/file.png" in set(walk_files(root, "data"))
    with pytest.raises(DataError, match="leads out"):
        file_below(root, "data/secret.png")


@given(st.text(max_size=40))
@example("..")
@example("a/../../b")
@example("/abs")
@example("a://b")
def test_urls_stay_below(name: str) -> None:
    try:
        found = url_below("s3://bucket/set", name)
    except DataError:
        return
    assert found == f"s3://bucket/set/{name}"
    assert ".." not in name.split("/")
    assert not name.startswith("/")


def test_the_fingerprint_follows_links_neither_out_nor_round(root: Path) -> None:
    before = fingerprint(root)
    for i in range(30):  # each would double the walk if it were followed
        (root / f"data/chunk-000/loop{i}").symlink_to("../..")
        (root / f"data/loop{i}").symlink_to(".")
    (root / "data/up").symlink_to("/")
    (root / "data/self").symlink_to("self")
    assert len(list(walk_files(root, "data"))) < 40
    after = fingerprint(root)
    (root.parent / "elsewhere/file.png").write_bytes(b"changed")
    assert fingerprint(root) == after != before


def test_templates_have_numbers_and_nothing_else(tmp_path: Path) -> None:
    fields = {"chunk_index": 3, "video_key": "front"}
    template = "videos/{video_key}/chunk-{chunk_index:03d}/{chunk_index}.mp4"
    assert fill_template(tmp_path, template, fields) == "videos/front/chunk-003/3.mp4"
    for bad in (
        "{chunk_index:999999999d}",
        "{chunk_index:>1000000000}",
        "{video_key.__class__}",
        "{video_key[0]}",
        "{",
        "{{}}",
        "{chunk_index!r}",
        None,
        ["a"],
    ):
        with pytest.raises(DataError, match="path template"):
            fill_template(tmp_path, bad, fields)
    with pytest.raises(KeyError):
        fill_template(tmp_path, "{other}", fields)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 582\n"


@pytest.mark.parametrize(
    "name", ["meta/info.json", "data/chunk-000/file-000.parquet", "meta/tasks.parquet"]
)
def test_a_pointer_of_git_lfs_is_named(name: str, plain: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(plain, tmp_path / "clone"))
    (root / name).write_text(POINTER)
    message = rf"clone: '{name}' is not the file itself but a pointer of Git LFS; fetch"
    with pytest.raises(DataError, match=message):
        read_columns(root, arm())


def test_a_pointer_in_place_of_a_video_is_named(split: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(split, tmp_path / "clone"))
    read_columns(root, arm())
    next((root / "videos").rglob("*.mp4")).write_text(POINTER)
    read_columns(root, arm())  # Stage 1 needs no videos
    with pytest.raises(DataError, match=r"videos.*mp4' is not the file itself but a pointer"):
        module(root, cameras=CAMERAS[1:], skip_missing_videos=True)


@pytest.mark.parametrize(
    "name",
    [
        "data/chunk-000/._file-000.parquet",
        "data/.ipynb_checkpoints/file-000-checkpoint.parquet",
        "data/.Trash-1000/file-000.parquet",
        "data/chunk-000/file-000 copy.parquet",
        "data/chunk-000/file-000 2.parquet",
        "data/chunk-000/file-000 (1).parquet",
        "data/chunk-000/file-000(1).parquet",
        "data/chunk-000/file-000 - Copy.parquet",
        "data/chunk-000/file-000 (copy).parquet",
        "data/chunk-000/file-000.parquet~",
        "data/chunk-000/Thumbs.db",
        "meta/episodes/chunk-000/._file-000.parquet",
        "meta/episodes/chunk-000/file-000 copy.parquet",
        "data/.DS_Store",
    ],
)
def test_what_editors_and_systems_leave_is_ignored(name: str, plain: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(plain, tmp_path / "copied"))
    left = root / name
    left.parent.mkdir(exist_ok=True)
    whole = next((root / left.relative_to(root).parts[0]).rglob("file-000.parquet"))
    left.write_bytes(b"\0\5\26\7" * 20 if "._" in name else whole.read_bytes())
    assert read_columns(root, arm()).lengths_E.tolist() == [12, 7, 9]


def test_a_file_with_a_name_of_its_own_is_no_leftover(tmp_path: Path) -> None:
    for name in ("file 2.parquet", "a (1).parquet", "take copy.parquet"):
        (tmp_path / name).touch()
        assert not is_leftover(tmp_path, tmp_path / name)  # there is no original beside it
