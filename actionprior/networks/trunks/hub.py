"""Find a model's config and weights in the hub's layout: in a folder, the hub or its cache."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import hf_hub_download

from actionprior.errors import UserError, shorten

FOLDER, REPOSITORY = "local-dir:", "hf-hub:"
"""Prefixes of sources in the hub's layout, the same as in open_clip and timm."""


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
    config_file = _find(source, [config])
    try:
        found = json.loads(config_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{source}: {config} is not JSON ({error})") from None
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
