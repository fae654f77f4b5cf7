"""Trajectories, in memory or memory-mapped, and windows gathered from them.

Windows never cross an episode's edge: steps past it repeat the nearest frame and are masked. A
batch is one vectorised gather, without a Python loop over samples.

Axes: N frames of all datasets, B batch, H chunk or history steps, A = 37 action slots,
S = 74 state slots, E episodes, R recordings.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from actionprior.batch import TrajectoryBatch
from actionprior.data.column_store import Column, consecutive
from actionprior.data.control_noise import ChunkNoise
from actionprior.data.frame_ranges import Stops
from actionprior.data.pseudo_random import IntArray, mix
from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH, Embodiment, FloatArray, SlotCopy
from actionprior.embodiment.relative_actions import RelativeActions

NOISE_SAMPLE = 4096
"""Number of evenly spaced windows per robot from which control noise gets its scale."""
IN_CACHE = 256
"""Windows that are filled at a time; of 15 steps they take 1.7 MB."""
HELD = 0.02
"""Smallest scale of a group's motion, as a share of the largest scale of the robot's groups."""


@dataclass(frozen=True)
class Recording:
    """Episodes of one robot, one after the other, in the robot's own vectors and units.

    Attributes:
        action_Na: float32 (N, n_a), actions in the order of ``Embodiment.action_features``.
        state_Ns: float32 (N, n_s), states in the order of ``Embodiment.state_features``; row t
            is the state from which action t was commanded.
        lengths_E: int64 (E,), number of frames of each episode; they add up to N.
        name: Name for reports, such as the dataset's folder.
    """

    action_Na: FloatArray | Column
    state_Ns: FloatArray | Column
    lengths_E: IntArray
    name: str = ""

    def __post_init__(self) -> None:
        frames = int(self.lengths_E.sum())
        if len(self.action_Na) != frames or len(self.state_Ns) != frames:
            raise ValueError(
                f"a recording has {len(self.action_Na)} actions and {len(self.state_Ns)} states, "
                f"but its episodes add up to {frames} frames"
            )
        if len(self.lengths_E) == 0 or self.lengths_E.min() < 1:
            raise ValueError("a recording needs at least one episode, each of at least one frame")
        for name in ("action_Na", "state_Ns"):  # frames are read as blocks of memory
            if isinstance(array := getattr(self, name), np.ndarray):
                object.__setattr__(self, name, np.ascontiguousarray(array))


class TrajectoryStore:
    """All frames of a run behind one flat frame index, in the robots' own vectors.

    A batch is written into the unified spaces when it is gathered. The recordings may be memory-
    mapped arrays, and memory does not grow with them.

    Args:
        embodiments: Robots of the run; the order defines ``embodiment_B``.
        recordings: Pairs (index of the embodiment, recording), concatenated in this order.
    """

    def __init__(
        self, embodiments: Sequence[Embodiment], recordings: Sequence[tuple[int, Recording]]
    ) -> None:
        self.embodiments = list(embodiments)
        self.recordings = [recording for _, recording in recordings]
        self.robot_R = np.array([index for index, _ in recordings], dtype=np.int64)
        self.stop_R = np.cumsum([len(r.action_Na) for r in self.recordings])
        self.stop_E = np.cumsum(np.concatenate([r.lengths_E for r in self.recordings]))
        self.start_E = np.concatenate([[0], self.stop_E[:-1]])
        self._episodes, self._recordings = Stops(self.stop_E), Stops(self.stop_R)

    def __len__(self) -> int:
        return int(self.stop_E[-1])

    def of_embodiment(self, index: int) -> list[range]:
        """List the frames of one robot, one range per recording."""
        starts = [0, *self.stop_R[:-1].tolist()]
        return [
            range(start, stop)
            for robot, start, stop in zip(self.robot_R, starts, self.stop_R.tolist(), strict=True)
            if robot == index
        ]

    def embodiment_of(self, frames_B: Tensor) -> Tensor:
        """Look up the robot of each frame, int64 (B,)."""
        return torch.from_numpy(self.robot_R[self._recordings.find(frames_B.numpy())])

    def states(self, frames_B: Tensor) -> Tensor:
        """Gather the unified state at each frame, (B, S)."""
        return self.future(frames_B, 1).state_BHS[:, 0]

    def future(self, frames_B: Tensor, length: int) -> TrajectoryBatch:
        """Gather windows t … t + length - 1; past the episode the last step repeats, masked."""
        return self.around(frames_B, 0, length).future

    def history(self, frames_B: Tensor, length: int) -> TrajectoryBatch:
        """Gather up to ``length`` past steps …, t - 1, oldest first from position 0, padding last.

        At an episode's first frame the history is empty: fully masked, with any finite values.
        """
        return self.around(frames_B, length, 1).history

    def around(self, frames_B: Tensor, past: int, length: int) -> "Around":
        """Read ``history`` of ``past`` steps and ``future`` of ``length`` ≥ 1 at once."""
        now_B = frames_B.numpy()
        before, after = _empty(len(now_B), past, length)
        episode_B, recording_B = self._episodes.find(now_B), self._recordings.find(now_B)
        seen_B = np.minimum(now_B - self.start_E[episode_B], past)
        left_B = np.minimum(self.stop_E[episode_B] - now_B, length)
        present = np.flatnonzero(np.bincount(recording_B)).tolist()
        if len(present) > 1:
            _fill(before, [])
            _fill(after, [])
        for r in present:
            rows = slice(None) if len(present) == 1 else np.nonzero(recording_B == r)[0]
            recording, robot = self.recordings[r], self.embodiments[self.robot_R[r]]
            here_B = now_B[rows] - (self.stop_R[r] - len(recording.action_Na))
            action_BHa, state_BHs = _read(
                recording, here_B, seen_B[rows], left_B[rows], past, length
            )
            for arrays, part in ((before, slice(0, past)), (after, slice(past, None))):
                copies = robot.action_copies(action_BHa[:, part], arrays.action_BHA)
                copies += robot.state_copies(state_BHs[:, part], arrays.state_BHS)
                if len(present) == 1:
                    _fill(arrays, copies)
                else:
                    for target, source in copies:
                        target[rows] = source
                if arrays.state_BHS.shape[1]:
                    arrays.reference_BA[rows] = robot.reference(state_BHs[:, part][:, 0])
        embodiment_B = torch.from_numpy(self.robot_R[recording_B])
        return Around(
            _batch(before, seen_B, embodiment_B), _batch(after, left_B, embodiment_B.clone())
        )


class Around(NamedTuple):
    """Windows on both sides of some frames.

    Attributes:
        history: Windows that end before the frames.
        future: Windows that start at the frames.
    """

    history: TrajectoryBatch
    future: TrajectoryBatch


class _Arrays(NamedTuple):
    """Arrays that a gather fills."""

    action_BHA: FloatArray
    state_BHS: FloatArray
    reference_BA: FloatArray


def _read(
    recording: Recording,
    here_B: IntArray,
    seen_B: IntArray,
    left_B: IntArray,
    past: int,
    ahead: int,
) -> list[FloatArray]:
    """Read actions (B, past + ahead, n_a) and states (B, past + ahead, n_s) around some frames.

    The steps before a frame come first, oldest first. On both sides the last step of the episode
    is repeated to fill the window; a side without any step is filled with any frame.

    Args:
        recording: Recording to read from.
        here_B: Row of each frame in the recording.
        seen_B: Number of the episode's steps before each frame, 0 to ``past``.
        left_B: Number of the episode's steps from each frame on, 1 to ``ahead``.
        past: Steps of a window before its frame.
        ahead: Steps of a window from its frame on.
    """
    count, wanted = len(recording.action_Na), past + ahead
    width = min(wanted, count)
    first_B = np.clip(here_B - past, 0, count - width)
    place_B = here_B - first_B  # row of the frame in the block that is read
    edge_B = place_B != past
    if width < wanted:
        edge_B[:] = True
    # Most windows lie within an episode, and the block is the window. The others are mended.
    mends = []
    for part, start_B, count_B in (
        (slice(0, past), place_B - seen_B, seen_B),
        (slice(past, wanted), place_B, left_B),
    ):
        steps = part.stop - part.start
        odd = np.flatnonzero((count_B < steps) | edge_B)
        last_I1 = np.maximum(count_B[odd] - 1, 0)[:, None]
        # Row numbers over all blocks: several times faster than indexing by block and row.
        row_IH = np.minimum(np.arange(steps), last_I1) + (odd * width + start_B[odd])[:, None]
        mends.append((part, odd, row_IH))
    found = []
    for column in (recording.action_Na, recording.state_Ns):
        runs = (
            column.runs(first_B, width)
            if isinstance(column, Column)
            else consecutive(column, first_B, width)
        )
        rows = runs.reshape(runs.shape[0] * runs.shape[1], runs.shape[2])  # also without a state
        mended = [rows.take(row_IH, 0) for _, _, row_IH in mends]
        if width < wanted:
            runs = np.empty((len(runs), wanted, runs.shape[-1]), runs.dtype)
        for (part, odd, _), values in zip(mends, mended, strict=True):
            runs[odd, part] = values
        found.append(runs)
    return found


def _batch(arrays: "_Arrays", count_B: IntArray, embodiment_B: Tensor) -> TrajectoryBatch:
    """Build the batch; steps below ``count_B`` are inside the episode."""
    return TrajectoryBatch(
        action_BHA=torch.from_numpy(arrays.action_BHA),
        state_BHS=torch.from_numpy(arrays.state_BHS),
        reference_BA=torch.from_numpy(arrays.reference_BA),
        step_mask_BH=torch.from_numpy(np.arange(arrays.action_BHA.shape[1]) < count_B[:, None]),
        embodiment_B=embodiment_B,
    )


def _empty(count: int, *lengths: int) -> list[_Arrays]:
    """Allocate arrays for ``count`` windows of each of these lengths, cut from one buffer.

    The process keeps one large buffer for the next batch. Separate arrays would be returned to
    the system and faulted in again, page by page, at each batch.
    """
    shapes = [
        (count, *shape)
        for length in lengths
        for shape in ((length, ACTION_WIDTH), (length, STATE_WIDTH), (ACTION_WIDTH,))
    ]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    buffer = np.empty(ends[-1], dtype=np.float32)
    parts = [part.reshape(s) for part, s in zip(np.split(buffer, ends[:-1]), shapes, strict=True)]
    return [_Arrays(*parts[first : first + 3]) for first in range(0, len(parts), 3)]


def _fill(arrays: _Arrays, copies: list[SlotCopy]) -> None:
    """Set the arrays to zero, and copy into them, a few windows at a time.

    Each part is still in the processor's cache when the robot's slots are written.
    """
    arrays.reference_BA[:] = 0
    for first in range(0, len(arrays.action_BHA), IN_CACHE):
        rows = slice(first, first + IN_CACHE)
        arrays.action_BHA[rows].fill(0)  # in small parts faster than a memset of bytes
        arrays.state_BHS[rows].fill(0)
        for target, source in copies:
            target[rows] = source[rows]


class TrajectoryWindows(Dataset[TrajectoryBatch]):
    """Chunks of a store, a whole batch at a time: ``windows.__getitems__([3, 7])``.

    Args:
        store: Store of the frames; a window has the number of its first frame.
        length: Steps H of a chunk.
        shuffle_seed: Seed of a permutation in time of the steps inside each chunk, for the
            control prior that knows poses but no motion; None: no permutation. States move with
            their actions, and padding stays last. The permutation depends only on seed and
            frame. Deltas are permuted as their running sum; otherwise a shuffled chunk would
            still end where the true one ends.
        noise_seed: Seed of the ``ChunkNoise`` that replaces actions and states, for the control
            prior that knows only scales; None: no noise.
    """

    def __init__(
        self,
        store: TrajectoryStore,
        length: int,
        shuffle_seed: int | None = None,
        noise_seed: int | None = None,
    ) -> None:
        self.store = store
        self.length = length
        self.shuffle_seed = shuffle_seed
        self.forms = RelativeActions([e.relative_forms() for e in store.embodiments])
        self.noise = None if noise_seed is None else self._noise(noise_seed)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, frame: int) -> TrajectoryBatch:
        return self.__getitems__([frame])

    def __getitems__(self, frames: Sequence[int]) -> TrajectoryBatch:
        """Gather the finished batch of the windows that start at ``frames``."""
        frames_B = torch.as_tensor(frames, dtype=torch.int64)
        batch = self.store.future(frames_B, self.length)
        if self.noise is not None:
            batch = self.noise.replace(batch, frames_B)
        if self.shuffle_seed is None:
            return batch
        return self._shuffle(batch, frames_B, self.shuffle_seed)

    def _noise(self, seed: int) -> ChunkNoise:
        samples = []
        for index in range(len(self.store.embodiments)):
            frames = np.concatenate([np.array(r) for r in self.store.of_embodiment(index)])
            chosen = frames[np.linspace(0, len(frames) - 1, NOISE_SAMPLE).astype(np.int64)]
            samples.append(self.store.future(torch.from_numpy(chosen), self.length))
        forms = RelativeActions([e.noise_forms() for e in self.store.embodiments])
        return ChunkNoise(samples, forms, seed)

    def _shuffle(self, batch: TrajectoryBatch, frames_B: Tensor, seed: int) -> TrajectoryBatch:
        length = batch.step_mask_BH.shape[1]
        keys = mix(seed, frames_B.numpy()[:, None], np.arange(length)) >> np.uint64(2)
        keys_BH = torch.from_numpy(keys.astype(np.int64))
        keys_BH = keys_BH.masked_fill(~batch.step_mask_BH, torch.iinfo(torch.int64).max)
        order_BH = keys_BH.argsort(dim=1)
        rows_B1 = torch.arange(len(frames_B))[:, None]
        path_BHA = self.forms.path(batch.action_BHA, batch.embodiment_B)[rows_B1, order_BH]
        return batch._replace(
            action_BHA=self.forms.commands(path_BHA, batch.embodiment_B),
            state_BHS=batch.state_BHS[rows_B1, order_BH],
        )


def split_episodes(count: int, val_fraction: float, rng: np.random.Generator) -> IntArray:
    """Choose which of ``count`` episodes are for validation, sorted.

    With two or more episodes and ``val_fraction`` > 0, at least one is chosen, and never all.
    """
    if count < 2 or val_fraction <= 0:
        return np.empty(0, dtype=np.int64)
    chosen = min(max(1, round(val_fraction * count)), count - 1)
    return np.sort(rng.permutation(count)[:chosen])


def moving(store: TrajectoryStore, frames_N: Tensor, length: int, threshold: float) -> Tensor:
    """Find the windows that move: bool (N,), one entry for each of ``frames_N``.

    A window moves if some action (deltas: their running sum) or some state travels more than
    ``threshold`` times the scale of its group. This scale is the travel that only 1 in 100 of the
    robot's windows exceed, of the entry that travels most. Noise of a joint that stands still is
    then small in comparison. ``HELD`` ensures this for a group that stands still in all windows.
    """
    result = torch.ones(len(frames_N), dtype=torch.bool)
    for index, robot in enumerate(store.embodiments):
        rows = (store.embodiment_of(frames_N) == index).nonzero()[:, 0]
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
    """Return the peak-to-peak motion of actions and states over the chunk, (B, 37 + 74)."""
    batch = store.future(frames_B, length)
    step_mask_BH1 = batch.step_mask_BH[..., None]
    travel_BA = batch.action_BHA.new_zeros(len(frames_B), ACTION_WIDTH)
    for form, slots in robot.relative_forms():
        travel_BA[:, slots] = form.travel(batch.action_BHA[..., slots], step_mask_BH1)
    # Padding repeats the last frame, which adds no travel.
    travel_BS = batch.state_BHS.amax(1) - batch.state_BHS.amin(1)
    return torch.cat([travel_BA, travel_BS], dim=-1)
