import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from actionprior.data.frame_ranges import Spans
from actionprior.data.sampling import EpochOrder, ShardedBatches, epoch_counts
from actionprior.errors import UserError


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


def test_order_depends_on_seed_and_epoch_only() -> None:
    assert batches() == batches()
    assert batches() != batches(epoch=1) != batches(epoch=2)
    assert batches() != batches(seed=1)
    assert batches(shuffle=False) == batches(epoch=7, shuffle=False)


def test_length_is_that_of_the_whole_epoch_also_when_resumed() -> None:
    assert len(ShardedBatches(order(50), 4, whole_batches=True, resume=(0, 20))) == 12


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


def test_the_order_of_many_frames_takes_neither_memory_nor_time() -> None:
    many = order(10**11, 10**6)
    first = many.frames(np.arange(2048))
    assert len(set(first.tolist())) == 2048
    assert first.min() >= 0
    assert first.max() < 10**11 + 10**6


def test_too_little_data_for_one_batch_is_refused() -> None:
    with pytest.raises(UserError, match="50 training windows, fewer than one batch of 2 x 32"):
        batches(size=32, world_size=2)


# ---- laws, for any sizes ------------------------------------------------------------------------

# A robot's episodes: some empty, some of one frame, with gaps between them.
EPISODES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=6)
ROBOTS = st.lists(EPISODES, min_size=1, max_size=4)


def spans(robots: list[list[tuple[int, int]]]) -> list[Spans]:
    found, at = [], 0
    for episodes in robots:
        bounds = []
        for gap, length in episodes:
            bounds.append((at + gap, at + gap + length))
            at += gap + length
        start, stop = np.array(bounds).T
        found.append(Spans(start, stop))
    return found


def every_frame(groups: list[Spans]) -> list[int]:
    return sorted(f for group in groups for f in group.frames().tolist())


def of_ranks(groups, seed: int, epoch: int, world_size: int, size: int, **options) -> list[list]:
    """Batches of each rank, in a process of its own as far as samplers go."""
    found = []
    for rank in range(world_size):
        order = EpochOrder(groups, options.get("counts"), seed=seed)
        sharded = ShardedBatches(
            order, size, rank, world_size, whole_batches=options.get("whole", False)
        )
        order.set_epoch(epoch)
        found.append(list(sharded))
        assert len(found[-1]) == len(sharded)
    return found


SETTING = {
    "robots": ROBOTS,
    "seed": st.integers(0, 99),
    "epoch": st.integers(0, 9),
    "world_size": st.integers(1, 5),
    "size": st.integers(1, 9),
}


@given(**SETTING)
def test_every_window_comes_once_an_epoch_whatever_the_ranks(
    robots, seed: int, epoch: int, world_size: int, size: int
) -> None:
    groups = spans(robots)
    assume(every_frame(groups))
    ranks = of_ranks(groups, seed, epoch, world_size, size)
    assert sorted(f for rank in ranks for b in rank for f in b) == every_frame(groups)
    # No rank waits for another: equally many batches, nearly equally large.
    assert len({len(rank) for rank in ranks}) == 1
    sizes = {len(b) for rank in ranks for b in rank}
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


@given(**SETTING)
def test_training_takes_whole_batches_once_and_leaves_less_than_one(
    robots, seed: int, epoch: int, world_size: int, size: int
) -> None:
    groups = spans(robots)
    frames = every_frame(groups)
    assume(len(frames) >= world_size * size)
    ranks = of_ranks(groups, seed, epoch, world_size, size, whole=True)
    assert {len(b) for rank in ranks for b in rank} == {size}
    seen = [f for rank in ranks for b in rank for f in b]
    assert len(seen) == len(set(seen)) > len(frames) - world_size * size
    assert set(seen) <= set(frames)
    # The global batch does not depend on how many ranks share it.
    (single,) = of_ranks(groups, seed, epoch, 1, world_size * size, whole=True)
    assert [[f for rank in ranks for f in rank[i]] for i in range(len(single))] == single


