import numpy as np
import pytest

from actionprior.errors import UserError
from actionprior.sampling import EpochOrder, ShardedBatches, epoch_counts
from actionprior.spans import Spans


def order(*sizes: int, **options) -> EpochOrder:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    groups = [Spans(np.array([s]), np.array([s + n])) for s, n in zip(starts, sizes, strict=True)]
    return EpochOrder(groups, **options)


def batches(epoch: int = 0, rank: int = 0, world_size: int = 1, size: int = 4, **options):
    resume = options.pop("resume", (0, 0))
    whole_batches = options.pop("whole_batches", True)
    sampler = order(30, 20, **options)
    sharded = ShardedBatches(
        sampler, size, rank, world_size, whole_batches=whole_batches, resume=resume
    )
    if epoch:
        sampler.set_epoch(epoch)
    return list(sharded)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    assert batches() == batches()
    assert batches() != batches(epoch=1) != batches(epoch=2)
    assert batches() != batches(seed=1)
    assert batches(shuffle=False) == batches(epoch=7, shuffle=False)


def test_an_epoch_holds_each_frame_once() -> None:
    frames = [f for batch in batches(size=5) for f in batch]
    assert sorted(frames) == list(range(50))


@pytest.mark.parametrize("whole_batches", [True, False])
def test_ranks_share_each_global_batch_without_duplicate_or_gap(whole_batches: bool) -> None:
    ranks = [batches(rank=r, world_size=3, size=4, whole_batches=whole_batches) for r in range(3)]
    assert len({len(r) for r in ranks}) == 1
    seen = [f for r in ranks for batch in r for f in batch]
    assert len(seen) == len(set(seen)) == (48 if whole_batches else 50)
    if whole_batches:
        alone = batches(size=12)
        for step, whole in enumerate(alone):
            assert [f for r in ranks for f in r[step]] == whole


@pytest.mark.parametrize("world_size", [1, 2])
def test_resume_goes_on_with_the_exact_next_batch(world_size: int) -> None:
    for rank in range(world_size):
        whole = batches(epoch=3, rank=rank, world_size=world_size)
        resumed = batches(rank=rank, world_size=world_size, resume=(3, 2))
        assert resumed == whole[2:]
        # The next epoch is whole again.
        after = batches(epoch=4, rank=rank, world_size=world_size, resume=(3, 2))
        assert after == batches(epoch=4, rank=rank, world_size=world_size)


def test_length_is_that_of_the_whole_epoch_also_when_resumed() -> None:
    assert len(ShardedBatches(order(50), 4, whole_batches=True, resume=(0, 5))) == 12


def test_counts_share_the_epoch_and_use_frames_evenly() -> None:
    weighted = order(90, 10, counts=[25, 75])
    seen: list[int] = []
    for epoch in range(7):
        weighted.set_epoch(epoch)
        frames = list(weighted)
        assert len(frames) == 100
        assert sum(f >= 90 for f in frames) == 75
        seen += frames
        # No frame of a group comes twice more than another, also across epochs.
        for group in (range(90), range(90, 100)):
            counts = [seen.count(f) for f in group]
            assert max(counts) - min(counts) <= 1


def test_shares_of_an_epoch() -> None:
    sizes = [900, 90, 10]
    assert epoch_counts(sizes) == sizes
    assert epoch_counts(sizes, weights=[1, 1, 2]) == [250, 250, 500]
    # p ∝ n^(1/2): 30 : 9.487 : 3.162
    assert epoch_counts(sizes, temperature=2.0) == [703, 223, 74]
    level = epoch_counts(sizes, temperature=1e6)
    assert max(level) - min(level) <= 2
    assert epoch_counts(sizes, caps=[300, None, 20]) == [300, 90, 10]
    # A robot without windows gets none, whatever its weight.
    assert epoch_counts([50, 0, 50], temperature=1e6) == [50, 0, 50]
    assert sum(epoch_counts(sizes, weights=[0.2, 0.3, 0.7])) == 1000


def test_the_order_of_many_frames_takes_no_memory_and_no_time() -> None:
    many = order(10**11, 10**6)
    first = many.frames(np.arange(2048))
    assert len(set(first.tolist())) == 2048
    assert first.min() >= 0
    assert first.max() < 10**11 + 10**6


def test_too_little_data_for_one_batch_is_told() -> None:
    with pytest.raises(UserError, match="50 training windows, fewer than one batch of 2 x 32"):
        batches(size=32, world_size=2)
