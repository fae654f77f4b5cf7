"""Files that a dataset names: paths below its folder, or an error.

Names come from whoever made the dataset: templates of paths, cells of images, links. None of them
may lead to a file elsewhere on this machine, whose content would end in caches and training.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from actionprior.data import DataError
from actionprior.errors import shown

LINKED = "ACTIONPRIOR_LINKED_DATA"
"""Environment variable of folders that links in a dataset may lead to, separated by colons."""
_POINTER, _POINTER_BYTES = b"version https://git-lfs.github.com/spec/", 1024
"""Beginning and largest size of a pointer of Git LFS."""
_COPY = re.compile(r"( - copy.*| copy.*| ?\((copy|\d+)\)| \d+)$", re.IGNORECASE)
"""End of the name that a file manager gives to a copy."""
_FIELD = re.compile(r"\{(\w+)(?::0?(\d{1,2})d)?\}")


def file_below(root: Path, name: str) -> Path:
    """Return the path of a file that a dataset names. The file may be missing.

    Args:
        root: Folder of the dataset.
        name: The dataset's name of the file.

    Raises:
        DataError: The name or a link leads out of ``root``, or to something else than a file.
    """
    _check_name(root, name)
    path = root / name
    if leads_out(root, path):
        raise DataError(
            f"{root}: names the file {shown(name)}, which leads out of the dataset to "
            f"{shown(os.path.realpath(path))}; copy it into the dataset, or list its folder in "
            f"{LINKED} if you trust the dataset"
        )
    try:
        about = path.stat()
    except FileNotFoundError:
        return path
    except OSError as error:
        raise DataError(
            f"{root}: the file {shown(name)} cannot be read ({error.strerror})"
        ) from error
    if not stat.S_ISREG(about.st_mode):
        raise DataError(f"{root}: {shown(name)} is no file, but a folder, pipe or device")
    if about.st_size < _POINTER_BYTES and _is_pointer(path):
        raise DataError(
            f"{root}: {shown(name)} is not the file itself but a pointer of Git LFS; fetch the "
            "files with `git lfs pull` in the dataset's folder"
        )
    return path


def is_hidden(path: PurePath) -> bool:
    """Return whether a relative path has a part that is hidden by a leading full stop."""
    return any(part.startswith(".") for part in path.parts)


def is_leftover(root: Path, path: Path) -> bool:
    """Return whether an editor or an operating system has left a file among those of a dataset.

    These are hidden files, files in hidden folders, and copies beside their originals.
    """
    if is_hidden(path.relative_to(root)):
        return True
    original = _COPY.sub("", path.stem)
    return original != path.stem and path.with_stem(original).exists()


def url_below(url: str, name: str) -> str:
    """Return the URL of a file that a remote dataset names.

    Raises:
        DataError: The name leads out of ``url``.
    """
    _check_name(url, name)
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise DataError(f"{url}: names {shown(name)}, which is not inside it")
    return f"{url}/{name}"


def leads_out(root: Path, path: Path) -> bool:
    """Return whether a path leads out of a dataset and of what its links may lead to."""
    real = os.path.realpath(path)
    return not any(os.path.commonpath([real, home]) == home for home in _homes(root))


def walk_files(root: Path, folder: str) -> Iterator[Path]:
    """Yield the files below a folder of a dataset, in no order, except hidden ones.

    Links to folders are followed, but neither out of the dataset nor round in it.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [root / folder]
    while waiting:
        place = waiting.pop()
        try:
            about = place.stat()
            if (about.st_dev, about.st_ino) in seen:
                continue
            if place.is_symlink() and leads_out(root, place):
                continue
            seen.add((about.st_dev, about.st_ino))
            with os.scandir(place) as entries:
                inside = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError:  # it is missing, or not readable, which reading its files reports
            continue
        for entry in inside:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False) or os.path.isdir(entry.path):
                waiting.append(place / entry.name)
            else:
                yield place / entry.name


def fill_template(root: Path, template: str, fields: Mapping[str, Any]) -> str:
    """Fill in a path template such as ``data/chunk-{chunk_index:03d}/file.parquet``.

    A field is a name, or a name and a width of up to two digits. Nothing else of Python's formats
    is evaluated.

    Args:
        root: Dataset, for messages.
        template: Template of ``meta/info.json``.
        fields: Value of each name.

    Raises:
        DataError: The template is no text or has another kind of field.
        KeyError: A field has no value.
    """
    if not isinstance(template, str) or re.search("[{}]", _FIELD.sub("", template)):
        raise DataError(
            f"{root}: meta/info.json has the path template {shown(template)}, expected fields such "
            "as {chunk_index:03d}"
        )

    def value(field: re.Match[str]) -> str:
        found, width = fields[field[1]], field[2]
        return str(found) if width is None else f"{int(found):0{int(width)}d}"

    return _FIELD.sub(value, template)


def _is_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:  # reading the file says so
        return False


def _check_name(home: str | Path, name: object) -> None:
    # fsspec and FFmpeg read "::" and "://" as instructions to open something else.
    if not isinstance(name, str) or not name or "\0" in name or re.search("::|://", name):
        raise DataError(f"{home}: names the file {shown(name)}, expected a path in the dataset")


def _homes(root: Path) -> Sequence[str]:
    """Return the real folders that a dataset's files may be in."""
    home = Path(os.path.realpath(root))
    found = [str(home)]
    if home.parent.name == "snapshots" and home.parents[1].name.startswith("datasets--"):
        found.append(str(home.parents[1] / "blobs"))  # the hub's cache links to its own files
    linked = filter(None, os.environ.get(LINKED, "").split(os.pathsep))
    return found + [os.path.realpath(os.path.expanduser(folder)) for folder in linked]
