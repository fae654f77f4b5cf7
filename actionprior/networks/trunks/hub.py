"""A model's config and weights in the hub's layout: a local folder, or the hub and its cache."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import hf_hub_download

from actionprior.errors import UserError, shorten

FOLDER, REPOSITORY = "local-dir:", "hf-hub:"
"""What such a source starts with, as in open_clip and timm."""


class HubModel(NamedTuple):
    """What a source holds."""

    config: dict[str, Any]
    weights: Path


def is_hub_source(name: str) -> bool:
    """Whether a name is ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``."""
    return name.startswith((FOLDER, REPOSITORY))


def hub_model(source: str, config: str, weights: Sequence[str]) -> HubModel:
    """Find a model's files; nothing is downloaded where they are in the hub's cache.

    Args:
        source: ``local-dir:FOLDER``, or ``hf-hub:OWNER/NAME`` with ``@REVISION`` if need be.
        config: name of the JSON file.
        weights: names that the file of weights may have, the best first.

    Raises:
        UserError: a file is missing, cannot be had or is no JSON object.
    """
    config_file = _find(source, [config])
    try:
        told = json.loads(config_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{source}: {config} is not JSON ({error})") from None
    if not isinstance(told, dict):
        raise UserError(f"{source}: {config} holds a {type(told).__name__}, expected an object")
    return HubModel(told, _find(source, weights))


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
        except Exception as error:  # of many kinds: no such name, no network, not in the cache
            last = error
    raise UserError(f"{source}: {wanted} cannot be had ({shorten(last)})") from last
