"""Estimate memory, traffic and time of large runs, and check the formulas on this machine."""

import json
from pathlib import Path
from typing import Any

from actionprior.files.atomic import write_text
from bench.command_line import run
from bench.scaling_check import measured_over_formula
from bench.step_costs import Costs, LayerStack, Machine, costs

HORIZON, SOFT_TOKENS, DRAWS = 15, 2, 4
OBSERVED = 2 * 196 + 32  # tokens of two cameras and an instruction
ENCODER = LayerStack(0.6e9, 1 + SOFT_TOKENS + 2 * HORIZON, 28, 1024)
DECODER = LayerStack(0.6e9, HORIZON, 28, 1024)
TRUNKS = {  # layers and width of usual transformers of these sizes
    "0.1 B": LayerStack(0.1e9, OBSERVED, 12, 768),
    "0.4 B": LayerStack(0.4e9, OBSERVED, 24, 1024),
    "1 B": LayerStack(1e9, OBSERVED, 24, 1536),
    "3 B": LayerStack(3e9, OBSERVED, 36, 2560),
    "7 B": LayerStack(7e9, OBSERVED, 32, 4096),
}


def stage2(trunk: LayerStack) -> list[LayerStack]:
    """Return trunk, encoder (chunk and history) and decoder (draws of all loss terms)."""
    decoded = DECODER.tokens * (2 * DRAWS + 1)
    return [
        trunk,
        LayerStack(ENCODER.parameters, 2 * ENCODER.tokens, ENCODER.layers, ENCODER.width),
        LayerStack(DECODER.parameters, decoded, DECODER.layers, DECODER.width),
    ]


def scaling(page: str = "", processes: tuple[int, ...] = (2, 4), batch: int = 32) -> None:
    """Print tables of memory, traffic and time, and check their formulas with small runs.

    The last line is `RESULT` and JSON: for DDP and FSDP2 on each number of processes, the measured
    memory and traffic of a process over the formula's.

    Args:
        page: Markdown file whose tables are replaced.
        processes: Numbers of processes to check; an empty list prints only the tables.
        batch: Samples per GPU and step in Stage 2.
    """
    result: dict[str, Any] = {}
    for sharded in (False, True):
        for count in processes:
            name = f"{'fsdp2' if sharded else 'ddp'}_{count}"
            result[name] = measured_over_formula(count, sharded)
    lines = [*_stage1_table(), "", *_stage2_table(batch), "", *_one_gpu_table()]
    lines += ["", *_data_table(batch)]
    if result:
        lines += ["", *_check_table(result)]
    print("\n".join(lines))
    if page:
        text = Path(page).read_text("utf-8")
        head = text.partition(MARK)[0]
        write_text(head + MARK + "\n\n" + "\n".join(lines) + "\n", Path(page))
    print("RESULT " + json.dumps(result), flush=True)


MARK = "<!-- what follows is written by `python -m bench.scaling --page` -->"
GPUS = (8, 64, 512)


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _stage1_table() -> list[str]:
    lines = [
        "**Stage 1**, encoder and decoder of 0.6 B each, global batch 2048, DDP:",
        "",
        _row(
            "GPUs",
            "state per GPU",
            "activations",
            "compute per step",
            "traffic per step",
            "longest",
        ),
        _row(*["---"] * 6),
    ]
    for processes in GPUS:
        c = costs([ENCODER, DECODER], processes, 2048 // processes, False, False, Machine())
        lines.append(_row(processes, *_cells(c)))
    return lines


def _stage2_table(batch: int) -> list[str]:
    lines = [
        f"**Stage 2**, everything trained, {batch} samples per GPU, layers recomputed:",
        "",
        _row("trunk", "GPUs", "", "state per GPU", "activations", "compute", "traffic", "longest"),
        _row(*["---"] * 8),
    ]
    for name, trunk in TRUNKS.items():
        for processes in GPUS:
            for sharded in (False, True):
                c = costs(stage2(trunk), processes, batch, sharded, True, Machine())
                lines.append(_row(name, processes, "FSDP2" if sharded else "DDP", *_cells(c)))
    return lines


def _one_gpu_table() -> list[str]:
    """Return the costs of recipes/paper/one_gpu.yaml, with LoRA counted as full training."""
    seen = [
        LayerStack(0.093e9, 2 * 1024, 12, 768, trained=False),  # SigLIP on two images of 512 px
        LayerStack(0.205e9, 170, 16, 960),  # 16 layers of SmolVLM2-500M, and its embeddings
        LayerStack(0.05e9, 66, 8, 640),  # encoder: chunk and history
        LayerStack(0.05e9, 15 * (2 * DRAWS + 1), 8, 640),  # decoder
    ]
    lines = [
        "**Stage 2 on one GPU**, `recipes/paper/one_gpu.yaml`, as if LoRA trained all of the "
        "language model, at an assumed 50 TFLOP/s:",
        "",
        _row("batch", "state", "activations", "compute per step"),
        _row(*["---"] * 4),
    ]
    for batch in (16, 32, 64):
        c = costs(seen, 1, batch, False, False, Machine(operations=5e13))
        lines.append(_row(batch, *_cells(c)[:3]))
    return lines


def _cells(c: Costs) -> list[str]:
    longest = "traffic" if c.traffic_seconds > c.compute_seconds else "compute"
    return [
        f"{c.state_bytes / 1e9:,.1f} GB",
        f"{c.activation_bytes / 1e9:,.1f} GB",
        f"{1000 * c.compute_seconds:,.0f} ms",
        f"{1000 * c.traffic_seconds:,.0f} ms",
        longest,
    ]


FRAME_BYTES = {"numbers (76 B)": 76, "video (2 KB)": 2e3, "frames at 224 px (150 KB)": 150_528}


def _data_table(batch: int) -> list[str]:
    lines = [
        "**Data**: size of a dataset on disk, and time of one pass of Stage 2 over it on 512 GPUs "
        "with a trunk of 1 B:",
        "",
        _row("frames", *FRAME_BYTES, "one pass"),
        _row(*["---"] * (len(FRAME_BYTES) + 2)),
    ]
    step = costs(stage2(TRUNKS["1 B"]), 512, batch, True, True, Machine())
    rate = 512 * batch / max(step.compute_seconds, step.traffic_seconds)
    for power in (9, 10, 11):
        sizes = [f"{10**power * size / 1e12:,.2f} TB" for size in FRAME_BYTES.values()]
        lines.append(_row(f"10^{power}", *sizes, f"{10**power / rate / 3600:,.1f} h"))
    lines += ["", f"These 512 GPUs process {rate:,.0f} samples per second, {rate / 512:,.0f} each."]
    return lines


def _check_table(result: dict[str, Any]) -> list[str]:
    lines = [
        "**The formulas, checked** on a prior of 0.8 M parameters (gloo, CPU): measured value over "
        "formula",
        "",
        _row("", "processes", "weights, gradients, moments", "bytes sent"),
        _row(*["---"] * 4),
    ]
    for name, found in result.items():
        strategy, processes = name.split("_")
        lines.append(_row(strategy.upper(), processes, found["state"], found["traffic"]))
    return lines


def main(args: list[str] | None = None) -> None:
    """Run the benchmark: see :func:`scaling` for its options."""
    run(scaling, "scaling", args)


if __name__ == "__main__":
    main()
