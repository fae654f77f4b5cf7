"""Recipes, changed by dotted names."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from actionprior.errors import UserError, shorten

Recipe = dict[str, Any]


class StudyError(UserError):
    """Unusable study file, recipe or results table."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        StudyError: The file is missing, is not YAML, or holds something other than a mapping.
    """
    file = Path(path)
    if not file.is_file():
        raise StudyError(
            f"{path} does not exist; expected a YAML file (run it in the project's folder)"
        )
    try:
        found = yaml.safe_load(file.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise StudyError(f"{path} is not YAML: {shorten(error, 500)}") from None
    if not isinstance(found, dict):
        raise StudyError(f"{path} holds {type(found).__name__}, expected a mapping")
    return found


def with_changes(recipe: Mapping[str, Any], changes: Mapping[str, Any]) -> Recipe:
    """Copy a recipe and apply changes, named as on the command line.

    ``data.batch_size`` enters ``init_args`` by itself, and
    ``trainer.callbacks.RolloutEvaluation.episodes`` the only callback of that class.

    Raises:
        StudyError: A name leads through a value that is no mapping, or to a missing callback.
    """
    result = copy.deepcopy(dict(recipe))
    for name, value in changes.items():
        *parents, last = name.split(".")
        node: Any = result
        for part in parents:
            node = _child(node, part, name)
        _inner(node, last, name)[last] = copy.deepcopy(value)
    return result


def member(recipe: Mapping[str, Any], class_name: str) -> dict[str, Any] | None:
    """Return the recipe's first callback of a class; None if there is none."""
    callbacks = recipe.get("trainer", {}).get("callbacks") or []
    found = [c for c in callbacks if _is(c, class_name)]
    return found[0] if found else None


def _child(node: Any, part: str, name: str) -> Any:  # noqa: ANN401  YAML
    if isinstance(node, list):
        found = [entry for entry in node if _is(entry, part)]
        if len(found) != 1:
            raise StudyError(f"{name}: found {len(found)} entries of class {part}, expected one")
        return found[0]
    inner = _inner(node, part, name)
    if inner.get(part) is None:
        inner[part] = {}
    return inner[part]


def _inner(node: Any, part: str, name: str) -> dict[str, Any]:  # noqa: ANN401  YAML
    if not isinstance(node, dict):
        raise StudyError(f"{name}: {part!r} is looked for in {node!r}, expected a mapping there")
    if "class_path" in node and part not in ("class_path", "init_args"):
        if node.get("init_args") is None:
            node["init_args"] = {}
        inner: dict[str, Any] = node["init_args"]
        return inner
    return node


def _is(entry: object, class_name: str) -> bool:
    path = entry.get("class_path") if isinstance(entry, dict) else entry
    return isinstance(path, str) and path.split(".")[-1] == class_name
