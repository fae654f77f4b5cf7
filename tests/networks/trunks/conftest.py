"""A tiny open_clip architecture under its own name, and inputs that every trunk takes."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

TINY = "actionprior-tiny"
_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 16},
    "text_cfg": {
        "context_length": 32,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
    },
}
TASKS = ["push the red cube to the blue pad", "lift it"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the tiny model."""
    import open_clip

    file: Path = tmp_path_factory.mktemp("configs") / f"{TINY}.json"
    file.write_text(json.dumps(_CONFIG))
    open_clip.add_model_config(file)
    return TINY


@pytest.fixture
def images() -> Tensor:
    """(2, 2, 3, 40, 48): two rows, two cameras, a size that no trunk has as its own."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 2, 3, 40, 48), dtype=torch.uint8, generator=generator)
