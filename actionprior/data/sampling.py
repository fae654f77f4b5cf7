"""Batches in an order that is a function of (seed, epoch, position), sharded over ranks.

A run that stops in the middle of an epoch and resumes sees exactly the batches that it would have
seen. Lightning sets a sampler's epoch through ``batch_sampler.sampler``.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from actionprior.data.frame_ranges import Spans
from actionprior.data.pseudo_random import IntArray, mix, permute
from actionprior.errors import UserError

_AT_ONCE = 65536  # positions per vectorised call
_VIEWS_KEY = 2**63  # keeps the draws of views apart from those of the order
_BATCHES_AT_ONCE = 64  # batches whose frames are computed together


class EpochOrder(Sampler[int]):
    """Frames of each epoch, in an order computed from (seed, epoch, position).

    The order is not stored, so memory does not grow with the number of frames. Each group passes
    through its frames in a new order per pass; a pass may extend over several epochs.

    Args:
        groups: Frames of each robot.
        counts: Number of frames of each group in an epoch. Frames of a small group repeat, each
            equally often (give or take one); the rest of a large group follows in later epochs.
            ``None`` takes every frame once.
        seed: Seed of the order.
        shuffle: ``False`` keeps one order for all epochs (still mixed over the groups).
    """

    def __init__(
        self,
        groups: Sequence[Spans],
        counts: Sequence[int] | None = None,
        *,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        self.groups = list(groups)
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self._ends = np.cumsum([len(g) for g in groups] if counts is None else counts)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls it before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __iter__(self) -> Iterator[int]:
        for first in range(0, len(self), _AT_ONCE):
            yield from self.frames(np.arange(first, min(first + _AT_ONCE, len(self)))).tolist()

    def frames(self, position_P: IntArray) -> IntArray:
        """Compute the frames, int64 (P,), at positions of this epoch."""
        epoch = self.epoch if self.shuffle else 0
        place_P = permute(position_P, len(self), mix(self.seed, epoch))
        group_P = np.searchsorted(self._ends, place_P, side="right")
        found_P = np.empty_like(position_P)
        for k in np.unique(group_P).tolist():
            here, count = group_P == k, int(self._ends[k] - (self._ends[k - 1] if k else 0))
            drawn = epoch * count + place_P[here] - (int(self._ends[k]) - count)
            turn, rest = np.divmod(drawn, len(self.groups[k]))
            key = mix(self.seed, k + 1, turn)
            found_P[here] = self.groups[k].frames(permute(rest, len(self.groups[k]), key))
        return found_P


def epoch_counts(
    sizes: Sequence[int],
    weights: Sequence[float] | None = None,
    temperature: float = 1.0,
    caps: Sequence[int | None] | None = None,
) -> list[int]:
    """Compute how many windows of each group make an epoch.

    Without ``weights``, shares are proportional to size^(1/temperature). A temperature of 1 takes
    every window once; a higher one evens out the groups (arXiv 1901.07291, Sec. 3.1, whose α is
    1/temperature). An epoch has as many windows as there are, minus those that caps cut off.

    Args:
        sizes: Number of windows of each group; an empty group gets no share.
        weights: Share of each group, instead of the shares by size.
        temperature: Temperature of the shares by size, above 0.
        caps: Largest number of windows of each group in an epoch; None: no limit.
    """
    base = np.array(sizes, dtype=np.float64) ** (1 / temperature)
    if weights is not None:
        base = np.array(weights, dtype=np.float64)
    base[np.array(sizes) == 0] = 0.0
    ends = np.cumsum(base) / max(base.sum(), 1e-300) * sum(sizes)
    counts = np.diff(ends.round().astype(np.int64), prepend=0).tolist()
    limits = [None] * len(counts) if caps is None else caps
    return [n if cap is None else min(n, cap) for n, cap in zip(counts, limits, strict=True)]


class ShardedBatches(Sampler[list[int]]):
    """Batches of an epoch for this rank; together the ranks take each frame exactly once.

    Args:
        sampler: Order of the frames; Lightning calls its ``set_epoch``.
        batch_size: Frames per rank and batch.
        rank: Rank of this process.
        world_size: Number of processes.
        whole_batches: True for training: only full batches. False: every frame comes once, in
            equally many, nearly equal batches on all ranks.
        resume: Epoch, and number of its frames that are trained on already. The rest follows in
            the same order, whatever the batch size and the number of processes were before.
        views: Number of stored views of each frame. With several, batches hold numbers
            ``views * frame + view``, with views drawn from (seed, epoch, position).

    Raises:
        UserError: training has fewer frames than one global batch.
    """

    def __init__(
        self,
        sampler: EpochOrder,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        whole_batches: bool,
        resume: tuple[int, int] = (0, 0),
        views: int = 1,
    ) -> None:
        if whole_batches and len(sampler) < batch_size * world_size:
            raise UserError(
                f"there are {len(sampler)} training windows, fewer than one batch of "
                f"{world_size} x {batch_size}; lower batch_size or add data"
            )
        self.sampler = sampler
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        # Not called drop_last: Lightning rebuilds samplers that have one before it predicts.
        self.whole_batches = whole_batches
        self.resume = resume
        self.views = views
        # Worker processes fetch ahead before Lightning announces a resumed run's epoch.
        sampler.set_epoch(resume[0])

    def __len__(self) -> int:
        """Batches of a whole epoch, also when resumed within one: schedules rely on it."""
        frames, whole = len(self.sampler), self.batch_size * self.world_size
        return frames // whole if self.whole_batches else -(-frames // whole)

    def training_batch(self, number: int) -> IntArray:
        """Compute the frames of the epoch's batch ``number``, int64 (batch_size,).

        Lightning counts the batches of a resumed epoch from the full batches seen before.
        """
        seen, whole = self._seen(), self.batch_size * self.world_size
        part = (number - seen // whole) * self.world_size + self.rank
        return self.sampler.frames(seen + part * self.batch_size + np.arange(self.batch_size))

    def _seen(self) -> int:
        epoch, frames = self.resume
        return frames if self.sampler.epoch == epoch else 0

    def __iter__(self) -> Iterator[list[int]]:
        seen = self._seen()
        left, whole = len(self.sampler) - seen, self.batch_size * self.world_size
        count = left // whole if self.whole_batches else -(-left // whole)
        parts = count * self.world_size
        frames = parts * self.batch_size if self.whole_batches else left
        size, larger = divmod(frames, parts) if parts else (0, 0)
        for first in range(0, count, _BATCHES_AT_ONCE):
            batch_K = np.arange(first, min(first + _BATCHES_AT_ONCE, count))
            part_K = batch_K * self.world_size + self.rank
            start_K = seen + part_K * size + np.minimum(part_K, larger)
            stop_K = start_K + size + (part_K < larger)
            position_P = np.concatenate(list(map(np.arange, start_K, stop_K)))
            ends = np.cumsum(stop_K - start_K)[:-1]
            for number_B in np.split(self._numbers(position_P), ends):
                yield number_B.tolist()

    def _numbers(self, position_P: IntArray) -> IntArray:
        frame_P = self.sampler.frames(position_P)
        if self.views == 1:
            return frame_P
        drawn_P = mix(self.sampler.seed, _VIEWS_KEY, self.sampler.epoch, position_P)
        view_P = (drawn_P % np.uint64(self.views)).astype(np.int64)
        return self.views * frame_P + view_P
