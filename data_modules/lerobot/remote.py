"""Datasets that are read where they are published, through fsspec, as far as they are needed.

A published dataset has a light copy on this machine: its metadata, and of its data files every
column but images. It is made once, and anew when what is published changes. Videos and images are
read from the publisher when they are looked at.
"""

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from actionprior.data import DataError
from actionprior.errors import shorten
from actionprior.files.digest import digest
from actionprior.files.folders import atomic_folder
from data_modules.lerobot.store import cache_folder

_log = logging.getLogger(__name__)

SOURCE = "published.json"
AT_ONCE = 8  # files
_VERSION_MARKS = ("size", "ETag", "etag", "blob_id", "generation", "mtime", "created")
"""Entries of fsspec's listings; which there are depends on the kind of storage."""


def is_url(place: str) -> bool:
    """Whether a place is to be read through fsspec."""
    return "://" in place


def list_remote_files(url: str, folders: Sequence[str]) -> dict[str, str]:
    """The files below a URL's ``folders``: for each path, what tells its versions apart.

    Raises:
        DataError: the URL cannot be reached, or names paths outside of itself.
    """
    import fsspec

    found = {}
    try:
        system, home = fsspec.url_to_fs(url)
        for folder in folders:
            system.ls(f"{home}/{folder}")  # fails where `find` may take what is away as empty
            for name, told in system.find(f"{home}/{folder}", detail=True).items():
                marks = " ".join(str(told[mark]) for mark in _VERSION_MARKS if mark in told)
                found[name.removeprefix(home).lstrip("/")] = marks
    except Exception as error:
        raise DataError(
            f"{url}: {' and '.join(folders)} cannot be read there "
            f"({type(error).__name__}: {shorten(error)})"
        ) from error
    if strange := [name for name in found if ".." in PurePosixPath(name).parts]:
        raise DataError(f"{url}: names {strange[0]!r}, which is not inside it")
    return found


def local_folder(place: str) -> Path:
    """Where a dataset that is named by folder or URL is read on this machine.

    Raises:
        DataError: from ``local_copy``.
    """
    return local_copy(place) if is_url(place) else Path(place).expanduser()


def local_copy_folder(url: str) -> Path:
    """Where the light copy of a URL is kept."""
    url = url.rstrip("/")
    name = f"{PurePosixPath(url).name}-{digest(url)[:12]}"
    return cache_folder("datasets") / name


def local_copy(url: str) -> Path:
    """The light copy of a published dataset, made or brought up to date first.

    Where the publisher cannot be reached and there is a copy, that is used, with a warning.

    Raises:
        DataError: it cannot be read or not be kept.
    """
    from filelock import FileLock

    root = local_copy_folder(url)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.parent / f".{root.name}.lock"):
            there = _read_source(root)
            try:
                files = list_remote_files(url, ("meta", "data"))
            except DataError as error:
                if not there:
                    raise
                _log.warning("%s; its copy %s is used as it is", error, root)
                return root
            if there.get("files") != files:
                with atomic_folder(root) as building:
                    _copy(url, list(files), building)
                    (building / SOURCE).write_text(
                        json.dumps({"url": url.rstrip("/"), "files": files})
                    )
    except OSError as error:
        raise DataError(
            f"{root}: the light copy of {url} cannot be made there ({error}); if the disk is "
            "full, set ACTIONPRIOR_CACHE to a folder with room"
        ) from error
    return root


def source_url(root: Path) -> str | None:
    """The URL that a light copy is of."""
    return _read_source(root).get("url")


def hub_snapshot_url(root: Path) -> str | None:
    """Where the hub has what a folder of its cache, ``datasets--…/snapshots/<commit>``, is of."""
    repository = root.parents[1].name if len(root.parents) > 1 else ""
    if root.parent.name != "snapshots" or not repository.startswith("datasets--"):
        return None
    repo_id = repository.removeprefix("datasets--").replace("--", "/")
    return f"hf://datasets/{repo_id}@{root.name}"


def _read_source(root: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads((root / SOURCE).read_text())
    except (OSError, ValueError):
        return {}
    return told


def _copy(url: str, names: list[str], folder: Path) -> None:
    import fsspec

    system, home = fsspec.url_to_fs(url)

    def copy(name: str) -> None:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("data/") and name.endswith(".parquet"):
            _copy_columns(system, f"{home}/{name}", target)
        else:
            system.get_file(f"{home}/{name}", str(target))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for name, done in [(name, pool.submit(copy, name)) for name in names]:
            try:
                done.result()
            except Exception as error:
                pool.shutdown(cancel_futures=True)
                raise OSError(f"{name}: {type(error).__name__}: {shorten(error)}") from error


def _copy_columns(system: Any, source: str, target: Path) -> None:  # noqa: ANN401  fsspec's, untyped
    """A data file without its images, row group by row group: only that much is transferred."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with system.open(source, "rb") as file, pq.ParquetFile(file) as given:
        kept = [field for field in given.schema_arrow if not pa.types.is_struct(field.type)]
        names = [field.name for field in kept]
        with pq.ParquetWriter(target, pa.schema(kept)) as written:
            for group in range(given.num_row_groups):
                written.write_table(given.read_row_group(group, columns=names))