@given(**SETTING, data=st.data())
def test_a_run_resumed_at_any_batch_is_the_uninterrupted_one(
    robots, seed: int, epoch: int, world_size: int, size: int, data
) -> None:
    groups = spans(robots)
    assume(len(every_frame(groups)) >= world_size * size)
    for rank in range(world_size):

        def epochs(resume: tuple[int, int], rank: int = rank) -> list[list[list[int]]]:
            order = EpochOrder(groups, seed=seed)
            sharded = ShardedBatches(
                order, size, rank, world_size, whole_batches=True, resume=resume
            )
            found = []
            for e in range(resume[0], epoch + 2):
                order.set_epoch(e)
                found.append(list(sharded))
            return found

        uninterrupted = epochs((0, 0))
        done = data.draw(st.integers(0, len(uninterrupted[epoch])))
        resumed = epochs((epoch, done * size * world_size))
        assert resumed == [uninterrupted[epoch][done:], uninterrupted[epoch + 1]]


@given(**SETTING, other=st.integers(1, 5), data=st.data())
def test_another_number_of_processes_continues_with_the_next_frame(
    robots, seed: int, epoch: int, world_size: int, size: int, other: int, data
) -> None:
    groups = spans(robots)
    frames = len(every_frame(groups))
    assume(frames >= max(world_size, other) * size)
    (plan,) = of_ranks(groups, seed, epoch, 1, 1, whole=True)
    in_order = [f for batch in plan for f in batch]
    seen = data.draw(st.integers(0, frames // (world_size * size))) * world_size * size
    ranks = []
    for rank in range(other):
        order = EpochOrder(groups, seed=seed)
        order.set_epoch(epoch)
        resume = (epoch, seen)
        sharded = ShardedBatches(order, size, rank, other, whole_batches=True, resume=resume)
        ranks.append(list(sharded))
    found = [f for step in zip(*ranks, strict=True) for part in step for f in part]
    whole = (frames - seen) // (other * size) * other * size
    assert found == in_order[seen : seen + whole]


@given(robots=ROBOTS, seed=st.integers(0, 99), data=st.data())
def test_counts_are_kept_and_frames_used_evenly_over_epochs(robots, seed: int, data) -> None:
    groups = spans(robots)
    counts = [data.draw(st.integers(0, 2 * len(g))) if len(g) else 0 for g in groups]
    assume(sum(counts))
    order, seen = EpochOrder(groups, counts, seed=seed), []
    for epoch in range(5):
        order.set_epoch(epoch)
        frames = list(order)
        assert len(frames) == len(order) == sum(counts)
        for group, count in zip(groups, counts, strict=True):
            assert np.isin(frames, group.frames()).sum() == count
        seen += frames
    for group in groups:  # none comes twice more than another
        used = np.array([seen.count(f) for f in group.frames().tolist()] or [0])
        assert used.max() - used.min() <= 1


@given(
    sizes=st.lists(st.integers(0, 10**6), min_size=1, max_size=6),
    temperature=st.floats(1, 100),
    data=st.data(),
)
def test_shares_follow_weights_or_temperature_and_caps(
    sizes: list[int], temperature: float, data
) -> None:
    some = [size > 0 for size in sizes]
    assume(any(some))
    weights = data.draw(
        st.none() | st.lists(st.floats(0.01, 10), min_size=len(sizes), max_size=len(sizes))
    )
    counts = epoch_counts(sizes, weights, 1.0 if weights else temperature)
    base = np.array(weights if weights else np.array(sizes, float) ** (1 / temperature)) * some
    np.testing.assert_allclose(counts, base / base.sum() * sum(sizes), atol=1.01)
    assert sum(counts) == sum(sizes)
    caps = data.draw(
        st.lists(st.none() | st.integers(1, 10**6), min_size=len(sizes), max_size=len(sizes))
    )
    capped = epoch_counts(sizes, weights, 1.0 if weights else temperature, caps)
    assert capped == [n if c is None else min(n, c) for n, c in zip(counts, caps, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_loader_processes_change_nothing(workers: int) -> None:
    groups = spans([[(0, 30), (2, 1)], [(1, 17)]])

    def batches_of(rank: int, workers: int, epoch: int) -> list[list[int]]:
        order = EpochOrder(groups, seed=4)
        sharded = ShardedBatches(order, 4, rank, 2, whole_batches=True, resume=(epoch, 8))
        loader = DataLoader(Echo(), batch_sampler=sharded, collate_fn=list, num_workers=workers)
        return list(loader) + list(loader)  # a resumed epoch is the same again

    for rank in range(2):
        assert batches_of(rank, workers, 3) == batches_of(rank, 0, 3)


class Echo(Dataset):
    """Gives what it is asked for."""

    def __len__(self) -> int:
        return 60

    def __getitems__(self, frames: list[int]) -> list[int]:
        return frames
