"""Start encoder and decoder of a prior from a decoder-only language model.

Source: arXiv 2606.26095, Sec. III-B: both start from Qwen3-0.6B.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from actionprior.embodiment import Embodiment
from actionprior.errors import UserError
from actionprior.files.plain_json import read_json
from actionprior.files.weights import load_weights, wrong_shape
from actionprior.networks.language_blocks import AdaptiveLanguageBlock, LanguageSize
from actionprior.networks.motion_prior import MotionPrior, PriorArchitecture
from actionprior.networks.trunks.hub import hub_folder

MODELS = ("llama", "qwen2", "qwen3")
"""Types of models whose blocks :mod:`actionprior.networks.language_blocks` computes."""
_INDEX = "model.safetensors.index.json"


def new_prior(embodiments: list[Embodiment], architecture: PriorArchitecture | None) -> MotionPrior:
    """Build a prior with fresh weights, or with those of ``architecture.init_from``.

    The prior's own architecture has the model's sizes and no ``init_from``, so that a checkpoint of
    it needs no other file.

    Raises:
        UserError: The source is missing, damaged or of another kind, or sizes of the architecture
            contradict it.
    """
    architecture = architecture or PriorArchitecture()
    if not architecture.init_from:
        return MotionPrior(embodiments, architecture)
    source = architecture.init_from
    folder = hub_folder(source, "architecture.init_from")
    config = read_json(folder / "config.json")
    sized = _sized(architecture, config if isinstance(config, dict) else {}, source)
    prior = MotionPrior(embodiments, sized)
    weights = _language_weights(folder, sized.encoder_depth, source)
    prefix = "" if "norm.weight" in weights else "model."
    encoder: nn.ModuleList = prior.encoder.blocks
    for number, (block, adaptive) in enumerate(zip(encoder, prior.decoder.blocks, strict=True)):
        start = f"{prefix}layers.{number}."
        own = {n.removeprefix(start): w for n, w in weights.items() if n.startswith(start)}
        _load(block, own, start, source)
        _load(adaptive, _modulated(adaptive, own), start, source)
    _load(prior.encoder.norm, {"weight": weights[f"{prefix}norm.weight"]}, prefix, source)
    return prior


def _sized(
    architecture: PriorArchitecture, config: dict[str, Any], source: str
) -> PriorArchitecture:
    kind, rope = config.get("model_type"), config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or rope
    known = (
        kind in MODELS
        and config.get("hidden_act", "silu") == "silu"
        and scaling.get("rope_type", scaling.get("type", "default")) == "default"
        and not config.get("mlp_bias")
    )
    if not known:
        raise UserError(
            f"{source}: config.json describes {kind!r}, whose blocks are not known here; expected "
            f"one of {', '.join(MODELS)} with SwiGLU and plain rotary positions"
        )
    try:
        heads, width, layers = (
            int(config[key]) for key in ("num_attention_heads", "hidden_size", "num_hidden_layers")
        )
        bias = bool(config.get("attention_bias", False))
        size = LanguageSize(
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_width=int(config.get("head_dim") or width // heads),
            mlp_width=int(config["intermediate_size"]),
            rope_base=float(config.get("rope_theta") or rope.get("rope_theta") or 1e4),
            eps=float(config.get("rms_norm_eps", 1e-6)),
            head_norms=kind == "qwen3",
            input_bias=bias or kind == "qwen2",
            output_bias=bias,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source}: config.json lacks a size or is damaged ({error})") from None
    kept = architecture.init_layers or layers
    if not 1 <= kept <= layers:
        raise UserError(
            f"architecture.init_layers is {kept}, but {source} has {layers} layers; expected 1 to "
            f"{layers}, or 0 for all"
        )
    found = {"width": width, "heads": heads, "encoder_depth": kept, "decoder_depth": kept}
    for name, value in found.items():
        given = getattr(architecture, name)
        if given not in (value, getattr(PriorArchitecture(), name)):
            raise UserError(
                f"architecture.{name} is {given}, but architecture.init_from takes {value} from "
                f"{source}; leave {name} out, or init_from"
            )
    return replace(
        architecture,
        width=width,
        heads=heads,
        encoder_depth=kept,
        decoder_depth=kept,
        language=size,
        init_from="",
        init_layers=0,
    )


def _language_weights(folder: Path, layers: int, source: str) -> dict[str, Tensor]:
    """Read the weights of the first layers and the last norm, in 32 bits."""
    files = ["model.safetensors"]
    if (folder / _INDEX).is_file():
        index = read_json(folder / _INDEX)
        files = sorted({Path(str(f)).name for f in dict(index["weight_map"]).values()})
    wanted = {f"layers.{number}." for number in range(layers)}
    weights: dict[str, Tensor] = {}
    for file in files:
        for name, value in load_weights(folder / file).items():
            plain = name.removeprefix("model.")
            if plain == "norm.weight" or any(plain.startswith(start) for start in wanted):
                weights[name] = value.to(torch.float32)
    if not any(name.endswith("norm.weight") and "layers" not in name for name in weights):
        raise UserError(f"{source}: the weights have no norm.weight; expected a language model's")
    return weights


def _modulated(block: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a block's weights with the names of a modulated one, and its own modulation."""
    assert isinstance(block, AdaptiveLanguageBlock)
    renamed = {
        n.replace("layernorm.weight", "layernorm.norm.weight"): w for n, w in weights.items()
    }
    return {n: w for n, w in block.state_dict().items() if ".modulation." in n} | renamed


def _load(module: nn.Module, weights: dict[str, Tensor], place: str, source: str) -> None:
    if wrong := wrong_shape(weights, module.state_dict()):
        name, found, expected = wrong
        raise UserError(
            f"{source}: {place}{name} is {'missing' if found is None else found}, "
            f"expected {'nothing' if expected is None else expected} by its config.json"
        )
    module.load_state_dict(weights)
