"""Training steps of both stages at the paper's size, for ``python -m bench.train`` on a GPU."""

import gc
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple, cast

import torch
from lightning import Callback
from torch import Tensor, nn

from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH
from actionprior.errors import shorten
from actionprior.networks.action_decoder import ActionDecoder
from actionprior.networks.motion_prior import PriorArchitecture
from actionprior.networks.trunks.base import Trunk
from actionprior.training.layers import repeated_layers
from actionprior.training.settings import FusionSize
from actionprior.training.stage import StageModule
from actionprior.vla import VLAModule
from bench.bare_loop import bare_loop, prior_module
from bench.short_runs import (
    Clock,
    Products,
    ShortRun,
    SyntheticTrajectories,
    SyntheticVLA,
    now,
    peak,
    trainer,
)
from bench.step_costs import LayerStack, Machine, costs
from bench.timing import median_seconds


class Sizes(NamedTuple):
    """Sizes of both stages to measure."""

    prior: dict[str, Any]  # architecture
    stage1: ShortRun
    stage2: ShortRun
    trunk: Callable[[], Trunk]
    pixels: int
    fusion: FusionSize
    expert_batch: int = 0  # chunks; 0 skips the comparison with π0's expert
    compiled: bool = True  # also with compiled layers


def _siglip() -> Trunk:
    from actionprior.networks.trunks import TimmTrunk
    from actionprior.networks.trunks.tuning import Tuning

    return TimmTrunk(
        "vit_base_patch16_siglip_224",
        text_model="ViT-B-16",
        tuning=Tuning(freeze_image=False, freeze_text=False),
    )


PAPER = Sizes(
    # 0.6 B each, at the width and the heads of the paper's Qwen3-0.6B.
    prior={"width": 1024, "heads": 16, "encoder_depth": 48, "decoder_depth": 32, "latent_width": 64}
    | {"decoder_sees_state": True},
    stage1=ShortRun(256, 5, "cuda", "bf16-mixed", warm=3, accumulate=8),
    stage2=ShortRun(32, 10, "cuda", "bf16-mixed", warm=5),
    trunk=_siglip,
    pixels=224,
    fusion=FusionSize(768, 4, 12),
    expert_batch=256,
)


def bench_gpu(sizes: Sizes = PAPER) -> dict[str, Any]:
    """Measure samples per second, memory and arithmetic speed of both stages' training steps.

    Both run under Lightning, eager and with compiled layers, and Stage 1 also in a bare loop. A
    decoder is compared with π0's action expert of equal size. ``flops_share`` is relative to the
    speed of one large matrix product. ``activations_over_formula`` compares with the formula of
    ``python -m bench.scaling``.
    """
    device = sizes.stage1.device
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "stage1_run": asdict(sizes.stage1),
        "stage2_run": asdict(sizes.stage2),
    }
    matmul = peak(device, sizes.stage1.precision)
    result["matmul_tflops"] = round(matmul / 1e12, 1)
    parts = {"stage1": _stage1, "stage2": _stage2} | (
        {"expert": _experts} if sizes.expert_batch else {}
    )
    for name, part in parts.items():
        result[name] = part(sizes, matmul)
        print(name, result[name], flush=True)
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    return result


def _stage1(sizes: Sizes, matmul: float) -> dict[str, Any]:
    run, data = sizes.stage1, SyntheticTrajectories(batch_size=sizes.stage1.batch_size)
    module = prior_module(sizes.prior, data)
    result: dict[str, Any] = {"million_parameters": _millions(module)}
    result["eager"], flops = fit(module, data, run, matmul)
    encoder, decoder = module.prior.encoder, module.prior.decoder
    a = module.prior.architecture
    parts = [
        _part(encoder, 1 + a.dataset_tokens + 2 * a.chunk_length, a.encoder_depth, a.width),
        _part(decoder, a.chunk_length, a.decoder_depth, a.width),
    ]
    formula = costs(parts, 1, run.batch_size, False, False, Machine()).activation_bytes
    result["eager"]["activations_over_formula"] = round(
        result["eager"]["activations_gb"] * 1e9 / formula, 2
    )
    seconds, _ = bare_loop(module, data, run)
    result["overhead"] = round(result["eager"]["step_seconds"] / seconds - 1, 4)
    if sizes.compiled:
        result["compiled"], _ = fit(compiled(module), data, run, matmul, flops)
    return result


