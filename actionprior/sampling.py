"""Batches whose order is a function of (seed, epoch, position), sharded over ranks.

A run that is stopped in the middle of an epoch and resumed sees exactly the batches that it
would have seen. Lightning tells a sampler its epoch through ``batch_sampler.sampler``.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from actionprior.errors import UserError


class EpochOrder(Sampler[int]):
    """The frames of each epoch, in an order drawn from (seed, epoch).

    Args:
        groups: int64 frames of each robot.
        weights: a share of the epoch for each group; a small group's frames then repeat, each
            equally often (give or take one), and a large group's are partly left out. ``None``
            takes every frame once.
        seed: of the order.
        shuffle: ``False`` keeps one order for all epochs (still mixed over the groups).
    """

    def __init__(
        self,
        groups: Sequence[Tensor],
        weights: Sequence[float] | None = None,
        *,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        self.groups = list(groups)
        self.weights = None if weights is None else list(weights)
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(len(g) for g in self.groups)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def order(self) -> Tensor:
        """int64 (N,): this epoch's frames."""
        rng = np.random.default_rng([self.seed, self.epoch if self.shuffle else 0])
        frames = torch.cat(
            [self._draw(g, n, rng) for g, n in zip(self.groups, self._counts(), strict=True)]
        )
        return frames[torch.from_numpy(rng.permutation(len(frames)))]

    def _counts(self) -> list[int]:
        if self.weights is None:
            return [len(g) for g in self.groups]
        ends = np.cumsum(self.weights) / np.sum(self.weights) * len(self)
        return [int(n) for n in np.diff(ends.round().astype(np.int64), prepend=0)]

    @staticmethod
    def _draw(frames: Tensor, count: int, rng: np.random.Generator) -> Tensor:
        if count == len(frames):
            return frames
        whole, rest = divmod(count, len(frames))
        extra = torch.from_numpy(rng.permutation(len(frames))[:rest])
        return torch.cat([frames.repeat(whole), frames[extra]])


class ShardedBatches(Sampler[list[int]]):
    """This rank's batches of an epoch: no frame twice, none missing, in a global batch.

    Args:
        sampler: the order; Lightning calls its ``set_epoch``.
        batch_size: frames a rank and batch.
        rank: of this process.
        world_size: number of processes.
        whole_batches: training: whole batches only. Otherwise every frame comes once, in equally
            many, nearly equal batches on all ranks.
        resume: (epoch, batches of it already trained on).

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

    def __iter__(self) -> Iterator[list[int]]:
        epoch, done = self.resume
        order, count = self.sampler.order(), len(self)
        if self.whole_batches:
            order = order[: count * self.batch_size * self.world_size]
        parts = torch.tensor_split(order, max(1, count * self.world_size))
        for batch in range(done if self.sampler.epoch == epoch else 0, count):
            yield parts[batch * self.world_size + self.rank].tolist()
