"""Measure memory and traffic of training processes, for ``python -m bench.scaling``."""

import math
import multiprocessing
import os
import socket
import tempfile
import warnings
from typing import Any

from bench.step_costs import BYTES, LayerStack, state_bytes, traffic_bytes


def measured_over_formula(processes: int, sharded: bool) -> dict[str, float]:
    """Measure memory and traffic of a small Stage 1, as ratios to the formulas.

    Args:
        processes: Processes that train together.
        sharded: Train with FSDP2 instead of DDP.
    """
    context = multiprocessing.get_context("spawn")
    reports = context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [
        context.Process(target=_measure, args=(rank, processes, sharded, port, reports))
        for rank in range(processes)
    ]
    for child in children:
        child.start()
    found = [reports.get(timeout=300) for _ in children]
    for child in children:
        child.join()
    parts = [LayerStack(found[0]["parameters"], 1, 1, 1)]
    state, traffic = (
        sum(f[key] for f in found) / processes / formula(parts, processes, sharded)
        for key, formula in (("state", state_bytes), ("traffic", traffic_bytes))
    )
    return {"state": round(state, 3), "traffic": round(traffic, 3)}


def _measure(rank: int, processes: int, sharded: bool, port: int, reports: Any) -> None:  # noqa: ANN401  a queue has no type
    """Train briefly in one process, and report its memory and traffic to the queue."""
    import torch
    from lightning import Callback, LightningModule, Trainer
    from torch.distributed.tensor import DTensor
    from torch.profiler import ProfilerActivity, profile

    from actionprior.motion_prior import MotionPriorModule
    from actionprior.networks.motion_prior import PriorArchitecture
    from actionprior.training.sharding import ShardedStrategy
    from bench.short_runs import ShortRun, SyntheticTrajectories, trainer

    class Count(Callback):
        """Count in the last of three steps."""

        def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
            if trainer.global_step == 2:
                self.profile = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
                self.profile.start()

        def on_before_optimizer_step(
            self, trainer: Trainer, module: LightningModule, *_: object
        ) -> None:
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            self.gradients = sum(held(g) for g in gradients)

        def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
            self.profile.stop()
            moments = [
                m for s in trainer.optimizers[0].state.values() for m in s.values() if m.dim()
            ]
            weights = list(module.parameters())
            state = sum(held(t) for t in (*weights, *moments)) + self.gradients
            sent = _sent(self.profile, processes, sharded)
            count = sum(p.numel() for p in weights)
            reports.put({"state": state, "traffic": sent, "parameters": count})

    def held(tensor: torch.Tensor) -> int:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        return local.numel() * local.element_size()

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    run = ShortRun(batch_size=8, steps=3, device="cpu", precision="32-true", warm=0)
    data = SyntheticTrajectories(batch_size=run.batch_size)
    module = MotionPriorModule(
        [robot.to_dict() for robot in data.embodiments], PriorArchitecture(width=96)
    )
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "devices": processes,
            "strategy": ShardedStrategy() if sharded else "ddp",
            "logger": False,
        }
        trainer(run, folder, [Count()], **options).fit(module, data)


def _sent(profile: Any, processes: int, sharded: bool) -> float:  # noqa: ANN401  torch's has no type
    """Return the bytes that this process sent in collectives, by the traffic of a ring."""
    times = {"c10d::_allgather_base_": 1, "c10d::_reduce_scatter_base_": 1}
    if not sharded:  # torch's own event of an all-reduce does not report the tensors' shapes
        times = {"gloo:all_reduce": 2}
    sent = 0.0
    for event in profile.events():
        if event.name in times:
            elements = max((math.prod(shape) for shape in event.input_shapes if shape), default=1)
            sent += times[event.name] * (processes - 1) / processes * elements * BYTES
    return sent
