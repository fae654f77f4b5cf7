"""Detect training steps to skip: losses that are NaN, infinite or far above earlier ones."""

from collections import deque
from typing import Any

import torch
from torch import Tensor

from actionprior.errors import UserError

WINDOW = 100  # losses in the running median
LEAST = 20  # losses before a spike can be detected


class BadSteps:
    """Mark bad losses so that every rank skips the same step, and count the skipped steps.

    A mark multiplies the loss. A mark of 1 keeps the loss and its gradient bit for bit. A mark of
    NaN makes the gradient NaN, which the all-reduce carries to every rank. Marking never waits for
    the device.

    Args:
        limit: Number of consecutive bad steps that are skipped; one more ends the run.
        spike_factor: A loss above this multiple of the running median of this rank's losses is
            bad, too; 0 turns this off.

    Raises:
        UserError: a negative limit, or a factor that is neither 0 nor above 1.
    """

    def __init__(self, limit: int, spike_factor: float) -> None:
        if limit < 0:
            raise UserError(f"skip_bad_steps is {limit}, expected at least 0")
        if spike_factor != 0 and not spike_factor > 1:
            raise UserError(f"spike_factor is {spike_factor}; expected 0 (off) or above 1")
        self.limit = limit
        self.spike_factor = spike_factor
        self.skipped = 0
        self.in_a_row = 0
        self._recent: deque[Tensor] = deque(maxlen=WINDOW)

    def mark(self, loss: Tensor) -> Tensor:
        """Return 1 for a good loss () and NaN for a bad one."""
        loss = loss.detach().float()
        bad = ~torch.isfinite(loss)
        if self.spike_factor > 0:
            if len(self._recent) >= LEAST:
                median = torch.stack([old.to(loss.device) for old in self._recent]).nanmedian()
                bad = bad | (loss > self.spike_factor * median)
            self._recent.append(torch.where(bad, torch.nan, loss))
        return torch.where(bad, torch.nan, 1.0)

    def record(self, bad: bool) -> bool:
        """Record a step. Return True once the limit of consecutive bad steps is exceeded."""
        self.in_a_row = self.in_a_row + 1 if bad else 0
        exceeded = self.in_a_row > self.limit
        self.skipped += int(bad and not exceeded)
        return exceeded

    def state_dict(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
        recent = torch.tensor([float(loss) for loss in self._recent])
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "recent": recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint; every rank gets the losses of the rank that saved it."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]
        self._recent = deque(state["recent"], maxlen=WINDOW)
