"""An episode of a rollout while it runs."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from actionprior.chunk_planner import Memory
from actionprior.embodiment import Embodiment, FloatArray
from actionprior.rollout.results import EpisodeResult, Frame, jerk


@dataclass
class RunningEpisode(Memory):
    """One episode under way.

    Attributes:
        queue: robot actions (n_a,) still to be executed.
    """

    success: bool | None = None
    total_reward: float = 0.0
    clipped: int = 0
    queue: deque[FloatArray] = field(default_factory=deque)
    latencies_s: list[float] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)

    def result(self, embodiment: Embodiment) -> EpisodeResult:
        """The finished episode's result."""
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
            state_Ts=np.stack([pair.state for pair in self.pairs]),
            frames=self.frames,
        )
