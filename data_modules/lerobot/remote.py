"""Read remote datasets through fsspec, without downloading their images.

A remote dataset has a light copy on this machine: its metadata, and its data files without the
columns of images. The copy is made once, and again when the remote files change. Videos and images
are read from the remote storage at each access.
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
from data_modules.lerobot.named_files import is_hidden
from data_modules.lerobot.store import cache_folder

_log = logging.getLogger(__name__)

SOURCE = "published.json"
"""File of a light copy that holds its URL and the version marks of the remote files."""
PARALLEL_COPIES = 8
_VERSION_MARKS = ("size", "ETag", "etag", "blob_id", "generation", "mtime", "created")
"""Entries of fsspec's file listings that change with a file. Each kind of storage has some."""


def is_url(place: str) -> bool:
    """Return whether a dataset's place is a URL, which is read through fsspec."""
    return "://" in place


def list_remote_files(url: str, folders: Sequence[str]) -> dict[str, str]:
    """List the files in a URL's ``folders``, with a version mark of each path. Skip hidden ones.

    Raises:
        DataError: The URL cannot be reached, or lists paths outside of itself.
    """
    import fsspec

    found = {}
    try:
        system, home = fsspec.url_to_fs(url)
        for folder in folders:
            system.ls(f"{home}/{folder}")  # raises if it is missing; `find` may return nothing
            for name, facts in system.find(f"{home}/{folder}", detail=True).items():
                marks = " ".join(str(facts[mark]) for mark in _VERSION_MARKS if mark in facts)
                found[name.removeprefix(home).lstrip("/")] = marks
    except Exception as error:
        raise DataError(
            f"{url}: {' and '.join(folders)} cannot be read there "
            f"({type(error).__name__}: {shorten(error)})"
        ) from error
    if strange := [name for name in found if ".." in PurePosixPath(name).parts]:
        raise DataError(f"{url}: names {strange[0]!r}, which is not inside it")
    return {name: marks for name, marks in found.items() if not is_hidden(PurePosixPath(name))}


def local_folder(place: str) -> Path:
    """Return the local folder of a dataset that is given by folder or URL.

    Raises:
        DataError: The URL cannot be copied, see ``local_copy``.
    """
    return local_copy(place) if is_url(place) else Path(place).expanduser()


def local_copy_folder(url: str) -> Path:
    """Return the folder of a URL's light copy."""
    url = url.rstrip("/")
    name = f"{PurePosixPath(url).name}-{digest(url)[:12]}"
    return cache_folder("datasets") / name


def local_copy(url: str) -> Path:
    """Return the light copy of a remote dataset, after creating or updating it.

    If the URL cannot be reached, an existing copy is used with a warning.

    Raises:
        DataError: The URL cannot be read, or the copy cannot be written.
    """
    from filelock import FileLock

    root = local_copy_folder(url)
    source = _read_source(root)
    try:
        files = list_remote_files(url, ("meta", "data"))
    except DataError as error:
        if not source:
            raise
        _log.warning("%s; its copy %s is used without an update", error, root)
        return root
    if source.get("files") == files:  # no lock, because the copy may be read-only
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.parent / f".{root.name}.lock"):
            if _read_source(root).get("files") != files:
                with atomic_folder(root) as building:
                    _copy(url, list(files), building)
                    (building / SOURCE).write_text(
                        json.dumps({"url": url.rstrip("/"), "files": files})
                    )
    except OSError as error:
        raise DataError(
            f"{root}: the light copy of {url} cannot be written there ({error}); if the disk is "
            "full, set ACTIONPRIOR_CACHE to a folder with free space"
        ) from error
    return root


def source_url(root: Path) -> str | None:
    """Return the URL of a light copy, or None for any other folder."""
    # A dataset from elsewhere may hold a file of that name, and must not choose what is opened.
    if root.resolve().parent != cache_folder("datasets").resolve():
        return None
    return _read_source(root).get("url")


def hub_snapshot_url(root: Path) -> str | None:
    """Return the URL of a folder in the hub's cache, ``datasets--…/snapshots/<commit>``."""
    repository = root.parents[1].name if len(root.parents) > 1 else ""
    if root.parent.name != "snapshots" or not repository.startswith("datasets--"):
        return None
    repo_id = repository.removeprefix("datasets--").replace("--", "/")
    return f"hf://datasets/{repo_id}@{root.name}"


def _read_source(root: Path) -> dict[str, Any]:
    try:
        source: dict[str, Any] = json.loads((root / SOURCE).read_text())
    except (OSError, ValueError):
        return {}
    return source


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

    with ThreadPoolExecutor(PARALLEL_COPIES) as pool:
        for name, done in [(name, pool.submit(copy, name)) for name in names]:
            try:
                done.result()
            except Exception as error:
                pool.shutdown(cancel_futures=True)
                raise OSError(f"{name}: {type(error).__name__}: {shorten(error)}") from error


def _copy_columns(system: Any, source: str, target: Path) -> None:  # noqa: ANN401  fsspec's, untyped
    """Copy a data file without images, row group by row group, reading only the other columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with system.open(source, "rb") as file, pq.ParquetFile(file) as given:
        kept = [field for field in given.schema_arrow if not pa.types.is_struct(field.type)]
        names = [field.name for field in kept]
        with pq.ParquetWriter(target, pa.schema(kept)) as written:
            for group in range(given.num_row_groups):
                written.write_table(given.read_row_group(group, columns=names))
