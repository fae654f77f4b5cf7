"""Towers that treat all images together give what transformers' own give."""

from typing import Any

import pytest
import torch

from tests.helpers.vlm_models import tiny_config


def model(family: str) -> Any:
    import transformers

    torch.manual_seed(0)
    return transformers.AutoModelForImageTextToText.from_config(tiny_config(family)).model.eval()


@pytest.mark.parametrize("size", [16, 32])
def test_smolvlm(size: int) -> None:
    from actionprior.networks.trunks.vlm.equal_images import EqualSmolVLMVision

    tower, pixels = model("smolvlm").vision_model, torch.randn(3, 3, size, size)
    expected = tower(pixels).last_hidden_state
    tower.__class__ = EqualSmolVLMVision
    torch.testing.assert_close(tower(pixels).last_hidden_state, expected)


@pytest.mark.parametrize(("rows", "columns"), [(4, 6), (12, 2)])
def test_qwen(rows: int, columns: int) -> None:
    from actionprior.networks.trunks.vlm.families import family_of

    whole, patches = model("qwen3_vl"), torch.randn(3 * 24, 3 * 2 * 64)
    grid = torch.tensor([[1, rows, columns]]).expand(3, 3)
    expected = whole.visual(patches, grid_thw=grid)
    family_of("qwen3_vl").prepare(whole)
    found = whole.visual(patches, grid_thw=grid)
    torch.testing.assert_close(found.pooler_output, expected.pooler_output)
    torch.testing.assert_close(found.deepstack_features, expected.deepstack_features)
