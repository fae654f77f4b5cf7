"""Measure training steps: the cost of Lightning, a second process, and the speed on a GPU."""

import json
import multiprocessing
import os
import socket
import statistics
import tempfile
from typing import Any

import torch

from bench.bare_loop import bare_loop, prior_module
from bench.command_line import run, without_notes
from bench.gpu import bench_gpu
from bench.short_runs import Clock, Products, ShortRun, SyntheticTrajectories, peak, trainer


def bench_train(
    steps: int = 60,
    rounds: int = 5,
    width: int = 96,
    depth: int = 0,
    batch_size: int = 96,
    cpu: bool = True,
    gpu: bool | None = None,
) -> None:
    """Time Stage-1 steps on the CPU, and both stages at the paper's size on a GPU.

    The CPU runs have one thread per process: under Lightning, in a bare loop, and on two ranks of
    DDP. The bare loop is the same step in plain PyTorch (loader, loss, clipping, AdamW, schedule)
    and must end with the same loss.

    The last line is `RESULT` and JSON. `overhead` compares a step under Lightning, with a logger,
    with the bare loop. `ddp_efficiency` compares the windows per second of two ranks with those of
    two independent, concurrent runs. `flops_share` is the step's matrix operations per second over
    those of one large product. `gpu` holds the results on a GPU.

    Args:
        steps: Timed steps of each run on the CPU, after ten warm-up steps.
        rounds: Number of CPU measurements, of which the median is reported.
        width: Width of the prior in the CPU runs.
        depth: Depth of the prior's encoder and decoder in the CPU runs; 0 is the default depth.
        batch_size: Windows per step and process in the CPU runs.
        cpu: Measure on the CPU.
        gpu: Measure on a GPU; by default if there is one.
    """
    result: dict[str, Any] = {}
    if torch.cuda.is_available() if gpu is None else gpu:
        result["gpu"] = bench_gpu()
    if cpu:
        size = {"width": width, "decoder_sees_state": True}
        if depth:
            size |= {"encoder_depth": depth, "decoder_depth": depth}
        result |= _on_cpu(size, ShortRun(batch_size, steps, "cpu", "32-true"), rounds)
    print("RESULT " + json.dumps(result), flush=True)


def _on_cpu(size: dict[str, Any], run: ShortRun, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    found = [_overhead(size, run) for _ in range(rounds)]
    seconds = statistics.median(f["seconds"] for f in found)
    result: dict[str, Any] = {
        "overhead": round(statistics.median(f["overhead"] for f in found), 4),
        "overheads": [round(f["overhead"], 4) for f in found],
        "largest_difference_of_losses": max(f["difference"] for f in found),
        "step_seconds": round(seconds, 5),
        "samples_per_s": round(run.batch_size / seconds, 1),
        "flops_share": round(found[0]["flops"] / seconds / peak("cpu", run.precision), 3),
    }
    result |= _two_processes(size, run, rounds)
    result["met"] = {
        "overhead_below_3_percent": result["overhead"] < 0.03,
        "ddp_at_least_85_percent": result["ddp_efficiency"] >= 0.85,
    }
    return result


def _overhead(size: dict[str, Any], run: ShortRun) -> dict[str, float]:
    """Compare a run under Lightning with one in a bare loop."""
    clock, products, data = Clock(run), Products(), SyntheticTrajectories(batch_size=run.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        trainer(run, folder, [clock, products], devices=1).fit(prior_module(size, data), data)
    data = SyntheticTrajectories(batch_size=run.batch_size)
    data.setup("fit")
    module = prior_module(size, data)
    module.prior.normalizer.fit(data.statistics_sample())
    seconds, loss = bare_loop(module, data, run)
    return {
        "seconds": clock.seconds,
        "overhead": clock.seconds / seconds - 1,
        "difference": abs(clock.loss - loss) / abs(loss),
        "flops": products.flops,
    }


# ---- two processes ------------------------------------------------------------------------


def _two_processes(size: dict[str, Any], run: ShortRun, rounds: int) -> dict[str, Any]:
    """Compare two ranks of DDP with two independent runs, in turns."""
    efficiency = []
    for _ in range(rounds):
        ranks, independent = (_pair(size, run, ddp) for ddp in (True, False))
        efficiency.append(round(independent / ranks, 3))
    return {"ddp_efficiency": statistics.median(efficiency), "ddp_efficiencies": efficiency}


def _pair(size: dict[str, Any], run: ShortRun, ddp: bool) -> float:
    """Return the seconds per step of the slower of two concurrent processes."""
    context = multiprocessing.get_context("spawn")
    barrier, times = context.Barrier(2), context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [
        context.Process(target=_one_of_two, args=(size, run, ddp, rank, port, barrier, times))
        for rank in range(2)
    ]
    for child in children:
        child.start()
    seconds = [times.get(timeout=300) for _ in children]
    for child in children:
        child.join()
    return float(max(seconds))


def _one_of_two(
    size: dict[str, Any],
    run: ShortRun,
    ddp: bool,
    rank: int,
    port: int,
    barrier: Any,  # noqa: ANN401  multiprocessing's have no types
    times: Any,  # noqa: ANN401  a queue, which has no type either
) -> None:
    torch.set_num_threads(1)
    options: dict[str, Any] = {"devices": 1}
    if ddp:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2"}
        options = {"devices": 2, "strategy": "ddp"}
    clock, data = Clock(run, barrier), SyntheticTrajectories(batch_size=run.batch_size)
    with without_notes(), tempfile.TemporaryDirectory() as folder:
        trainer(run, folder, [clock], **options).fit(prior_module(size, data), data)
    times.put(clock.seconds)


def main(args: list[str] | None = None) -> None:
    """Run the benchmark: see :func:`bench_train` for its options."""
    run(bench_train, "train", args)


if __name__ == "__main__":
    main()
