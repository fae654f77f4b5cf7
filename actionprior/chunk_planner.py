"""From what a robot senses to chunks of actions: what a policy is shown, remembers, and answers.

Rollouts, the server and ``actionprior.Policy`` all plan through here, so that the same
observations and seed give the same actions in each.

Axes: B batch, H chunk or history steps, A = 37 action slots, S = 74 state slots, C cameras,
Y rows, X columns. Histories are laid out as in training: oldest pair at position 0, padding last.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from actionprior.batch import Committed, Observation, TrajectoryBatch
from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH, Embodiment, FloatArray
from actionprior.errors import UserError

Images = npt.NDArray[np.uint8]
# With no camera the batch holds no pixel at all; a real size lets convolutions pass it through.
_NO_CAMERA = (0, 64, 64, 3)


class PolicyError(UserError):
    """A policy cannot act on what it was given; the message names the key or the robot."""


class ChunkPolicy(Protocol):
    """A policy that answers an observation with a chunk of actions."""

    @property
    def embodiments(self) -> list[Embodiment]:
        """The robots that it knows; ``Observation.embodiment_B`` indexes them."""

    @property
    def chunk_length(self) -> int:
        """Steps H of a chunk."""

    @property
    def history_length(self) -> int:
        """Past (state, action) pairs H_h that it looks at."""

    def predict_chunk(
        self, observation: Observation, noise_BHA: Tensor, committed: Committed | None = None
    ) -> Tensor:
        """Actions (B, H, 37) in the robots' own units, integrated from the given flow noise.

        With ``committed``, the first actions are those; only asked for with a delay.
        """


class ExecutedStep(NamedTuple):
    """A state and the action that was executed from it, in the robot's own order and units."""

    state: FloatArray  # (n_s,)
    action: FloatArray  # (n_a,)


@dataclass
class Memory:
    """What a policy remembers of an episode.

    Attributes:
        seed: with ``plans`` it fixes the flow noise.
        history_length: how many past pairs the policy is shown.
        plans: plans made so far.
        pairs: all (state, action) executed so far.
    """

    seed: int
    history_length: int
    instruction: str = ""
    plans: int = 0
    pairs: list[ExecutedStep] = field(default_factory=list)

    @property
    def history(self) -> list[ExecutedStep]:
        """The last H_h pairs, oldest first; fewer at the episode's start."""
        return self.pairs[max(0, len(self.pairs) - self.history_length) :]

    def flow_noise(self, chunk_length: int) -> Tensor:
        """(H, 37) standard normal, a function of the seed and the number of the plan alone."""
        words = np.random.SeedSequence([self.seed, self.plans]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0]) >> 1)
        return torch.randn(chunk_length, ACTION_WIDTH, generator=generator, dtype=torch.float32)


class ChunkRequest(NamedTuple):
    """What a policy is asked for B chunks: taken at once, answered when there is time."""

    observation: Observation
    noise_BHA: Tensor
    committed: Committed | None


class Planner:
    """Asks a policy for chunks of one of its robots.

    Args:
        policy: what is asked.
        embodiment: name of the robot; empty: the only one.
        device: where the policy wants its observations.

    Raises:
        PolicyError: the policy does not know the robot, or knows several and none is named.
    """

    def __init__(
        self, policy: ChunkPolicy, embodiment: str = "", device: torch.device | str = "cpu"
    ) -> None:
        names = [robot.name for robot in policy.embodiments]
        if not embodiment and len(names) > 1:
            raise PolicyError(f"the policy knows several robots, {names}; name one as embodiment")
        if embodiment and embodiment not in names:
            raise PolicyError(f"the policy knows no embodiment {embodiment!r}; it knows {names}")
        self.policy = policy
        self.index = names.index(embodiment) if embodiment else 0
        self.robot = policy.embodiments[self.index]
        self.device = device

    def request(
        self,
        memories: Sequence[Memory],
        states: FloatArray,
        images: Images | None,
        committed: Sequence[FloatArray] | None = None,
    ) -> ChunkRequest:
        """What the policy is to answer for B episodes; each counts one plan more.

        Args:
            memories: of the episodes.
            states: (B, n_s) current states in the robot's order and units.
            images: (B, C, Y, X, 3), or None for a robot without cameras.
            committed: B arrays (d, n_a): actions that are under way already, from now on.
        """
        length = self.policy.chunk_length
        noise_BHA = torch.stack([memory.flow_noise(length) for memory in memories])
        for memory in memories:
            memory.plans += 1
        under_way = None
        if committed is not None:
            action_BHA = np.zeros((len(memories), length, ACTION_WIDTH), dtype=np.float32)
            for row, actions in enumerate(committed):
                action_BHA[row, : len(actions)] = self.robot.action_to_unified(actions)
            steps_B = torch.tensor([len(actions) for actions in committed])
            under_way = Committed(
                torch.from_numpy(action_BHA).to(self.device), steps_B.to(self.device)
            )
        seen = observe(memories, states, images, self.robot, self.index, self.device)
        return ChunkRequest(seen, noise_BHA.to(self.device), under_way)

    def predict(self, request: ChunkRequest) -> FloatArray:
        """Actions (B, H, n_a) in the robot's order and units.

        Raises:
            PolicyError: the chunk has another shape.
        """
        seen, noise_BHA, committed = request
        with torch.no_grad():
            if committed is None:  # no more than this is asked of a policy that is not held up
                chunk = self.policy.predict_chunk(seen, noise_BHA)
            else:
                chunk = self.policy.predict_chunk(seen, noise_BHA, committed)
        chunk_BHA = chunk.float().cpu().numpy()  # waits for the device
        expected = tuple(noise_BHA.shape)
        if chunk_BHA.shape != expected:
            raise PolicyError(
                f"the policy returned a chunk of shape {chunk_BHA.shape}, expected {expected}"
            )
        return self.robot.action_from_unified(chunk_BHA)


