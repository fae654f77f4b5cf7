"""Trajectories in memory, and windows gathered from them.

Windows never cross an episode's edge: what lies past it repeats the nearest frame and is
masked. Everything is one vectorised gather a batch; no Python loop over samples.

Axes: N frames of all datasets, B batch, H chunk or history steps, A = 37 action slots,
S = 74 state slots, E episodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from actionprior.batch import TrajectoryBatch
from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH, Embodiment, FloatArray

HELD = 0.02
"""Least travel that a group is judged by, relative to that of the robot's widest group."""

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recording:
    """Episodes of one robot, one after the other, in the robot's own vectors and units.

    Attributes:
        action_Na: float32 (N, n_a), in the order of ``Embodiment.action_features``.
        state_Ns: float32 (N, n_s), in the order of ``Embodiment.state_features``; row t is the
            state from which action t was commanded.
        lengths_E: int64 (E,), frames of each episode; they add up to N.
    """

    action_Na: FloatArray
    state_Ns: FloatArray
    lengths_E: IntArray

    def __post_init__(self) -> None:
        frames = int(self.lengths_E.sum())
        if len(self.action_Na) != frames or len(self.state_Ns) != frames:
            raise ValueError(
                f"a recording has {len(self.action_Na)} actions and {len(self.state_Ns)} states, "
                f"but its episodes add up to {frames} frames"
            )
        if len(self.lengths_E) == 0 or self.lengths_E.min() < 1:
            raise ValueError("a recording needs at least one episode, each of at least one frame")


class TrajectoryStore:
    """All frames of a run in the unified spaces, behind one flat frame index.

    Args:
        embodiments: the run's robots; the order defines ``embodiment_B``.
        recordings: pairs (index of its embodiment, recording), concatenated in this order.

    Attributes:
        action_NA, state_NS, reference_NA: float32 (N, 37), (N, 74), (N, 37).
        start_N, stop_N: int64 (N,), first frame of a frame's episode, and one past its last.
        embodiment_N: int64 (N,).
    """

    def __init__(
        self, embodiments: Sequence[Embodiment], recordings: Sequence[tuple[int, Recording]]
    ) -> None:
        lengths_E = np.concatenate([r.lengths_E for _, r in recordings])
        ends_E = np.cumsum(lengths_E)
        frames = int(ends_E[-1])
        self.embodiments = list(embodiments)
        self.start_N = torch.from_numpy(np.repeat(ends_E - lengths_E, lengths_E))
        self.stop_N = torch.from_numpy(np.repeat(ends_E, lengths_E))
        self.action_NA = torch.zeros(frames, ACTION_WIDTH)
        self.state_NS = torch.zeros(frames, STATE_WIDTH)
        self.reference_NA = torch.zeros(frames, ACTION_WIDTH)
        self.embodiment_N = torch.zeros(frames, dtype=torch.int64)
        first = 0
        for index, recording in recordings:
            robot = self.embodiments[index]
            rows = slice(first, first + len(recording.action_Na))
            self.action_NA[rows] = torch.from_numpy(robot.action_to_unified(recording.action_Na))
            self.state_NS[rows] = torch.from_numpy(robot.state_to_unified(recording.state_Ns))
            self.reference_NA[rows] = torch.from_numpy(robot.reference(recording.state_Ns))
            self.embodiment_N[rows] = index
            first = rows.stop

    def __len__(self) -> int:
        return len(self.start_N)

    def future(self, frames_B: Tensor, length: int) -> TrajectoryBatch:
        """Windows t, …, t + length - 1; steps past the episode repeat its last frame, masked."""
        at_BH = frames_B[:, None] + torch.arange(length)
        stop_B1 = self.stop_N[frames_B][:, None]
        return self._gather(frames_B, at_BH.minimum(stop_B1 - 1), at_BH < stop_B1, frames_B)

    def history(self, frames_B: Tensor, length: int) -> TrajectoryBatch:
        """The past up to ``length`` steps …, t - 1, oldest first from position 0, padding last.

        At an episode's first frame the history is empty: fully masked, any finite values.
        """
        first_B = torch.maximum(frames_B - length, self.start_N[frames_B])
        at_BH = first_B[:, None] + torch.arange(length)
        mask_BH = at_BH < frames_B[:, None]
        last_B1 = torch.maximum(frames_B - 1, first_B)[:, None]
        return self._gather(frames_B, at_BH.minimum(last_B1), mask_BH, first_B)

    def _gather(
        self, frames_B: Tensor, at_BH: Tensor, mask_BH: Tensor, reference_B: Tensor
    ) -> TrajectoryBatch:
        flat = at_BH.reshape(-1)
        shape = (*at_BH.shape, -1)
        return TrajectoryBatch(
            action_BHA=self.action_NA.index_select(0, flat).view(shape),
            state_BHS=self.state_NS.index_select(0, flat).view(shape),
            reference_BA=self.reference_NA.index_select(0, reference_B),
            step_mask_BH=mask_BH,
            embodiment_B=self.embodiment_N.index_select(0, frames_B),
        )


