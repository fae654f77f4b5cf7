"""Measure what Lightning adds to a Stage-1 step, and what a second process adds to the speed."""

import json
import logging
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
import warnings
from itertools import count, islice
from typing import Any, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch.utils.flop_counter import FlopCounterMode

from actionprior.commands._timing import median_seconds
from actionprior.data import EmbodiedDataModule, Frames
from actionprior.embodiment import Embodiment
from actionprior.motion_prior import MotionPriorModule
from actionprior.networks.motion_prior import PriorArchitecture
from actionprior.spans import Spans
from actionprior.training import FlowNoise
from actionprior.trajectories import Recording, TrajectoryStore

WARM = 10  # steps of a run that are not timed
SIGMA = 0.05


def bench_train(
    steps: int = 60,
    rounds: int = 5,
    width: int = 96,
    depth: int = 0,
    batch_size: int = 96,
    device: str = "cpu",
    precision: str = "32-true",
) -> None:
    """Time Stage-1 steps: under Lightning, in a bare loop, alone and on two ranks of DDP.

    The bare loop is the same step in PyTorch alone (loader, loss, clipping, AdamW, schedule); it
    must end with the same loss. The last line is ``RESULT`` and JSON: ``overhead``, of a step
    under Lightning with a logger over one in the bare loop; ``ddp_efficiency``, windows a second
    of two ranks over those of two independent runs at once (CPU only); ``samples_per_s`` and
    ``flops_share``, the step's matrix products a second over those of a large product alone.

    Args:
        steps: of each run, without the first ten.
        rounds: of each measurement; all take turns, and medians are told.
        width: of the prior.
        depth: of encoder and of decoder; 0: as by default.
        batch_size: windows a step and process.
        device: ``cpu``, with one thread a process, or ``cuda``.
        precision: the Trainer's; the bare loop knows ``32-true`` and ``bf16-mixed``.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    size = {"width": width, "decoder_sees_state": True}
    if depth:
        size |= {"encoder_depth": depth, "decoder_depth": depth}
    run = {"size": size, "batch_size": batch_size, "steps": steps, "device": device}
    run["precision"] = precision
    overhead = [_overhead(run) for _ in range(rounds)]
    seconds = statistics.median(o["lightning_seconds"] for o in overhead)
    share = _flops(run) / seconds / _peak(device, precision)
    result: dict[str, Any] = {
        "overhead": round(statistics.median(o["overhead"] for o in overhead), 4),
        "overheads": [round(o["overhead"], 4) for o in overhead],
        "largest_difference_of_losses": max(o["difference"] for o in overhead),
        "step_seconds": round(seconds, 5),
        "samples_per_s": round(batch_size / seconds, 1),
        "flops_share": round(share, 3),
    }
    met = {"overhead_below_3_percent": result["overhead"] < 0.03}
    if device == "cpu":
        result |= _two_processes(run, rounds)
        met["ddp_at_least_85_percent"] = result["ddp_efficiency"] >= 0.85
    print("RESULT " + json.dumps(result | {"met": met}), flush=True)


class MadeUp(EmbodiedDataModule):
    """Windows of a random walk of one arm, in memory."""

    @property
    def embodiments(self) -> list[Embodiment]:
        """One arm of seven joints."""
        from actionprior.envs.embodiments import suite_embodiment

        return [suite_embodiment("panda")]

    def read_frames(self) -> Frames:
        """Two hundred episodes of 120 steps."""
        robot, episodes, length = self.embodiments[0], 200, 120
        rng = np.random.default_rng(0)
        shape = (episodes * length, len(robot.state_features))
        state = np.cumsum(rng.normal(size=shape), 0, dtype=np.float32)
        action = rng.normal(size=(len(state), len(robot.action_features))).astype(np.float32)
        lengths = np.full(episodes, length, np.int64)
        store = TrajectoryStore([robot], [(0, Recording(action, state, lengths))])
        everything = np.ones(len(store), dtype=bool)
        return Frames(store, Spans.where(everything), Spans.where(~everything))


class Clock(Callback):
    """Seconds a step, from the end of the tenth step to that of the last; and the last loss."""

    def __init__(self, barrier: Any = None) -> None:  # noqa: ANN401  multiprocessing's has no type
        self.barrier, self.began, self.seconds, self.loss = barrier, 0.0, 0.0, 0.0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:  # noqa: ANN401  Lightning's own
        """Read the clock at the two steps."""
        if trainer.global_step == WARM:
            if self.barrier is not None:
                self.barrier.wait()
            self.began = _now(module.device.type)
        elif trainer.global_step == trainer.max_steps:
            elapsed = _now(module.device.type) - self.began
            self.seconds = elapsed / (trainer.max_steps - WARM)
            self.loss = float(trainer.callback_metrics["train/loss"])


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _module(run: dict[str, Any], data: MadeUp) -> MotionPriorModule:
    torch.manual_seed(0)
    robots = [robot.to_dict() for robot in data.embodiments]
    return MotionPriorModule(robots, PriorArchitecture(**run["size"]), latent_noise=SIGMA)


def _trainer(run: dict[str, Any], folder: str, clock: Clock, **options: Any) -> Trainer:  # noqa: ANN401  Lightning's
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu" if run["device"] == "cpu" else "gpu",
        precision=run["precision"],
        max_steps=WARM + run["steps"],
        gradient_clip_val=1.0,
        limit_val_batches=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[clock],
        **options,
    )


def _overhead(run: dict[str, Any]) -> dict[str, float]:
    """One run under Lightning beside one in a bare loop."""
    clock, data = Clock(), MadeUp(batch_size=run["batch_size"])
    with tempfile.TemporaryDirectory() as folder:
        _trainer(run, folder, clock, devices=1).fit(_module(run, data), data)
    seconds, loss = _bare(run)
    return {
        "lightning_seconds": clock.seconds,
        "overhead": clock.seconds / seconds - 1,
        "difference": abs(clock.loss - loss) / abs(loss),
    }


def _bare(run: dict[str, Any]) -> tuple[float, float]:
    """Seconds a step of the same training without Lightning, and its last loss."""
    data = MadeUp(batch_size=run["batch_size"])
    data.setup("fit")
    module = _module(run, data).to(run["device"])
    module.prior.normalizer.fit(data.statistics_sample())
    matrices = [p for p in module.parameters() if p.dim() > 1]
    others = [p for p in module.parameters() if p.dim() <= 1]
    mixed = run["precision"] == "bf16-mixed"
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        lr=module.learning_rate,
        betas=(0.9, 0.95),
        fused=not mixed,
    )
    total = WARM + run["steps"]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: module.rate(k, total))
    began, loss = 0.0, torch.zeros(())
    for step, (number, batch) in enumerate(islice(_batches(data), total)):
        if step == WARM:
            began = _now(run["device"])
        batch = type(batch)(*(tensor.to(run["device"]) for tensor in batch))
        with torch.autocast(run["device"], torch.bfloat16, enabled=mixed):
            noise = FlowNoise(step, number, 0)
            z_BZ = module.prior.encode(batch)
            z_BZ = module.prior.perturb(z_BZ, noise.normal(*z_BZ.shape, like=z_BZ), SIGMA)
            r_B = noise.time(len(z_BZ), module.time_law, like=z_BZ)
            start_BHA = noise.normal(*batch.action_BHA.shape, like=z_BZ)
            loss = module.prior.flow_loss(z_BZ, batch, start_BHA, r_B)
        optimizer.zero_grad()
        cast(Any, loss).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return (_now(run["device"]) - began) / run["steps"], float(loss.detach())


def _batches(data: MadeUp) -> Any:  # noqa: ANN401  an endless iterator of numbered batches
    """Batches of one epoch after the other, with their number in it."""
    loader = data.train_dataloader()
    for epoch in count():
        cast(Any, loader.batch_sampler).sampler.set_epoch(epoch)
        yield from enumerate(loader)


# ---- a step's arithmetic ------------------------------------------------------------------


def _flops(run: dict[str, Any]) -> int:
    """Operations of the matrix products of one step, forward and backward."""
    data = MadeUp(batch_size=run["batch_size"])
    data.setup("fit")
    module = _module(run, data)
    module.prior.normalizer.fit(data.statistics_sample())
    batch = next(iter(data.train_dataloader()))
    with FlopCounterMode(display=False) as counter:
        z_BZ = module.prior.encode(batch)
        noise_BHA = torch.randn_like(batch.action_BHA)
        loss = module.prior.flow_loss(z_BZ, batch, noise_BHA, torch.rand(len(z_BZ)))
        cast(Any, loss).backward()
    return int(counter.get_total_flops())


def _peak(device: str, precision: str) -> float:
    """Operations a second of one large matrix product."""
    edge = 1024 if device == "cpu" else 8192
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    a, b = torch.randn(2, edge, edge, device=device, dtype=dtype)

    def product() -> float:
        a @ b
        return _now(device)

    return float(2 * edge**3 / median_seconds(15, product)[0])


# ---- two processes ------------------------------------------------------------------------


def _two_processes(run: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Two ranks of DDP, and two runs that know nothing of each other, in turns."""
    efficiency = []
    for _ in range(rounds):
        together, alone = (_pair(run, ddp) for ddp in (True, False))
        efficiency.append(round(alone / together, 3))
    return {"ddp_efficiency": statistics.median(efficiency), "ddp_efficiencies": efficiency}


def _pair(run: dict[str, Any], ddp: bool) -> float:
    """Seconds a step of the slower of two processes that train at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, told = context.Barrier(2), context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [
        context.Process(target=_one_of_two, args=(run, ddp, rank, port, barrier, told))
        for rank in range(2)
    ]
    for child in children:
        child.start()
    seconds = [told.get(timeout=300) for _ in children]
    for child in children:
        child.join()
    return float(max(seconds))


def _one_of_two(
    run: dict[str, Any],
    ddp: bool,
    rank: int,
    port: int,
    barrier: Any,  # noqa: ANN401  multiprocessing's have no types
    told: Any,  # noqa: ANN401  likewise
) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    options: dict[str, Any] = {"devices": 1}
    if ddp:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2"}
        options = {"devices": 2, "strategy": "ddp"}
    clock, data = Clock(barrier), MadeUp(batch_size=run["batch_size"])
    with tempfile.TemporaryDirectory() as folder:
        _trainer(run, folder, clock, **options).fit(_module(run, data), data)
    told.put(clock.seconds)


def main(args: list[str]) -> None:
    """Run the verb: see :func:`bench_train` for its options."""
    from jsonargparse import auto_cli

    auto_cli(bench_train, args=args, prog="lightning bench-train")
