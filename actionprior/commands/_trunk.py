"""``--trunk CLASS_PATH``: the class of a policy's trunk, if it is not part of actionprior.

Only a class that the command line or the user's own recipe names is imported, never one that a
checkpoint or an exported folder names.
"""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from actionprior.errors import UserError
from actionprior.networks import trunks
from actionprior.networks.trunks.base import Trunk


def trunk_class(class_path: str) -> type[Trunk]:
    """Import a trunk's class by its path.

    Raises:
        UserError: The path names no class, its module cannot be imported, or the class is not a
            complete subclass of ``Trunk``.
    """
    module, _, name = class_path.rpartition(".")
    if not module:
        raise UserError(
            f"trunk {class_path!r} is no class path; expected one such as my.module.MyTrunk "
            "(--trunk)"
        )
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"trunk {class_path} cannot be imported ({error}); expected module.Class, importable "
            "from the current folder or the environment (--trunk)"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Trunk)):
        raise UserError(
            f"trunk {class_path} is not a subclass of actionprior.networks.trunks.base.Trunk"
        )
    if inspect.isabstract(found):
        raise UserError(
            f"trunk {class_path} lacks {', '.join(sorted(found.__abstractmethods__))}; "
            "define what actionprior.networks.trunks.base.Trunk declares"
        )
    return found


def chosen_trunk(
    class_path: str | None, model: Mapping[str, Any] | None, ckpt_path: str
) -> type[Trunk] | None:
    """Choose the class of a checkpoint's trunk from ``--trunk`` or a recipe.

    Args:
        class_path: Value of ``--trunk``; None or empty if the option is not given.
        model: Section ``model`` of the recipe, or None without a recipe. Its trunk counts only
            if the checkpoint was trained with a trunk of that name.
        ckpt_path: Checkpoint of the policy.

    Returns:
        The class, or None if the trunk is part of actionprior or unknown.

    Raises:
        UserError: The class cannot be used, see ``trunk_class``.
        CheckpointError: The checkpoint is missing or damaged.
    """
    if class_path:
        return trunk_class(class_path)
    named = _named_in(model or {})
    name = named.rpartition(".")[2]
    if not named or name in trunks.__all__ or _recorded_name(ckpt_path) != name:
        return None
    return trunk_class(named)


def _named_in(model: Mapping[str, Any]) -> str:
    """Return the class path of a recipe's trunk; empty if the recipe names none."""
    trunk = (model.get("init_args") or {}).get("trunk")
    path = trunk.get("class_path") if isinstance(trunk, Mapping) else trunk
    return path if isinstance(path, str) else ""


def _recorded_name(ckpt_path: str) -> str | None:
    """Return the class name of the trunk that a checkpoint was trained with."""
    from actionprior.checkpoints.policy import recorded_trunk
    from actionprior.checkpoints.sharded import read_file_or_folder

    checkpoint = read_file_or_folder(ckpt_path, weights=False)
    name: str | None = recorded_trunk(checkpoint, ckpt_path).get("name")
    return name
