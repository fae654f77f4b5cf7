"""State of one episode during a rollout."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from actionprior.chunk_planner import Memory
from actionprior.embodiment import Embodiment, FloatArray
from actionprior.embodiment.guard import Guard
from actionprior.rollout.results import EpisodeResult, Frame, jerk


@dataclass
class RunningEpisode(Memory):
    """An episode that is still running.

    Attributes:
        guard: Guard that counts what was never recorded; None: there is none.
        success: Success that the environment's info reported at the last step, or None.
        total_reward: Sum of rewards so far.
        clipped: Number of action entries that were outside of the action space's bounds.
        queue: Planned actions (n_a,) that are not executed yet.
        latencies_s: Wall time of each planning call [s].
        frames: Filmed images (Y, X, 3).
    """

    guard: Guard | None = None
    success: bool | None = None
    total_reward: float = 0.0
    clipped: int = 0
    queue: deque[FloatArray] = field(default_factory=deque)
    latencies_s: list[float] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)

    def result(self, embodiment: Embodiment) -> EpisodeResult:
        """Summarise the finished episode."""
        action_TA = np.stack([pair.action for pair in self.pairs])
        return EpisodeResult(
            seed=self.seed,
            instruction=self.instruction,
            success=bool(self.success),
            episode_return=self.total_reward,
            length=len(self.pairs),
            jerk=jerk(action_TA, embodiment),
            clipped_share=self.clipped / action_TA.size,
            latencies_s=self.latencies_s,
            guard_counts=self.guard.counts if self.guard and self.guard.compares else None,
            state_Ts=np.stack([pair.state for pair in self.pairs]),
            frames=self.frames,
        )
