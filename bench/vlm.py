"""Measure both stages at the paper's size on one GPU, with random weights of its models.

``bench/gpu.sh`` runs it. Nothing is downloaded. It takes under ten minutes on one large GPU.
"""

import gc
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device

from actionprior.batch import Observation
from actionprior.errors import shorten
from actionprior.networks.motion_prior import PriorArchitecture
from actionprior.networks.trunks import VLMTrunk
from actionprior.networks.trunks.tuning import Tuning
from actionprior.networks.trunks.two_towers import Pixels
from actionprior.training.layers import repeated_layers
from actionprior.vla import VLAModule
from bench.bare_loop import prior_module
from bench.command_line import run
from bench.gpu import compiled, count, fit
from bench.random_vlm import QWEN3_VL_2B, TINY, write_random_vlm
from bench.short_runs import ShortRun, SyntheticTrajectories, SyntheticVLA, peak
from bench.timing import median_seconds


@dataclass(frozen=True)
class PaperSizes:
    """Sizes of both stages."""

    vlm: dict[str, Any]
    language: dict[str, Any]  # blocks of the action module's encoder and decoder
    width: int
    heads: int
    depth: int
    pixels: int
    stage1: ShortRun
    stage2: ShortRun  # its batch is the largest that is tried
    prior: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        from actionprior.networks.language_blocks import LanguageSize

        sizes = {"width": self.width, "heads": self.heads, "latent_width": 64}
        sizes |= {"encoder_depth": self.depth, "decoder_depth": self.depth}
        object.__setattr__(self, "prior", {**sizes, "language": LanguageSize(**self.language)})


def paper_sizes() -> PaperSizes:
    """Return Qwen3-0.6B twice and Qwen3-VL-2B, for a GPU."""
    blocks = {"kv_heads": 8, "head_width": 128, "mlp_width": 3072, "rope_base": 1e6}
    return PaperSizes(
        QWEN3_VL_2B,
        {**blocks, "head_norms": True},
        width=1024,
        heads=16,
        depth=28,
        pixels=224,
        stage1=ShortRun(256, 4, "cuda", "bf16-mixed", warm=2, accumulate=8),
        stage2=ShortRun(256, 6, "cuda", "bf16-mixed", warm=3),
    )


def tiny_sizes() -> PaperSizes:
    """Return sizes that run on a CPU in seconds."""
    blocks = {"kv_heads": 2, "head_width": 8, "mlp_width": 48, "head_norms": True}
    one = ShortRun(4, 1, "cpu", "bf16-mixed", warm=1)
    return PaperSizes(TINY, blocks, width=32, heads=4, depth=2, pixels=32, stage1=one, stage2=one)


def bench_vlm(tiny: bool = False, out: str = "", minutes: float = 6.0) -> dict[str, Any]:
    """Measure steps of both stages and the latency of a chunk, and print them as JSON.

    Stage 1 trains encoder and decoder of Qwen3-0.6B's size each. Stage 2 trains them with a VLM of
    2 B parameters, whole and by LoRA, at the largest batch that fits, eager and compiled.
    ``flops_share`` is relative to the speed of one large matrix product. The last line is `RESULT`
    and JSON. Parts that would begin after the time limit are left out. A part takes up to three
    minutes.

    Args:
        tiny: Run everything at a tiny size on the CPU, to try the script.
        out: File for the result, rewritten after each part; empty writes none.
        minutes: Time after which no further part begins.
    """
    sizes = tiny_sizes() if tiny else paper_sizes()
    device = sizes.stage1.device
    began = time.perf_counter()
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "torch": torch.__version__,
        "stage1_run": asdict(sizes.stage1),
        "stage2_run": asdict(sizes.stage2),
    }
    matmul = peak(device, sizes.stage1.precision)
    result["matmul_tflops"] = round(matmul / 1e12, 2)
    with tempfile.TemporaryDirectory() as folder:
        source = write_random_vlm(sizes.vlm, Path(folder))
        lora = Tuning(freeze_image=False, freeze_text=False, lr_scale=1.0, lora_rank=16)
        whole = Tuning(freeze_image=False, freeze_text=False, lr_scale=1.0)
        parts: dict[str, Callable[[], Any]] = {
            "stage1": lambda: _stage1(sizes, matmul),
            "stage2_full": lambda: _stage2(sizes, source, whole, matmul),
            "stage2_lora": lambda: _stage2(sizes, source, lora, matmul),
        }
        for name, part in parts.items():
            if time.perf_counter() - began > 60 * minutes:
                result[name] = "left out: no time"
                continue
            result[name] = part()
            print(name, result[name], flush=True)
            _free(device)
            if out:
                Path(out).write_text(json.dumps(result, indent=1) + "\n")
    print("RESULT " + json.dumps(result), flush=True)
    return result


