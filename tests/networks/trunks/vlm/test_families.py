"""Each family gives what transformers gives for the same text and images."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from actionprior.networks.trunks import VLMTrunk
from actionprior.networks.trunks.base import resize
from actionprior.networks.trunks.two_towers import Pixels
from actionprior.networks.trunks.vlm.prompt import prompt_text
from tests.helpers.vlm_models import write_vlm
from tests.networks.trunks.vlm.conftest import Source

TASKS = ["push the red cube to the blue pad", "lift it"]


def reference(folder: str) -> Any:
    """The model as transformers loads and runs it."""
    import transformers

    return (
        transformers.AutoModelForImageTextToText.from_pretrained(
            folder.removeprefix("local-dir:"), dtype=torch.float32
        )
        .eval()
        .model
    )


def padded(trunk: VLMTrunk, tasks: list[str], cameras: int, side: str) -> dict[str, Tensor]:
    """Token ids of whole sequences as the model's own processor gives them, padded on a side."""
    image = "<image>" * trunk._image_tokens
    rows = [trunk.tokenizer.ids(prompt_text(trunk._prompt, image, cameras, t)) for t in tasks]
    length = max(map(len, rows))
    filling = [[0] * (length - len(row)) for row in rows]
    pairs = list(zip(filling, rows, strict=True))
    ids = [a + b if side == "left" else b + a for a, b in pairs]
    ones = [[1] * len(row) for row in rows]
    mask = [a + o if side == "left" else o + a for (a, _), o in zip(pairs, ones, strict=True)]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def run_reference(family: str, model: Any, trunk: VLMTrunk, text: dict, images: Tensor) -> Tensor:
    pixels = (resize(images.flatten(0, 1), (32, 32), "bicubic") - trunk.mean_K11) / trunk.std_K11
    shown = (text["input_ids"] == 3).long()
    if family == "smolvlm":
        return model(**text, pixel_values=pixels.unflatten(0, images.shape[:2])).last_hidden_state
    if family == "paligemma":
        return model(
            **text, pixel_values=pixels, token_type_ids=torch.zeros_like(shown)
        ).last_hidden_state
    patches, grid = as_qwen(pixels)
    return model(
        **text, pixel_values=patches, image_grid_thw=grid, mm_token_type_ids=shown
    ).last_hidden_state


@pytest.mark.parametrize("resample", [None, 1, 2, 3])
def test_images_are_resized_as_by_the_models_own_processor(
    family: str, tmp_path: Path, resample: int | None
) -> None:
    settings: dict[str, Any] = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}
    settings |= {} if resample is None else {"resample": resample}
    folder = write_vlm(family, tmp_path)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    trunk = VLMTrunk(f"local-dir:{folder}", pixels=Pixels(image_size=32)).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 1, 3, 40, 40), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        seen = trunk._family.see(trunk.model, processed(family, images[:, 0], settings))
        found = trunk(images, torch.ones(2, 1, dtype=torch.bool), TASKS).tokens_BNW
        changed = settings | {"resample": 3 if resample == 2 else 2}
        other = trunk._family.see(trunk.model, processed(family, images[:, 0], changed))
    texts = (trunk._prompt.start, trunk._prompt.before_image)
    at = sum(len(trunk.tokenizer.ids(text)) for text in texts)
    # transformers rounds the resized image to whole numbers of 0 to 255.
    torch.testing.assert_close(found[:, at : at + seen.shape[1]], seen, atol=0.05, rtol=0)
    assert (other - seen).abs().max() > 0.2, (other - seen).abs().max()


def processed(family: str, images: Tensor, settings: dict[str, Any]) -> Tensor:
    """Normalised pixels (I, 3, 32, 32) as the model's own processor makes them."""
    import transformers

    edge = {"height": 32, "width": 32}
    if family == "paligemma":
        processor = transformers.SiglipImageProcessor(**settings, size=edge)
    elif family == "smolvlm":
        longest = {"longest_edge": 32}
        processor = transformers.SmolVLMImageProcessor(
            **settings, size=longest, max_image_size=longest, do_image_splitting=False
        )
    else:
        area = {"shortest_edge": 1, "longest_edge": 32 * 32}
        processor = transformers.Qwen2VLImageProcessor(
            **settings, size=area, patch_size=16, merge_size=2, temporal_patch_size=1
        )
        patches = processor(list(images), return_tensors="pt")["pixel_values"]
        # (I, 2 by 2 patches, 3 colours, 16 by 16 pixels)
        cut = patches.view(len(images), 2, 2, 3, 16, 16).permute(0, 3, 1, 4, 2, 5)
        return cut.reshape(len(images), 3, 32, 32)
    pixels: Tensor = processor(list(images), return_tensors="pt")["pixel_values"]
    return pixels.reshape(len(images), 3, 32, 32)


def as_qwen(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Patches as Qwen's own image processor lays them out."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    processor = Qwen2VLImageProcessor(
        do_resize=False,
        do_rescale=False,
        do_normalize=False,
        do_convert_rgb=False,
        patch_size=8,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 1, "longest_edge": 10**6},
    )
    out = processor(list(pixels), return_tensors="pt", input_data_format="channels_first")
    return out["pixel_values"], out["image_grid_thw"]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cameras", [1, 2])
def test_hidden_states_are_those_of_transformers(
    family: str, source: Source, build: Any, images: Tensor, side: str, cameras: int
) -> None:
    trunk = build().eval()
    images = images[:, :cameras]
    text = padded(trunk, TASKS, cameras, side)
    with torch.no_grad():
        expected = run_reference(family, reference(source(family)), trunk, text, images)
        tokens = trunk(images, torch.ones(2, cameras, dtype=torch.bool), TASKS)
        known = tokens.mask_BN
        attend = known[:, None] & known[:, :, None]
        if not trunk._family.two_way:
            attend = attend.tril()
        attend = attend | torch.eye(known.shape[1], dtype=torch.bool)
        found = trunk.read(tokens.tokens_BNW, attend, tokens.place_BNA)
    for row in range(2):
        wanted = expected[row][text["attention_mask"][row].bool()]
        torch.testing.assert_close(found[row][known[row]], wanted, atol=2e-5, rtol=1e-4)
