"""Plan chunks of actions: build a policy's input, remember an episode, predict its next chunk.

Rollouts, the server and ``actionprior.Policy`` all plan through this module. The same observations
and seed therefore give the same actions in each.

Axes: B batch, H chunk or history steps, A = 37 action slots, S = 74 state slots, C cameras,
Y rows, X columns. Histories are laid out as in training: oldest step at position 0, padding last.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from actionprior.batch import Committed, Observation, TrajectoryBatch
from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH, Embodiment, FloatArray
from actionprior.embodiment.arrays import Images
from actionprior.embodiment.guard import Guard, GuardMode
from actionprior.embodiment.image_shape import ImageShape
from actionprior.embodiment.recorded_ranges import RecordedRanges
from actionprior.errors import PolicyError

# Without cameras the batch holds no pixels, but convolutions need rows and columns to accept it.
_NO_CAMERA = (0, 64, 64, 3)


class ChunkPolicy(Protocol):
    """Interface of a policy that predicts a chunk of actions from an observation."""

    @property
    def embodiments(self) -> list[Embodiment]:
        """Robots that the policy knows, indexed by ``Observation.embodiment_B``."""

    @property
    def chunk_length(self) -> int:
        """Steps H of a chunk."""

    @property
    def history_length(self) -> int:
        """Number H_h of past (state, action) pairs in an observation."""

    def predict_chunk(
        self, observation: Observation, noise_BHA: Tensor, committed: Committed | None = None
    ) -> Tensor:
        """Predict actions (B, H, 37) in the robots' own units by integrating the flow noise.

        With ``committed``, the chunk begins with these actions. Policies without real-time
        chunking need not accept ``committed``.
        """


class ExecutedStep(NamedTuple):
    """State and the action executed from it, in the robot's own order and units."""

    state: FloatArray  # (n_s,)
    action: FloatArray  # (n_a,)


@dataclass
class Memory:
    """Memory of one episode.

    Attributes:
        seed: Seed of the flow noise. Each plan draws its own noise from seed and ``plans``.
        history_length: Number of past pairs that the policy's input holds.
        instruction: Task of the episode in words.
        plans: Number of plans made so far.
        pairs: All executed (state, action) pairs, oldest first.
    """

    seed: int
    history_length: int
    instruction: str = ""
    plans: int = 0
    pairs: list[ExecutedStep] = field(default_factory=list)

    @property
    def history(self) -> list[ExecutedStep]:
        """Return the last H_h pairs, oldest first. There are fewer at the episode's start."""
        return self.pairs[max(0, len(self.pairs) - self.history_length) :]

    @property
    def last_action(self) -> FloatArray | None:
        """Return the action that was executed last; None at the episode's start."""
        return self.pairs[-1].action if self.pairs else None

    def flow_noise(self, chunk_length: int) -> Tensor:
        """Draw standard normal noise (H, 37) from the seed and the number of the plan."""
        words = np.random.SeedSequence([self.seed, self.plans]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0]) >> 1)
        return torch.randn(chunk_length, ACTION_WIDTH, generator=generator, dtype=torch.float32)


class ChunkRequest(NamedTuple):
    """A policy's input for B chunks, complete before the (slow) prediction starts."""

    observation: Observation
    noise_BHA: Tensor
    committed: Committed | None


class Planner:
    """Predict chunks for one robot with a policy.

    Args:
        policy: Policy that predicts the chunks.
        embodiment: Name of the robot. May be empty if the policy knows only one.
        device: Device on which the policy expects its input.

    Attributes:
        image_shape: The policy's attribute ``image_shape``: the size to which callers bring images
            (see ``PolicyNetwork``). None if the policy has none.
        ranges: What the training data held of the robot, from the policy's attribute
            ``recorded_ranges``. None if it is not known.

    Raises:
        PolicyError: The policy does not know the robot, or knows several and none is named.
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
        self.image_shape: ImageShape | None = getattr(policy, "image_shape", None)
        known: dict[str, RecordedRanges] = getattr(policy, "recorded_ranges", {})
        self.ranges = known.get(self.robot.name)

    def guard(self, mode: GuardMode, margin: float) -> Guard:
        """Return the guard of the robot's states and actions, see ``Guard`` for its errors."""
        return Guard(self.robot, self.ranges, mode, margin)

    def request(
        self,
        memories: Sequence[Memory],
        states: FloatArray,
        images: Images | None,
        committed: Sequence[FloatArray] | None = None,
    ) -> ChunkRequest:
        """Build the policy's input for B episodes and increase their count of plans.

        Args:
            memories: Memories of the episodes.
            states: Current states (B, n_s) in the robot's order and units.
            images: Images (B, C, Y, X, 3), or None for a robot without cameras.
            committed: B arrays (d, n_a) of actions that are already being executed, from now on.
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
        observation = observe(memories, states, images, self.robot, self.index, self.device)
        return ChunkRequest(observation, noise_BHA.to(self.device), under_way)

    def predict(self, request: ChunkRequest) -> FloatArray:
        """Predict actions (B, H, n_a) in the robot's order and units.

        Raises:
            PolicyError: The policy returned a chunk of another shape.
        """
        observation, noise_BHA, committed = request
        with torch.no_grad():
            if committed is None:  # policies without real-time chunking need not accept it
                chunk = self.policy.predict_chunk(observation, noise_BHA)
            else:
                chunk = self.policy.predict_chunk(observation, noise_BHA, committed)
        chunk_BHA = chunk.float().cpu().numpy()  # waits for the device
        expected = tuple(noise_BHA.shape)
        if chunk_BHA.shape != expected:
            raise PolicyError(
                f"the policy returned a chunk of shape {chunk_BHA.shape}, expected {expected}"
            )
        return self.robot.action_from_unified(chunk_BHA)


def require_finite(actions: FloatArray, robot: Embodiment, what: str) -> None:
    """Reject actions (..., n_a) that are not finite, so that none reaches a robot.

    Raises:
        PolicyError: An action is NaN or infinite. The message names ``what`` and the features.
    """
    fine = np.isfinite(actions)
    if not fine.all():
        bad = sorted(set(np.nonzero(~fine)[-1].tolist()))
        names = [robot.action_features[k] for k in bad]
        raise PolicyError(f"{what} is not finite at {', '.join(names)}")


def check_execution(execute_steps: int, delay_steps: int, chunk_length: int) -> None:
    """Check that chunks are long enough for a way to execute them.

    Raises:
        PolicyError: The steps do not fit the chunk.
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
    """Build the policy's input for B episodes of one robot.

    Args:
        memories: Memories of the episodes, all with the same history length.
        states: Current states (B, n_s) in ``embodiment.state_features`` order.
        images: Images (B, C, Y, X, 3), uint8, or None for a robot without cameras.
        embodiment: Robot of the episodes.
        index: Index of the robot among the policy's embodiments.
        device: Device of the returned tensors.
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
