"""Weights of a checkpoint are plain tensors of the right kind, or refused by name."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from actionprior.checkpoints.reading import CheckpointError
from actionprior.policy import Policy
from tests.helpers.policies import tiny_network, write_checkpoint

OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "sparse": lambda w: w.to_sparse(),
    "quantised": lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
    "complex": lambda w: w.to(torch.complex64),
    "nested": lambda w: torch.nested.nested_tensor([w[0], w[1]]),
    "whole numbers": lambda w: w.to(torch.int64),
    "booleans": lambda w: w > 0,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", OTHERS)
def test_other_tensors_are_refused(kind: str, tmp_path: Path) -> None:
    path = write_checkpoint(tiny_network(), tmp_path / "p.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    weights = checkpoint["state_dict"]
    name = next(name for name, value in weights.items() if value.dim() == 2)
    weights[name] = OTHERS[kind](weights[name])
    torch.save(checkpoint, path)
    with pytest.raises(CheckpointError, match=r"p\.ckpt is damaged: .*(no plain|are torch)"):
        Policy.load(path)