def require_finite(actions: FloatArray, robot: Embodiment, what: str) -> None:
    """Refuse actions (..., n_a) that no robot may be told.

    Raises:
        PolicyError: naming ``what`` they are, and the features that are NaN or infinite.
    """
    fine = np.isfinite(actions)
    if not fine.all():
        bad = sorted(set(np.nonzero(~fine)[-1].tolist()))
        names = [robot.action_features[k] for k in bad]
        raise PolicyError(f"{what} is not finite at {', '.join(names)}")


def check_execution(execute_steps: int, delay_steps: int, chunk_length: int) -> None:
    """Refuse a way to execute chunks that no chunk is long enough for.

    Raises:
        PolicyError: naming what was found and expected.
    """
    if execute_steps < 1 or execute_steps + delay_steps > chunk_length:
        raise PolicyError(
            f"execute_steps is {execute_steps}, expected 1 to the chunk length {chunk_length}"
            + (f" less delay_steps {delay_steps}" if delay_steps else "")
        )
    if not 0 <= delay_steps <= execute_steps:
        raise PolicyError(
            f"delay_steps is {delay_steps}, expected 0 to execute_steps {execute_steps}"
        )


def observe(
    memories: Sequence[Memory],
    states: FloatArray,
    images: Images | None,
    embodiment: Embodiment,
    index: int,
    device: torch.device | str,
) -> Observation:
    """The policy's input for episodes of one robot.

    Args:
        memories: of B episodes, all with the same history length.
        states: (B, n_s) current states in ``embodiment.state_features`` order.
        images: (B, C, Y, X, 3) uint8, or None for a robot without cameras.
        embodiment: the robot.
        index: its place among the policy's embodiments.
        device: where the tensors go.
    """
    count = len(memories)
    if images is None:
        images = np.zeros((count, *_NO_CAMERA), dtype=np.uint8)
    embodiment_B = torch.full((count,), index, dtype=torch.int64, device=device)
    return Observation(
        images_BCKYX=torch.from_numpy(images).to(device).movedim(-1, 2).contiguous(),
        camera_mask_BC=torch.ones(images.shape[:2], dtype=torch.bool, device=device),
        task=[memory.instruction for memory in memories],
        state_BS=torch.from_numpy(embodiment.state_to_unified(states)).to(device),
        reference_BA=torch.from_numpy(embodiment.reference(states)).to(device),
        history=_history(memories, embodiment, embodiment_B, device),
        embodiment_B=embodiment_B,
    )


def _history(
    memories: Sequence[Memory],
    embodiment: Embodiment,
    embodiment_B: Tensor,
    device: torch.device | str,
) -> TrajectoryBatch:
    shape = (len(memories), memories[0].history_length)
    action_BHA = np.zeros((*shape, ACTION_WIDTH), dtype=np.float32)
    state_BHS = np.zeros((*shape, STATE_WIDTH), dtype=np.float32)
    reference_BA = np.zeros((shape[0], ACTION_WIDTH), dtype=np.float32)
    step_mask_BH = np.zeros(shape, dtype=np.bool_)
    for row, memory in enumerate(memories):
        past = memory.history
        if not past:
            continue
        states = np.stack([pair.state for pair in past])
        actions = np.stack([pair.action for pair in past])
        state_BHS[row, : len(past)] = embodiment.state_to_unified(states)
        action_BHA[row, : len(past)] = embodiment.action_to_unified(actions)
        reference_BA[row] = embodiment.reference(states[0])
        step_mask_BH[row, : len(past)] = True
    return TrajectoryBatch(
        action_BHA=torch.from_numpy(action_BHA).to(device),
        state_BHS=torch.from_numpy(state_BHS).to(device),
        reference_BA=torch.from_numpy(reference_BA).to(device),
        step_mask_BH=torch.from_numpy(step_mask_BH).to(device),
        embodiment_B=embodiment_B,
    )