class TrajectoryWindows(Dataset[TrajectoryBatch]):
    """Chunks of a store, a whole batch at a time: ``windows.__getitems__([3, 7])``.

    Args:
        store: the frames; a window is named by its first one.
        length: steps H of a chunk.
        shuffle_seed: with a seed, the steps inside each chunk are permuted in time (states with
            their actions, padding stays last): the control prior that knows poses but no motion.
            The permutation depends on seed and frame alone. What is permuted is the form that
            actions are learnt in (deltas: their running sum, else a shuffled chunk would still
            go where the true one goes), against the reference of the chunk's first state.
    """

    def __init__(
        self, store: TrajectoryStore, length: int, shuffle_seed: int | None = None
    ) -> None:
        self.store = store
        self.length = length
        self.shuffle_seed = shuffle_seed
        self.delta_mask_EA = torch.from_numpy(np.stack([e.delta_mask() for e in store.embodiments]))

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, frame: int) -> TrajectoryBatch:
        return self.__getitems__([frame])

    def __getitems__(self, frames: Sequence[int]) -> TrajectoryBatch:
        """The finished batch of the windows that start at ``frames``."""
        frames_B = torch.as_tensor(frames, dtype=torch.int64)
        batch = self.store.future(frames_B, self.length)
        if self.shuffle_seed is None:
            return batch
        delta_BA = self.delta_mask_EA[batch.embodiment_B]
        return _shuffle(batch, frames_B, delta_BA, self.shuffle_seed)


def split_episodes(count: int, val_fraction: float, rng: np.random.Generator) -> IntArray:
    """Which of ``count`` episodes are for validation, sorted.

    At least one where there are two or more and ``val_fraction`` > 0, and never all of them.
    """
    if count < 2 or val_fraction <= 0:
        return np.empty(0, dtype=np.int64)
    chosen = min(max(1, round(val_fraction * count)), count - 1)
    return np.sort(rng.permutation(count)[:chosen])


def moving(store: TrajectoryStore, frames_N: Tensor, length: int, threshold: float) -> Tensor:
    """Which windows move: bool, one for each of ``frames_N``.

    A window moves if over its steps some action (deltas: their running sum) or some state
    travels more than ``threshold`` times what its group's widest entry travels in the robot's
    1-in-100 windows. The group's scale keeps the noise of a held joint from counting as motion,
    and ``HELD`` that of a group that is held throughout.
    """
    result = torch.ones(len(frames_N), dtype=torch.bool)
    for index, robot in enumerate(store.embodiments):
        rows = (store.embodiment_N[frames_N] == index).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        travel = torch.cat(
            [_travel(store, robot, f, length) for f in torch.split(frames_N[rows], 8192)]
        )
        slots = [robot.action_slots(a) for a in robot.action]
        slots += [
            slice(ACTION_WIDTH + s.start, ACTION_WIDTH + s.stop)
            for s in map(robot.state_slots, robot.state)
        ]
        result[rows] = False
        tops = [float(np.quantile(travel[:, group].numpy(), 0.99, axis=0).max()) for group in slots]
        for group, top in zip(slots, tops, strict=True):
            scale = max(top, HELD * max(tops))
            result[rows] |= (travel[:, group] > threshold * scale).any(dim=1)
    return result


def _travel(store: TrajectoryStore, robot: Embodiment, frames_B: Tensor, length: int) -> Tensor:
    """Peak-to-peak over the chunk of actions and states, (B, 37 + 74)."""
    batch = store.future(frames_B, length)
    deltas = batch.action_BHA * torch.from_numpy(robot.delta_mask())
    # The last frame is repeated past the end: no travel for positions; sums need the mask.
    sums_BHA = (deltas * batch.step_mask_BH[..., None]).cumsum(1)
    values = torch.cat([batch.action_BHA - deltas + sums_BHA, batch.state_BHS], dim=-1)
    spread = values.amax(1) - values.amin(1)
    spread[:, :ACTION_WIDTH] = spread[:, :ACTION_WIDTH].maximum(sums_BHA.abs().amax(1))
    return spread


def _shuffle(
    batch: TrajectoryBatch, frames_B: Tensor, delta_BA: Tensor, seed: int
) -> TrajectoryBatch:
    length = batch.step_mask_BH.shape[1]
    counter = frames_B.numpy()[:, None].astype(np.uint64) * np.uint64(length)
    keys = _hash(counter + np.arange(length, dtype=np.uint64), seed) >> np.uint64(2)
    keys_BH = torch.from_numpy(keys.astype(np.int64))
    keys_BH = keys_BH.masked_fill(~batch.step_mask_BH, torch.iinfo(torch.int64).max)
    order_BH = keys_BH.argsort(dim=1)
    rows_B1 = torch.arange(len(frames_B))[:, None]
    action_BHA = batch.action_BHA[rows_B1, order_BH]
    summed_BHA = batch.action_BHA.cumsum(1)[rows_B1, order_BH]
    steps_BHA = summed_BHA.diff(dim=1, prepend=torch.zeros_like(summed_BHA[:, :1]))
    return batch._replace(
        action_BHA=torch.where(delta_BA[:, None], steps_BHA, action_BHA),
        state_BHS=batch.state_BHS[rows_B1, order_BH],
    )


def _hash(counter: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """SplitMix64 of (counter, seed): random numbers without a state to carry along."""
    offset = np.uint64(seed * 0xD1B54A32D192ED03 % 2**64)
    x = (counter + offset) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
