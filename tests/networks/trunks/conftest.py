"""Tiny open_clip architectures under names of their own, and inputs that every trunk takes."""

import pytest
import torch
from torch import Tensor

from tests.helpers.clip_models import TIMM_TOWER, known

_RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the tiny model."""
    return known(tmp_path_factory.mktemp("configs"), "actionprior-tiny")


@pytest.fixture(scope="session")
def tiny_siglip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of one that reads as SigLIP does, with a tokeniser of ``transformers``."""
    text = {"width": 32, "heads": 2, "layers": 2, "context_length": 16, "vocab_size": 16}
    text |= {"no_causal_mask": True, "pool_type": "last"}
    text |= {
        "hf_tokenizer_name": "actionprior/siglip",
        "tokenizer_kwargs": {"clean": "canonicalize"},
    }
    folder = tmp_path_factory.mktemp("configs")
    return known(folder, "actionprior-siglip", vision_cfg=TIMM_TOWER, text_cfg=text)


@pytest.fixture(scope="session")
def tiny_timm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of one whose image tower is one of timm's, as SigLIP's and MobileCLIP's are."""
    return known(tmp_path_factory.mktemp("configs"), "actionprior-timm", vision_cfg=TIMM_TOWER)


@pytest.fixture(scope="session")
def tiny_resnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of one whose image tower is open_clip's own ResNet."""
    return known(tmp_path_factory.mktemp("configs"), "actionprior-resnet", vision_cfg=_RESNET)


@pytest.fixture
def images() -> Tensor:
    """(2, 2, 3, 40, 48): two rows, two cameras, a size that no trunk has as its own."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 2, 3, 40, 48), dtype=torch.uint8, generator=generator)
