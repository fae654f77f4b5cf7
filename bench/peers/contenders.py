"""The policies that are compared, and the options that each is trained with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actionprior.networks.trunks.region import Region

EXECUTED = 8
"""Actions executed of each chunk by policies whose size was searched, as our recipe does."""


@dataclass(frozen=True)
class Contender:
    """A policy of LeRobot, or of this project.

    Attributes:
        options: Options of ``lerobot-train`` or ``lightning fit``, without data, steps and output.
        pilot_steps: Steps of the short and of the long pilot run, which measure a step's CPU time.
        own: True if ``lightning fit`` trains the policy.
        clip: True if the policy needs folders with a CLIP model, which get random weights.
        cut: Region of the first camera's image that a policy of LeRobot is shown at the image's
            size, in its demonstrations and rollouts.
    """

    options: dict[str, str]
    pilot_steps: tuple[int, int] = (4, 12)
    own: bool = False
    clip: bool = False
    cut: Region | None = None


ACT = {"policy.type": "act", "policy.pretrained_backbone_weights": "null"}
DIFFUSION = {"policy.type": "diffusion", "policy.pretrained_backbone_weights": "null"}
CHUNKS = {"policy.chunk_size": "32", "policy.n_action_steps": str(EXECUTED)}
SMALL_ACT = CHUNKS | {
    "batch_size": "32",
    "policy.dim_model": "256",
    "policy.dim_feedforward": "1024",
    "policy.optimizer_lr": "1e-4",
    "policy.optimizer_lr_backbone": "1e-4",
}
HORIZON = {"policy.horizon": "16", "policy.n_action_steps": str(EXECUTED)}

OWN = {
    "model.use_prior": "false",
    "model.architecture": "{width: 96, latent_width: 64, decoder_sees_state: true}",
    "model.history": "off",
}
WORKSPACE = (0.27, 0.28, 0.92, 0.93)
"""Part of the first camera's image in which MetaWorld's hand, objects and goals are."""

CONTENDERS: dict[str, Contender] = {
    "actionprior": Contender(OWN, pilot_steps=(20, 120), own=True),
    "actionprior_region": Contender(
        OWN | {"model.trunk.regions": f"[{list(WORKSPACE)}]"}, pilot_steps=(20, 120), own=True
    ),
    # The same network and region from random weights, all of which train. Without words from a
    # package, the instruction's words are learnt, too.
    "actionprior_scratch": Contender(
        OWN
        | {
            "model.trunk.pretrained": "",
            "model.trunk.text_pretrained": "",
            "model.trunk.freeze": "false",
            "model.trunk.lr_scale": "1.0",
            "model.trunk.regions": f"[{list(WORKSPACE)}]",
            "data.images.features.cache": "false",
            "data.images.features.views": "1",
            "data.images.features.shift": "0.0",
        },
        own=True,
    ),
    # The prior's checkpoint is given as an option, and its training is not in the minutes.
    "actionprior_prior": Contender({"model.history": "off"}, pilot_steps=(20, 120), own=True),
    "act_default": Contender(ACT | {"batch_size": "8"}),
    "act": Contender(ACT | SMALL_ACT),
    "act_batch8": Contender(ACT | SMALL_ACT | {"batch_size": "8"}),
    "act_cut": Contender(ACT | SMALL_ACT, cut=WORKSPACE),
    "act_cut_batch8": Contender(ACT | SMALL_ACT | {"batch_size": "8"}, cut=WORKSPACE),
    "diffusion_default": Contender(DIFFUSION | {"batch_size": "8"}),
    "diffusion": Contender(
        DIFFUSION
        | HORIZON
        | {
            "batch_size": "32",
            "policy.n_obs_steps": "1",
            "policy.down_dims": "[64,128,256]",
            "policy.crop_ratio": "1.0",
            "policy.noise_scheduler_type": "DDIM",
            "policy.num_inference_steps": "10",
            "policy.optimizer_lr": "3e-4",
        }
    ),
    "multi_task_dit": Contender(
        HORIZON
        | {
            "policy.type": "multi_task_dit",
            "batch_size": "32",
            "policy.n_obs_steps": "1",
            "policy.objective": "flow_matching",
            "policy.num_integration_steps": "10",
            "policy.hidden_dim": "256",
            "policy.num_layers": "4",
            "policy.image_crop_shape": "null",
            "policy.optimizer_lr": "3e-4",
            "policy.vision_encoder_lr_multiplier": "1.0",
        },
        clip=True,
    ),
}


def clip_options(folder: Path, pixels: int, tasks: list[str]) -> dict[str, str]:
    """Write a small CLIP model with random weights, and return the options that name it.

    Public weights cannot be had in a package, so the network starts as ACT's does: from scratch.
    Each word of the instructions is a token.

    Args:
        folder: Folder to write.
        pixels: Edge of the images.
        tasks: Instructions.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPVisionConfig,
        CLIPVisionModel,
        PreTrainedTokenizerFast,
    )

    vision, text = folder / "clip-vision", folder / "clip-text"
    if not vision.is_dir():
        size: dict[str, Any] = {
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_attention_heads": 3,
        }
        size["num_hidden_layers"] = 6
        sight: dict[str, Any] = {"image_size": pixels, "patch_size": 16, **size}
        CLIPVisionModel(CLIPVisionConfig(**sight)).save_pretrained(vision)
        words = ["<pad>", "<unk>", *sorted({word for task in tasks for word in task.split()})]
        reader = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
        reader.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        special: dict[str, Any] = {"pad_token": "<pad>", "unk_token": "<unk>"}
        fast: Any = PreTrainedTokenizerFast
        fast(tokenizer_object=reader, **special).save_pretrained(text)
        sizes: dict[str, Any] = {
            "vocab_size": len(words),
            "eos_token_id": 0,
            "bos_token_id": 0,
            **size,
        }
        CLIPTextModel(CLIPTextConfig(**sizes)).save_pretrained(text)
    return {"policy.vision_encoder_name": str(vision), "policy.text_encoder_name": str(text)}
