"""LeRobot's policies at their default sizes with random weights, for comparison."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from actionprior.errors import shorten

Call = Callable[[], object]
STATE, ACTIONS, PIXELS = 8, 8, 224
NAMES = ("act", "diffusion", "multi_task_dit", "pi0_expert_loop")


def calls(chunk_length: int, image_YX3: torch.Tensor) -> Iterator[tuple[str, Call]]:
    """Yield the name and a call that infers one chunk, for each policy that is installed.

    Only one policy is in memory at a time.

    Args:
        chunk_length: Steps that each policy predicts.
        image_YX3: Image of the only camera, uint8.
    """
    image = (image_YX3.permute(2, 0, 1).float() / 255)[None]
    make = {
        "act": _act,
        "diffusion": _diffusion,
        "multi_task_dit": _multi_task_dit,
        "pi0_expert_loop": _pi0_expert,
    }
    for name in NAMES:
        try:
            call = make[name](chunk_length, image)
        except ImportError as error:
            print(f"{name}: not measured, {shorten(error)}", flush=True)
            continue
        yield name, call
        del call


def _features() -> dict[str, Any]:
    from lerobot.configs.types import FeatureType, PolicyFeature

    return {
        "input_features": {
            "observation.state": PolicyFeature(FeatureType.STATE, (STATE,)),
            "observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, PIXELS, PIXELS)),
        },
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (ACTIONS,))},
        "device": "cpu",
    }


def _batch(image: torch.Tensor) -> dict[str, Any]:
    return {
        "observation.state": torch.zeros(1, STATE),
        "observation.images.front": image,
        "task": ["push the red cube"],
    }


def _act(chunk_length: int, image: torch.Tensor) -> Call:
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    config = ACTConfig(
        **_features(),
        chunk_size=chunk_length,
        n_action_steps=chunk_length,
        pretrained_backbone_weights=None,
    )
    policy = ACTPolicy(config).eval()
    return lambda: policy.predict_action_chunk(_batch(image))


def _diffusion(chunk_length: int, image: torch.Tensor) -> Call:
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    config = DiffusionConfig(**_features(), horizon=chunk_length, pretrained_backbone_weights=None)
    policy = DiffusionPolicy(config).eval()

    def call() -> object:
        policy.reset()
        return policy.select_action(_batch(image))

    return call


def _multi_task_dit(chunk_length: int, image: torch.Tensor) -> Call:
    from lerobot.policies.multi_task_dit.configuration_multi_task_dit import MultiTaskDiTConfig
    from lerobot.policies.multi_task_dit.modeling_multi_task_dit import MultiTaskDiTPolicy

    with _clip_folders() as (vision, text):
        config = MultiTaskDiTConfig(
            **_features(),
            horizon=chunk_length,
            n_action_steps=chunk_length // 2,
            vision_encoder_name=vision,
            text_encoder_name=text,
        )
        policy = MultiTaskDiTPolicy(config).eval()
    words = torch.ones(1, config.tokenizer_max_length, dtype=torch.int64)
    language = {
        "observation.language.tokens": words,
        "observation.language.attention_mask": words.bool(),
    }

    def call() -> object:
        policy.reset()
        return policy.select_action(_batch(image) | language)

    return call


@contextmanager
def _clip_folders() -> Iterator[tuple[str, str]]:
    """Context manager: folders with random weights of CLIP ViT-B/16, the policy's default."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

    with tempfile.TemporaryDirectory() as folder:
        vision, text = Path(folder) / "clip-vision", Path(folder) / "clip-text"
        CLIPVisionModel(CLIPVisionConfig(patch_size=16)).save_pretrained(vision)
        CLIPTextModel(CLIPTextConfig()).save_pretrained(text)
        yield str(vision), str(text)


def pi0_expert(chunk_length: int, device: str = "cpu") -> Any:  # noqa: ANN401  an untyped library's
    """Return π0's default action expert, without the language model of 2 B parameters before it.

    Args:
        chunk_length: Steps per chunk.
        device: Device of the weights.

    Raises:
        ImportError: The extra ``bench`` is not installed.
    """
    from lerobot.policies.pi0.configuration_pi0 import PI0Config
    from lerobot.policies.pi0.modeling_pi0 import PI0Pytorch

    config = PI0Config(**_features(), chunk_size=chunk_length, n_action_steps=chunk_length)
    with torch.device("meta"):
        model = PI0Pytorch(config)
    del model.paligemma_with_expert.paligemma
    model.paligemma_with_expert.gemma_expert.lm_head = None
    model.to_empty(device=device)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.normal_(std=0.02)
    return model


def pi0_expert_velocity(
    model: Any,  # noqa: ANN401  an untyped library's
    state_BS: torch.Tensor,
    x_BHA: torch.Tensor,
    time_B: torch.Tensor,
) -> torch.Tensor:
    """Return the velocity (B, H, A) that π0's expert predicts for noisy chunks without a prefix."""
    from lerobot.policies.pi0.modeling_pi0 import make_att_2d_masks, prepare_attention_masks_4d

    tokens, pad, blocks, _ = model.embed_suffix(state_BS, x_BHA, time_B)
    model.paligemma_with_expert.gemma_expert.model.config._attn_implementation = "sdpa"
    (_, out), _ = model.paligemma_with_expert.forward(
        attention_mask=prepare_attention_masks_4d(make_att_2d_masks(pad, blocks)),
        position_ids=torch.cumsum(pad, dim=1) - 1,
        inputs_embeds=[None, tokens],
        use_cache=False,
    )
    velocity_BHA: torch.Tensor = model.action_out_proj(out[:, -x_BHA.shape[1] :])
    return velocity_BHA


def _pi0_expert(chunk_length: int, image: torch.Tensor) -> Call:
    """Return π0's denoising loop with its default expert, after 256 image and 48 text tokens.

    The language model before it is neither built nor timed.
    """
    from transformers import DynamicCache

    model = pi0_expert(chunk_length).eval()
    config = model.config
    expert = model.paligemma_with_expert.gemma_expert.config
    seen, cache = 256 + config.tokenizer_max_length, DynamicCache()
    for layer in range(expert.num_hidden_layers):
        shape = (1, expert.num_key_value_heads, seen, expert.head_dim)
        cache.update(torch.randn(shape), torch.randn(shape), layer)
    state, mask = torch.zeros(1, config.max_state_dim), torch.ones(1, seen, dtype=torch.bool)

    def call() -> object:
        x = torch.randn(1, chunk_length, config.max_action_dim)
        for step in range(config.num_inference_steps):
            time = torch.full((1,), 1 - step / config.num_inference_steps)
            x = x - model.denoise_step(state, mask, cache, x, time) / config.num_inference_steps
        return x

    return call
