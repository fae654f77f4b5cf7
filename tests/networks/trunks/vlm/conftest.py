"""Tiny models of three families, written once."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from actionprior.networks.trunks import VLMTrunk
from tests.helpers.vlm_models import FAMILIES, write_vlm

Source = Callable[[str], str]
Build = Callable[..., VLMTrunk]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Write each family's model when it is first asked for, and return its source."""
    home, written = tmp_path_factory.mktemp("vlm"), dict[str, str]()

    def folder(family: str) -> str:
        if family not in written:
            written[family] = f"local-dir:{write_vlm(family, home / family)}"
        return written[family]

    return folder


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def build(family: str, source: Source) -> Build:
    def make(**tuning: object) -> VLMTrunk:
        torch.manual_seed(0)
        from actionprior.networks.trunks.tuning import Tuning
        from actionprior.networks.trunks.two_towers import Pixels

        options = {"freeze_image": False, "freeze_text": False, "lr_scale": 1.0, **tuning}
        layers = int(options.pop("layers", 0))
        return VLMTrunk(
            source(family), layers, tuning=Tuning(**options), pixels=Pixels(image_size=32)
        )

    return make


@pytest.fixture
def images() -> Tensor:
    """(2, 2, 3, 40, 48): two rows, two cameras."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 2, 3, 40, 48), dtype=torch.uint8, generator=generator)
