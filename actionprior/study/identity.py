"""Identities of runs: hashes of their configurations."""

import json
from typing import Any

from actionprior.files.digest import digest

_GROUPS = frozenset({"optimizer", "flow", "fusion", "mixture", "images", "tuning", "pixels"})
"""Arguments that hold others, added after 0.1.0.

Published tables name their cells by what version 0.1.0 hashed, which had these arguments one by
one. A configuration is therefore hashed with the members of each group in place of the group, so
that finished cells stay finished.
"""

_VALUES = {
    "lightning record --config recipes/metaworld/record.yaml": (
        "lightning record --config recipes/metaworld_record.yaml"
    ),
    "lightning record --config recipes/metaworld/record_blind.yaml": (
        "lightning record --config recipes/metaworld_record_blind.yaml"
    ),
    "make it with `python examples/real_recordings/convert.py --source DIR`, where DIR holds the "
    "recordings": (
        "make it with `python examples/real_recordings/convert.py`, which needs the recordings in "
        "../shared/data"
    ),
    "make it with `python examples/real_recordings/convert.py --source DIR`, where DIR/g1_inspire "
    "is YifanTian07/G1-policy-train on GitHub, commit d1d3bb4": (
        "it is YifanTian07/G1-policy-train on GitHub, commit d1d3bb4"
    ),
    "outputs/real/g1_inspire_published": "../shared/data/g1_inspire",
}
"""Texts of our recipes that changed after 0.1.0, for the same reason."""


def identity(configuration: object) -> str:
    """16 hexadecimal digits of the SHA-256 of plain data, for any order of its keys."""
    text = json.dumps(_as_in_0_1_0(configuration), sort_keys=True, separators=(",", ":"))
    return digest(text)[:16]


def _as_in_0_1_0(node: Any) -> Any:  # noqa: ANN401  YAML
    if isinstance(node, list | tuple):
        return [_as_in_0_1_0(entry) for entry in node]
    if not isinstance(node, dict):
        return _VALUES.get(node, node) if isinstance(node, str) else node
    plain = {key: _as_in_0_1_0(value) for key, value in node.items()}
    arguments = plain.get("init_args")
    if isinstance(arguments, dict):
        groups = [key for key in arguments if key in _GROUPS and isinstance(arguments[key], dict)]
        rest = {key: value for key, value in arguments.items() if key not in groups}
        for group in groups:
            rest |= arguments[group]
        plain["init_args"] = rest
    return plain
