"""Stage 1 in plain PyTorch, which ``python -m bench.train`` compares with Lightning."""

from collections.abc import Iterator
from itertools import count, islice
from typing import Any, cast

import torch

from actionprior.motion_prior import MotionPriorModule
from actionprior.networks.motion_prior import PriorArchitecture
from actionprior.training.flow_noise import FlowNoise
from actionprior.training.schedule import Schedule
from actionprior.training.settings import FlowSettings
from bench.short_runs import ShortRun, SyntheticTrajectories, now

SIGMA = 0.05


def prior_module(size: dict[str, Any], data: SyntheticTrajectories) -> MotionPriorModule:
    """Return a Stage-1 module of a size, with the same weights in every call."""
    torch.manual_seed(0)
    robots = [robot.to_dict() for robot in data.embodiments]
    return MotionPriorModule(
        robots, PriorArchitecture(**size), flow=FlowSettings(latent_noise=SIGMA)
    )


def bare_loop(
    module: MotionPriorModule, data: SyntheticTrajectories, run: ShortRun
) -> tuple[float, float]:
    """Train without Lightning. Return seconds per step and the last loss."""
    module.to(run.device).train()
    matrices = [p for p in module.parameters() if p.dim() > 1]
    others = [p for p in module.parameters() if p.dim() <= 1]
    mixed = run.precision == "bf16-mixed"
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        lr=module.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    module.schedule = Schedule.of_run(run.total)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, module.rate)
    batches, began, loss = _batches(data), 0.0, torch.zeros(())
    for step in range(run.total):
        if step == run.warm:
            began = now(run.device)
        for number, batch in islice(batches, run.accumulate):
            batch = type(batch)(*(t.to(run.device, non_blocking=True) for t in batch))
            with torch.autocast(run.device, torch.bfloat16, enabled=mixed):
                noise = FlowNoise(step, number, 0)
                z_BZ = module.prior.encode(batch)
                z_BZ = module.prior.perturb(z_BZ, noise.normal(*z_BZ.shape, like=z_BZ), SIGMA)
                r_B = noise.time(len(z_BZ), module.flow.time_law, like=z_BZ)
                start_BHA = noise.normal(*batch.action_BHA.shape, like=z_BZ)
                loss = module.prior.flow_loss(z_BZ, batch, start_BHA, r_B)
            cast(Any, loss / run.accumulate).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return (now(run.device) - began) / run.steps, float(loss.detach())


def _batches(data: SyntheticTrajectories) -> Iterator[tuple[int, Any]]:
    """Yield batches of one epoch after the other, with their number in the epoch."""
    loader = data.train_dataloader()
    for epoch in count():
        cast(Any, loader.batch_sampler).sampler.set_epoch(epoch)
        yield from enumerate(loader)
