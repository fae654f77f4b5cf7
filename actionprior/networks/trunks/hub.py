"""Find a model's config and weights in the hub's layout: in a folder, the hub or its cache."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import hf_hub_download, snapshot_download

from actionprior.errors import UserError, shorten
from actionprior.files.plain_json import read_json

_MODEL_FILES = ["*.json", "*.jinja", "*.safetensors"]
FOLDER, REPOSITORY = "local-dir:", "hf-hub:"
"""Prefixes of sources in the hub's layout, the same as in open_clip and timm."""
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class HubModel(NamedTuple):
    """Files of a model in the hub's layout."""

    config: dict[str, Any]
    weights: Path


def is_hub_source(name: str) -> bool:
    """Check whether a name is ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``."""
    return name.startswith((FOLDER, REPOSITORY))


def hub_model(source: str, config: str, weights: Sequence[str]) -> HubModel:
    """Find a model's files; they are downloaded only if they are not in the hub's cache.

    Args:
        source: ``local-dir:FOLDER``, or ``hf-hub:OWNER/NAME`` with an optional ``@REVISION``.
        config: Name of the JSON file.
        weights: Possible names of the file of weights, in the order of preference.

    Raises:
        UserError: A file is missing, cannot be downloaded, or is not a JSON object.
    """
    found = read_json(_find(source, [config]))
    if not isinstance(found, dict):
        raise UserError(
            f"{source}: {config} holds a {type(found).__name__}, expected a JSON object"
        )
    return HubModel(found, _find(source, weights))


def _find(source: str, names: Sequence[str]) -> Path:
    wanted = " or ".join(names)
    if source.startswith(FOLDER):
        folder = Path(source.removeprefix(FOLDER))
        if not folder.is_dir():
            raise UserError(f"{source}: there is no such folder")
        for name in names:
            if (folder / name).is_file():
                return folder / name
        raise UserError(f"{source}: the folder has no {wanted}")
    repository, _, revision = source.removeprefix(REPOSITORY).partition("@")
    for name in names:
        try:
            return Path(hf_hub_download(repository, name, revision=revision or None))
        except Exception as error:  # unknown name, no network, not in the cache: many kinds
            last = error
    raise UserError(f"{source}: {wanted} cannot be downloaded ({shorten(last)})") from last


def hub_folder(source: str, key: str) -> Path:
    """Return the folder of a model; files that are not in the hub's cache are downloaded.

    Args:
        source: ``local-dir:FOLDER``, or ``hf-hub:OWNER/NAME`` with an optional ``@REVISION``. The
            prefix may be left out of a folder that exists and of a name on the hub.
        key: The argument that names the source, for messages.

    Raises:
        UserError: The source is misspelt, missing, or cannot be downloaded.
    """
    if source.startswith(FOLDER) or (not is_hub_source(source) and Path(source).is_dir()):
        folder = Path(source.removeprefix(FOLDER))
        if not folder.is_dir():
            raise UserError(f"{key} is {source}, but there is no such folder")
        return folder
    name, _, revision = source.removeprefix(REPOSITORY).partition("@")
    if not _HUB_NAME.fullmatch(name):
        raise UserError(
            f"{key} is {source!r}, which is neither a folder nor a name on the hub; expected "
            f"{REPOSITORY}OWNER/NAME or {FOLDER}FOLDER"
        )
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=_MODEL_FILES,
                ignore_patterns=["*/*"],
            )
        )
    except Exception as error:  # unknown name, no network, not in the cache: many kinds
        absent = "" if is_hub_source(source) else "is not a folder and "
        raise UserError(
            f"{key}: {source} {absent}cannot be downloaded ({shorten(error)})"
        ) from error


@contextmanager
def without_network() -> Iterator[None]:
    """Context manager: let Hugging Face's libraries use only files that are on this machine."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
