"""The ``data`` section of a recipe, for verbs that train nothing."""

from collections.abc import Mapping
from typing import Any

from actionprior.data import EmbodiedDataModule
from actionprior.errors import UserError


def data_parser(prog: str) -> Any:  # noqa: ANN401  jsonargparse is imported when it is needed
    """A parser of ``--config RECIPE [--data.… ]``, of which only ``data`` is used."""
    from jsonargparse import ArgumentParser
    from lightning.pytorch import LightningDataModule

    parser = ArgumentParser(prog=prog)
    parser.add_argument("--config", action="config", help="a recipe of fit")
    parser.add_subclass_arguments(LightningDataModule, "data")
    parser.add_argument("--model", type=dict, help="not used")
    parser.add_argument("--trainer", type=dict, help="not used")
    parser.add_argument("--seed_everything", type=int, help="not used")
    return parser


def embodied_data(options: Mapping[str, Any], verb: str) -> EmbodiedDataModule:
    """The recipe's data module.

    Raises:
        UserError: there is none, or not one of robots.
    """
    data = options.get("data")
    if not isinstance(data, EmbodiedDataModule):
        raise UserError(
            f"{verb} needs a recipe whose `data` is an EmbodiedDataModule, found "
            f"{type(data).__name__} (--config)"
        )
    return data
