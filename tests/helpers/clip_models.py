"""Tiny open_clip models and their files."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import nn

MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]


def save_clip(model: str, folder: Path, **config: object) -> nn.Module:
    """Save a model of random weights in the files that open_clip pushes to the Hub."""
    torch.manual_seed(3)
    clip = open_clip.create_model(model, force_custom_text=True)
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.contiguous() for k, v in clip.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    written = {
        "model_cfg": open_clip.get_model_config(model) | config,
        "preprocess_cfg": {"mean": MEAN, "std": STD},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(written))
    return clip


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


TIMM_TOWER = {
    "image_size": 160,
    "timm_model_name": "test_vit",
    "timm_pool": "avg",
    "timm_proj": "linear",
}


def known(folder: Path, name: str, **changes: object) -> str:
    """Register a tiny architecture with open_clip and return its name."""
    import open_clip

    file = folder / f"{name}.json"
    file.write_text(json.dumps(_CONFIG | changes))
    open_clip.add_model_config(file)
    return name
