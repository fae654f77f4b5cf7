"""Batches whose order is a function of (seed, epoch, position), sharded over ranks.

A run that is stopped in the middle of an epoch and resumed sees exactly the batches that it
would have seen. Lightning tells a sampler its epoch through ``batch_sampler.sampler``.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from actionprior.data.frame_ranges import Spans
from actionprior.data.pseudo_random import IntArray, mix, permute
from actionprior.errors import UserError

_AT_ONCE = 65536


class EpochOrder(Sampler[int]):
    """The frames of each epoch, in an order computed from (seed, epoch, position).

    Nothing is listed: memory does not grow with the number of frames. A group goes through its
    frames pass by pass, each pass in an order of its own, from one epoch into the next.

    Args:
        groups: frames of each robot.
        counts: how many frames of each group make an epoch; a small group's frames repeat, each
            equally often (give or take one), and a large group's come in later epochs. ``None``
            takes every frame once.
        seed: of the order.
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
        """Called by Lightning before an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __iter__(self) -> Iterator[int]:
        for first in range(0, len(self), _AT_ONCE):
            yield from self.frames(np.arange(first, min(first + _AT_ONCE, len(self)))).tolist()

    def frames(self, position_P: IntArray) -> IntArray:
        """int64 (P,): the frames at these positions of this epoch."""
        epoch = self.epoch if self.shuffle else 0
        place_P = permute(position_P, len(self), mix(self.seed, epoch))
        group_P = np.searchsorted(self._ends, place_P, side="right")
        found_P = np.empty_like(position_P)
        for k in np.unique(group_P).tolist():
            mine, count = group_P == k, int(self._ends[k] - (self._ends[k - 1] if k else 0))
            drawn = epoch * count + place_P[mine] - (int(self._ends[k]) - count)
            turn, rest = np.divmod(drawn, len(self.groups[k]))
            key = mix(self.seed, k + 1, turn)
            found_P[mine] = self.groups[k].frames(permute(rest, len(self.groups[k]), key))
        return found_P


def epoch_counts(
    sizes: Sequence[int],
    weights: Sequence[float] | None = None,
    temperature: float = 1.0,
    caps: Sequence[int | None] | None = None,
) -> list[int]:
    """How many windows of each group make an epoch.

    Without ``weights`` shares go with size^(1/temperature): 1 takes every window once, and the
    higher it is, the more the groups are levelled (arXiv 1901.07291, Sec. 3.1, whose α is
    1/temperature). An epoch is as long as all windows together, less what caps cut off.

    Args:
        sizes: windows of each group; a group without any gets no share.
        weights: shares, instead of those by size.
        temperature: above 0.
        caps: most windows of a group in an epoch; None: no limit.
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
    """This rank's batches of an epoch: no frame twice, none missing, in a global batch.

    Args:
        sampler: the order; Lightning calls its ``set_epoch``.
        batch_size: frames a rank and batch.
        rank: of this process.
        world_size: number of processes.
        whole_batches: training: whole batches only. Otherwise every frame comes once, in equally
            many, nearly equal batches on all ranks.
        resume: (epoch, frames of it already trained on): the rest follows in the same order,
            whatever the batch size and the number of processes were before.

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
        # Worker processes fetch ahead before Lightning announces a resumed run's epoch.
        sampler.set_epoch(resume[0])

    def __len__(self) -> int:
        """Batches of a whole epoch, also when resumed within one: schedules count on it."""
        frames, whole = len(self.sampler), self.batch_size * self.world_size
        return frames // whole if self.whole_batches else -(-frames // whole)

    def training_batch(self, number: int) -> IntArray:
        """int64 (batch_size,): the frames of the epoch's batch ``number``, as Lightning counts it.

        A resumed epoch is counted on from the whole batches that were seen of it.
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
        for batch in range(count):
            part = batch * self.world_size + self.rank
            size, larger = divmod(frames, parts)
            first = seen + part * size + min(part, larger)
            positions = np.arange(first, first + size + (part < larger))
            yield self.sampler.frames(positions).tolist()
