"""Options of the contenders suit the recipe that they are compared with."""

from pathlib import Path

import pytest

from actionprior.commands._parser import call
from bench.peers.compare import _sections
from bench.peers.contenders import CONTENDERS


@pytest.mark.parametrize("name", [name for name, each in CONTENDERS.items() if each.own])
def test_our_options_of_the_data_are_accepted(name: str) -> None:
    recipe = Path(__file__).parents[3] / "recipes" / "metaworld" / "compact.yaml"
    options = [f"--{k}={v}" for k, v in CONTENDERS[name].options.items() if k.startswith("data.")]
    data, _ = call(_sections, [f"--config={recipe}", *options], "python -m bench.peers")
    assert data.batch_size == 64
