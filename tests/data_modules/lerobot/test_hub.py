"""Test datasets of the hub with a cache in the layout of the hub's library, without network."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from actionprior.data import DataError
from data_modules.lerobot.columns import read_columns
from data_modules.lerobot.hub import locate
from data_modules.lerobot.store import cache_folder
from tests.helpers.datasets import arm, write_dataset


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set lerobot's home and the hub's cache to empty folders, and return the cache."""
    from lerobot.utils import constants

    monkeypatch.setattr(constants, "HF_LEROBOT_HOME", tmp_path / "home")
    monkeypatch.setattr(constants, "HF_LEROBOT_HUB_CACHE", tmp_path / "home" / "hub")
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "stores"))
    return tmp_path / "home" / "hub"


def add_snapshot(hub: Path, name: str, commit: str, source: Path, *refs: str) -> Path:
    """Add a snapshot whose files are links to blobs, as after a download."""
    repository = hub / f"datasets--{name.replace('/', '--')}"
    for path in (p for p in source.rglob("*") if p.is_file()):
        blob = repository / "blobs" / f"{commit}-{path.stat().st_ino}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, blob)
        link = repository / "snapshots" / commit / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    for ref in refs:
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / ref).write_text(commit)
    return repository / "snapshots" / commit


def online(monkeypatch: pytest.MonkeyPatch, answer: object) -> list[tuple[str, bool]]:
    """Simulate a hub with tags or an error as its answer; return the list of its downloads."""
    downloads: list[tuple[str, bool]] = []

    def refs(*_: object, **__: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(tags=[SimpleNamespace(name=tag) for tag in answer])

    def download(*_: object, revision: str, local_files_only: bool, **__: object) -> str:
        downloads.append((revision, local_files_only))
        if isinstance(answer, Exception) or revision == "absent":
            raise http_error(RevisionNotFoundError)
        return f"/{revision}"

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_refs", refs)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return downloads


def http_error(kind: type[Exception]) -> Exception:
    return kind("no", response=httpx.Response(404, request=httpx.Request("GET", "http://hub")))


def test_lerobots_home_comes_first_unless_a_revision_is_named(hub: Path) -> None:
    home = write_dataset(hub.parent / "me" / "there", (3,))
    assert locate("me/there", videos=False) == home
    snapshot = add_snapshot(hub, "me/there", "a" * 40, home, "main")
    assert locate("me/there@main", videos=False) == snapshot
    assert locate("me/there", videos=False) == home


def test_offline_the_newest_format_in_the_cache_is_used(hub: Path, plain: Path) -> None:
    main = add_snapshot(hub, "me/arm", "a" * 40, plain, "main")
    assert locate("me/arm", videos=False) == main
    old = add_snapshot(hub, "me/arm", "b" * 40, plain, "v2.1")
    assert locate("me/arm", videos=False) == old
    new = add_snapshot(hub, "me/arm", "c" * 40, plain, "v3.0", "mine")
    assert locate("me/arm", videos=True) == new
    assert locate("me/arm@mine", videos=False) == new
    assert locate("me/arm@" + "b" * 40, videos=False) == old
    with pytest.raises(
        DataError, match=r"'me/arm' cannot be .* 'v9': HF_HUB_OFFLINE is set, .*/hub .*; unset it"
    ):
        locate("me/arm@v9", videos=False)
    with pytest.raises(
        DataError,
        match=r"'me/absent' cannot be loaded .* at revision 'v3.0' or 'v2.1' or 'v2.0' or 'main'",
    ):
        locate("me/absent", videos=False)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["v2.0", "v2.1", "v3.0"], "v3.0"),
        (["v2.0", "v2.1", "v1.6"], "v2.1"),
        (["v2.0"], "v2.0"),
        (["v1.6"], "main"),
        ([], "main"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_online_the_repositorys_newest_format_is_downloaded(
    tags: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = online(monkeypatch, tags)
    assert locate("me/arm", videos=False) == Path(f"/{expected}")
    assert locate("me/arm@mine", videos=False) == Path("/mine")
    assert downloads == [(expected, False), ("mine", False)]


@pytest.mark.usefixtures("hub")
def test_errors_of_the_hub_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    online(monkeypatch, ["v3.0"])
    with pytest.raises(DataError, match=r"'me/arm' .* 'absent': the repository has no such branch"):
        locate("me/arm@absent", videos=False)
    downloads = online(monkeypatch, http_error(RepositoryNotFoundError))
    with pytest.raises(DataError, match=r"private or gated; log in with `hf auth login`"):
        locate("me/secret", videos=False)
    # The cache would have been used if it had a revision.
    assert downloads == [("v3.0", True), ("v2.1", True), ("v2.0", True), ("main", True)]
    online(monkeypatch, httpx.ConnectError("no route"))
    with pytest.raises(DataError, match="no route; if the network failed, try again"):
        locate("me/arm", videos=False)


def test_each_revision_has_its_own_store(hub: Path, plain: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", (12, 7, 9), seed=5)
    one = add_snapshot(hub, "me/arm", "a" * 40, plain, "v3.0")
    two = add_snapshot(hub, "me/arm", "b" * 40, other, "next")
    first = read_columns(locate("me/arm", videos=False), arm())
    second = read_columns(locate("me/arm@next", videos=False), arm())
    assert (first.root, second.root) == (one, two)
    straight = read_columns(other, arm()).action_Na[:]
    np.testing.assert_array_equal(second.action_Na[:], straight)
    assert not np.array_equal(first.action_Na[:], straight)
    stores = [path for path in cache_folder("trajectories").iterdir() if path.is_dir()]
    assert len(stores) == 3
    # The target of a link counts, not the link.
    (data,) = (one / "data").rglob("*.parquet")
    replaced = next((other / "data").rglob("*.parquet"))
    shutil.copy2(replaced, data.resolve())
    np.testing.assert_array_equal(read_columns(one, arm()).action_Na[:], straight)
