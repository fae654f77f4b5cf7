"""Learning rate over a run, also over a run that is resumed with other settings.

A checkpoint's optimiser and scheduler hold the rates and decays of the run that saved them. A
resumed run takes these from its own recipe instead, and says what differs.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Self

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from actionprior.training.settings import OptimizerSettings, WhenExtended

RATE, DECAY = "initial_lr", "weight_decay"


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a cosine to the final rate, which holds from there on.

    Attributes:
        start: Step at which the warm-up begins.
        stop: Step at which the cosine ends.
        length: Steps of the run.
    """

    start: int
    stop: int
    length: int

    @classmethod
    def of_run(cls, length: int) -> Self:
        """Return the schedule of a run that starts from scratch."""
        return cls(0, length, length)

    def resumed(self, step: int, length: int, when_extended: WhenExtended) -> Self:
        """Return the schedule after a resume, the same one if the run's length is the same.

        Args:
            step: Step of the checkpoint.
            length: Steps of the resumed run.
            when_extended: What happens if the length is another.
        """
        if length == self.length:
            return self
        if when_extended == "constant":
            return replace(self, length=length)
        if when_extended == "restart":
            return replace(self, start=step, stop=length, length=length)
        return replace(self, stop=length, length=length)

    def rate(self, step: int, learning_rate: float, settings: OptimizerSettings) -> float:
        """Return the factor on the learning rate at a step.

        Args:
            step: Step of the run.
            learning_rate: Peak rate.
            settings: Warm-up and final rate.
        """
        step -= self.start
        if step < settings.warmup_steps:
            return (step + 1) / settings.warmup_steps
        decayed = max(1, self.stop - self.start - settings.warmup_steps)
        progress = (step - settings.warmup_steps) / decayed
        final = settings.final_learning_rate / learning_rate
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def fade(self, step: int, share: float) -> float:
        """Return a weight that falls linearly from 1 at the start to 0 after a share of the run."""
        horizon = share * float(self.stop - self.start)
        return max(0.0, 1.0 - (step - self.start) / horizon) if horizon > 0 else 0.0

    def state_dict(self) -> dict[str, int]:
        """Return plain data for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: object) -> Self | None:
        """Return a checkpoint's schedule; None for an older checkpoint, which records none."""
        keys = ("start", "stop", "length")
        if isinstance(state, Mapping) and all(type(state.get(key)) is int for key in keys):
            return cls(**{key: state[key] for key in keys})
        return None


def rates_and_decays(optimizer: Optimizer) -> list[tuple[float, float]]:
    """Return the peak rate and the weight decay of each group of an optimiser."""
    return [(float(g.get(RATE, g["lr"])), float(g[DECAY])) for g in optimizer.param_groups]


def apply_recipe(
    optimizer: Optimizer, scheduler: LambdaLR, wanted: list[tuple[float, float]]
) -> list[str]:
    """Replace the rates and decays of a restored optimiser by the recipe's.

    Args:
        optimizer: Optimiser, as a checkpoint restored it.
        scheduler: Its schedule, restored too.
        wanted: Peak rate and decay of each group, as the recipe says.

    Returns:
        What differed, as ``name, value of the recipe, value of the checkpoint``.
    """
    found = rates_and_decays(optimizer)
    for group, (rate, decay) in zip(optimizer.param_groups, wanted, strict=True):
        group[RATE], group[DECAY] = rate, decay
    scheduler.base_lrs = [rate for rate, _ in wanted]
    factors = [law(scheduler.last_epoch) for law in scheduler.lr_lambdas]
    for group, (rate, _), factor in zip(optimizer.param_groups, wanted, factors, strict=True):
        group["lr"] = rate * factor
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
    return [
        f"{name} is {max(new):g} in the recipe and was {max(saved):g} in the checkpoint"
        for name, new, saved in (
            ("learning_rate", *_columns(wanted, found, 0)),
            ("optimizer.weight_decay", *_columns(wanted, found, 1)),
        )
        if new != saved
    ]


def _columns(
    wanted: list[tuple[float, float]], found: list[tuple[float, float]], column: int
) -> tuple[list[float], list[float]]:
    return [group[column] for group in wanted], [group[column] for group in found]


def resume_lines(
    schedule: Schedule,
    recorded: Schedule | None,
    differences: list[str],
    rate: float,
    before: float,
) -> list[str]:
    """Return what a resumed run says about its learning rate; nothing if all is the same.

    Args:
        schedule: Schedule of the resumed run.
        recorded: Schedule of the checkpoint; None if it is not known.
        differences: What differs in the recipe, see ``apply_recipe``.
        rate: Rate of the next step.
        before: Rate that the checkpoint would have used next.
    """
    lines = [f"{difference}; the recipe's holds" for difference in differences]
    if recorded is not None and schedule.length != recorded.length:
        lines.append(
            f"the run has {schedule.length} steps in the recipe and had {recorded.length} in the "
            f"checkpoint; the learning rate continues with {rate:.3g} after {before:.3g} "
            "(model.optimizer.when_extended: stretch continues the cosine over the new length, "
            "constant keeps the final rate, restart warms up again)"
        )
    return lines