def _stage1(sizes: PaperSizes, matmul: float) -> dict[str, Any]:
    data = SyntheticTrajectories(batch_size=sizes.stage1.batch_size)
    module = prior_module(sizes.prior, data)
    result: dict[str, Any] = {"million_parameters": round(count(module) / 1e6, 1)}
    result["eager"], flops = fit(module, data, sizes.stage1, matmul)
    if sizes.stage1.device == "cuda":
        result["compiled"], _ = fit(compiled(module), data, sizes.stage1, matmul, flops)
    return result


def _policy(sizes: PaperSizes, source: str, tuning: Tuning, data: SyntheticVLA) -> VLAModule:
    trunk = VLMTrunk(
        source, random_weights=True, tuning=tuning, pixels=Pixels(image_size=sizes.pixels)
    )
    return VLAModule(
        [robot.to_dict() for robot in data.embodiments],
        trunk,
        architecture=PriorArchitecture(**sizes.prior),
        decay_fraction=1.0,  # all terms in every step
    )


def _stage2(sizes: PaperSizes, source: str, tuning: Tuning, matmul: float) -> dict[str, Any]:
    """Halve the batch until a step fits, measure it, and time a chunk of the result."""
    batch_size = sizes.stage2.batch_size
    # Built once, because drawing two billion random numbers takes a minute.
    module = _policy(sizes, source, tuning, SyntheticVLA(batch_size=1, pixels=sizes.pixels))
    while batch_size:
        try:
            result = _steps(sizes, module, matmul, batch_size)
            return result | {"chunk_milliseconds": _chunk(sizes, module)}
        except torch.OutOfMemoryError as error:
            print(f"a batch of {batch_size} does not fit: {shorten(error, 80)}", flush=True)
        module.cpu().zero_grad()
        _free(sizes.stage2.device)  # the error no longer holds what did not fit
        batch_size //= 2
    return {"batch_size": 0}


def _steps(sizes: PaperSizes, module: VLAModule, matmul: float, batch_size: int) -> dict[str, Any]:
    short = replace(sizes.stage2, batch_size=batch_size)
    data = SyntheticVLA(batch_size=batch_size, pixels=sizes.pixels)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    result: dict[str, Any] = {
        "batch_size": batch_size,
        "million_parameters": round(count(module) / 1e6, 3),
        "million_trained": round(trained / 1e6, 3),
    }
    result["eager"], flops = fit(module, data, short, matmul)
    if short.device == "cuda":
        result["compiled"], _ = fit(compiled(module), data, short, matmul, flops)
    return result


def _chunk(sizes: PaperSizes, module: VLAModule) -> float:
    """Time one chunk from two images at batch size 1 [ms]."""
    device = sizes.stage2.device
    data = SyntheticVLA(batch_size=1, pixels=sizes.pixels)
    data.setup("fit")
    network = module.network.to(device).eval()
    network.trunk.merge()  # as a policy does before it acts
    for layer in repeated_layers(module):
        layer._compiled_call_impl = None  # the eager policy, which shares work between its calls
    given = next(iter(data.train_dataloader())).observation
    observation: Observation = move_data_to_device(given, torch.device(device))
    noise_BHA = torch.randn(1, data.chunk_length, 37, device=device)

    def plan() -> float:
        with torch.autocast(device, torch.bfloat16):
            return float(network.predict_chunk(observation, noise_BHA).sum())  # waits

    return round(1e3 * median_seconds(20, plan)[0], 2)


def _free(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def main(args: list[str] | None = None) -> None:
    """Run the benchmark: see :func:`bench_vlm` for its options."""
    run(bench_vlm, "vlm", args)


if __name__ == "__main__":
    main()
