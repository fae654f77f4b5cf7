"""Which training steps are not to be taken: NaN, infinite or far above the losses before."""

from collections import deque
from typing import Any

import torch
from torch import Tensor

from actionprior.errors import UserError

WINDOW = 100  # losses of which the running median is taken
LEAST = 20  # of them, before a loss can be called a spike


class BadSteps:
    """Marks bad losses so that every rank drops the same step, and counts the steps dropped.

    A mark multiplies the loss: 1 leaves it and its gradient bit for bit, NaN makes the gradient
    NaN, which the all-reduce carries to all ranks. Nothing waits for the device.

    Args:
        bound: bad steps in a row that are skipped; the next one is not.
        spike_factor: a loss above this many running medians of this rank's last losses is bad,
            too; 0: none is.

    Raises:
        UserError: a negative bound, or a factor that is neither 0 nor above 1.
    """

    def __init__(self, bound: int, spike_factor: float) -> None:
        if bound < 0:
            raise UserError(f"skip_bad_steps is {bound}, expected at least 0")
        if spike_factor != 0 and not spike_factor > 1:
            raise UserError(f"spike_factor is {spike_factor}; expected 0 (off) or above 1")
        self.bound = bound
        self.spike_factor = spike_factor
        self.skipped = 0
        self.in_a_row = 0
        self._recent: deque[Tensor] = deque(maxlen=WINDOW)

    def mark(self, loss: Tensor) -> Tensor:
        """1 for a loss () that may be learnt from, else NaN."""
        loss = loss.detach().float()
        bad = ~torch.isfinite(loss)
        if self.spike_factor > 0:
            if len(self._recent) >= LEAST:
                median = torch.stack([old.to(loss.device) for old in self._recent]).nanmedian()
                bad = bad | (loss > self.spike_factor * median)
            self._recent.append(torch.where(bad, torch.nan, loss))
        return torch.where(bad, torch.nan, 1.0)

    def count(self, bad: bool) -> bool:
        """Count a step; whether it is one bad step in a row too many."""
        self.in_a_row = self.in_a_row + 1 if bad else 0
        exceeded = self.in_a_row > self.bound
        self.skipped += int(bad and not exceeded)
        return exceeded

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        recent = torch.tensor([float(loss) for loss in self._recent])
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "recent": recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting there; the losses of the rank that saved stand for every rank's."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]
        self._recent = deque(state["recent"], maxlen=WINDOW)