def _stage2(sizes: Sizes, matmul: float) -> dict[str, Any]:
    run = sizes.stage2
    data = SyntheticVLA(batch_size=run.batch_size, pixels=sizes.pixels)
    module = VLAModule(
        [robot.to_dict() for robot in data.embodiments],
        sizes.trunk(),
        architecture=PriorArchitecture(**sizes.prior),
        decay_fraction=1.0,  # all terms in every step
        fusion=sizes.fusion,
    )
    result: dict[str, Any] = {"million_parameters": _millions(module)}
    result["million_parameters_of_trunk"] = _millions(module.network.trunk)
    result["eager"], flops = fit(module, data, run, matmul)
    if sizes.compiled:
        result["compiled"], _ = fit(compiled(module), data, run, matmul, flops)
    return result


def _experts(sizes: Sizes, _: float) -> dict[str, Any]:
    """Time training steps of π0's expert and of a decoder with the same number of parameters."""
    from bench.lerobot_policies import pi0_expert, pi0_expert_velocity

    a, device = PriorArchitecture(**sizes.prior), sizes.stage1.device
    try:
        expert = pi0_expert(a.chunk_length, device)
    except ImportError as error:
        print(f"π0's expert: not measured, {shorten(error)}", flush=True)
        return {}
    rest, one = (
        count(ActionDecoder(a.width, a.latent_width, depth, a.heads, a.chunk_length))
        for depth in (0, 1)
    )
    depth = round((count(expert) - rest) / (one - rest))
    decoder = ActionDecoder(a.width, a.latent_width, depth, a.heads, a.chunk_length).to(device)
    shape = (sizes.expert_batch, a.chunk_length)
    x_BHA = torch.randn(*shape, ACTION_WIDTH, device=device)
    state_BS = torch.randn(shape[0], STATE_WIDTH, device=device)
    z_BZ, r_B = (
        torch.randn(shape[0], a.latent_width, device=device),
        torch.rand(shape[0], device=device),
    )
    inside_BH = torch.ones(shape, dtype=torch.bool, device=device)
    width = expert.config.max_action_dim

    def expert_velocity() -> Tensor:
        return pi0_expert_velocity(
            expert, state_BS[:, : expert.config.max_state_dim], x_BHA[..., :width], r_B
        )

    def decoder_velocity() -> Tensor:
        velocity_BHA: Tensor = decoder(x_BHA, r_B[:, None], z_BZ, state_BS, inside_BH)
        return velocity_BHA

    steps = [_step(expert, expert_velocity, device), _step(decoder, decoder_velocity, device)]
    result: dict[str, Any] = {}
    for name, model, seconds in zip(
        ("pi0_expert", "decoder"), (expert, decoder), median_seconds(10, *steps), strict=True
    ):
        result[name] = {
            "million_parameters": _millions(model),
            "step_seconds": round(seconds, 5),
            "samples_per_s": round(shape[0] / seconds, 1),
        }
    result["pi0_expert_over_decoder"] = round(
        result["pi0_expert"]["step_seconds"] / result["decoder"]["step_seconds"], 3
    )
    return result


def _step(model: nn.Module, velocity: Callable[[], Tensor], device: str) -> Callable[[], float]:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> float:
        with torch.autocast(device, torch.bfloat16):
            loss = velocity().float().square().mean()
        cast(Any, loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return now(device)

    for _ in range(3):
        step()
    return step


def fit(
    module: StageModule, data: SyntheticTrajectories, run: ShortRun, matmul: float, flops: int = 0
) -> tuple[dict[str, Any], int]:
    """Train under Lightning. Return the measurements and the operations of a batch."""
    clock, products = Clock(run), Products()
    callbacks: list[Callback] = [clock] if flops else [clock, products]
    with tempfile.TemporaryDirectory() as folder:
        trainer(run, folder, callbacks, devices=1).fit(module, data)
    flops = flops or products.flops
    speed = flops * run.accumulate / clock.seconds
    gradients = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    return {
        "step_seconds": round(clock.seconds, 4),
        "samples_per_s": round(run.batch_size * run.accumulate / clock.seconds, 1),
        "tflops": round(speed / 1e12, 1),
        "flops_share": round(speed / matmul, 3),
        "state_gb": round((clock.held_bytes + gradients) / 1e9, 2),
        "activations_gb": round((clock.most_bytes - clock.held_bytes - gradients) / 1e9, 2),
        "loss": round(clock.loss, 4),
    }, flops


def compiled(module: StageModule) -> StageModule:
    """Compile each repeated layer of a module, in place."""
    for layer in repeated_layers(module):
        layer.compile()
    return module


def _part(module: nn.Module, tokens: int, layers: int, width: int) -> LayerStack:
    return LayerStack(count(module), tokens, layers, width)


def _millions(module: nn.Module) -> float:
    return round(count(module) / 1e6, 1)


def count(module: nn.Module) -> int:
    """Count the parameters of a module."""
    return sum(p.numel() for p in module.parameters())
