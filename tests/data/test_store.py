import math
import time

import numpy as np
import pytest
import torch

from actionprior.data.store import (
    Recording,
    TrajectoryStore,
    TrajectoryWindows,
    moving,
    split_episodes,
)
from actionprior.embodiment.normalization import Normalizer
from tests.helpers.robots import delta_arm, position_arm

LENGTHS = {0: [9, 1, 4], 1: [6, 20]}


def make_store() -> tuple[TrajectoryStore, list[Recording]]:
    rng = np.random.default_rng(0)
    robots, recordings = [delta_arm(), position_arm()], []
    for index, robot in enumerate(robots):
        frames = sum(LENGTHS[index])
        recordings.append(
            Recording(
                rng.normal(size=(frames, len(robot.action_features))).astype(np.float32),
                rng.normal(size=(frames, len(robot.state_features))).astype(np.float32),
                np.array(LENGTHS[index]),
            )
        )
    return TrajectoryStore(robots, list(enumerate(recordings))), recordings


def actions(store: TrajectoryStore) -> torch.Tensor:
    return store.future(torch.arange(len(store)), 1).action_BHA[:, 0]


def naive_windows(store, recordings, length, past):
    """One window a frame, in plain loops, from the raw vectors."""
    for index, recording in enumerate(recordings):
        robot, start = store.embodiments[index], 0
        for n in recording.lengths_E:
            action = robot.action_to_unified(recording.action_Na[start : start + n])
            state = robot.state_to_unified(recording.state_Ns[start : start + n])
            reference = robot.reference(recording.state_Ns[start : start + n])
            for t in range(n):
                at = list(range(t - past, t) if past else range(t, t + length))
                at = [i for i in at if 0 <= i < n]
                yield index, action[at], state[at], reference[at[0]] if at else None
            start += n


@pytest.mark.parametrize(("length", "past"), [(5, 0), (30, 0), (1, 0), (5, 5), (25, 25)])
def test_windows_equal_a_plain_loop(length: int, past: int) -> None:
    store, recordings = make_store()
    frames = torch.arange(len(store))
    batch = store.history(frames, past) if past else store.future(frames, length)
    naive = list(naive_windows(store, recordings, length, past))
    assert len(naive) == len(store) == 40
    for i, (index, action, state, reference) in enumerate(naive):
        n = len(action)
        assert batch.embodiment_B[i] == index
        # Valid steps come first, in order; padding is last.
        assert batch.step_mask_BH[i].tolist() == [True] * n + [False] * (length - n)
        np.testing.assert_array_equal(batch.action_BHA[i, :n], action)
        np.testing.assert_array_equal(batch.state_BHS[i, :n], state)
        if reference is not None:
            np.testing.assert_array_equal(batch.reference_BA[i], reference)
        assert torch.isfinite(batch.action_BHA[i]).all()


def test_padding_repeats_the_last_frame_and_never_another_episode() -> None:
    store, _ = make_store()
    batch = store.future(torch.tensor([7]), 5)
    assert batch.step_mask_BH.tolist() == [[True, True, False, False, False]]
    assert torch.equal(batch.action_BHA[0, 2:], actions(store)[8].expand(3, -1))


def test_history_is_empty_at_an_episodes_first_frame() -> None:
    store, _ = make_store()
    batch = store.history(torch.tensor([0, 9, 10, 14]), 5)
    assert not batch.step_mask_BH.any()


def test_history_and_future_meet_without_gap_or_overlap() -> None:
    store, _ = make_store()
    past, future = store.history(torch.tensor([5]), 3), store.future(torch.tensor([5]), 4)
    joined = torch.cat([past.action_BHA[0], future.action_BHA[0]])
    assert torch.equal(joined, actions(store)[2:9])


def test_both_sides_at_once_equal_each_side_by_itself() -> None:
    store, _ = make_store()
    frames = torch.randperm(len(store), generator=torch.Generator().manual_seed(0))
    both = store.around(frames, 6, 4)
    for found, single in zip(
        both, (store.history(frames, 6), store.future(frames, 4)), strict=True
    ):
        for part, expected in zip(found, single, strict=True):
            assert torch.equal(part, expected)
            assert part.is_contiguous()
    before = both.future.state_BHS.clone()
    both.history.state_BHS.fill_(7.0)  # cut from one buffer, and apart from each other
    assert torch.equal(both.future.state_BHS, before)
    nothing = store.around(frames, 0, 4).history
    assert nothing.action_BHA.shape == (40, 0, 37)
    assert nothing.step_mask_BH.shape == (40, 0)


def test_shuffled_time_permutes_valid_steps_only_and_keeps_pairs() -> None:
    store, _ = make_store()
    plain, shuffled = TrajectoryWindows(store, 8), TrajectoryWindows(store, 8, shuffle_seed=3)
    frames = list(range(len(store)))
    a, b = plain.__getitems__(frames), shuffled.__getitems__(frames)
    assert torch.equal(a.step_mask_BH, b.step_mask_BH)
    assert torch.equal(a.reference_BA, b.reference_BA)
    # Sums, for arms commanded by deltas: a chunk of shuffled deltas still ends at the same place.
    learnt = [Normalizer(store.embodiments).relative_action(batch) for batch in (a, b)]
    moved = ended_elsewhere = 0
    for i in frames:
        n = int(a.step_mask_BH[i].sum())
        before = torch.cat([learnt[0][i, :n], a.state_BHS[i, :n]], 1).numpy()
        after = torch.cat([learnt[1][i, :n], b.state_BHS[i, :n]], 1).numpy()
        order = [int(np.abs(before - row).max(1).argmin()) for row in after]
        assert sorted(order) == list(range(n))
        np.testing.assert_allclose(after, before[order], atol=1e-5)
        moved += order != list(range(n))
        ended_elsewhere += order[-1] != n - 1
    assert moved > 20
    assert ended_elsewhere > 20
    again = shuffled.__getitems__(frames[::-1])
    assert torch.equal(again.action_BHA, b.action_BHA.flip(0))
    other = TrajectoryWindows(store, 8, shuffle_seed=4).__getitems__(frames)
    assert not torch.equal(other.action_BHA, b.action_BHA)


def test_noise_has_each_slots_scale_and_nothing_of_the_chunk() -> None:
    store, _ = make_store()
    frames = list(range(len(store)))
    plain = TrajectoryWindows(store, 8).__getitems__(frames)
    windows = TrajectoryWindows(store, 8, noise_seed=3)
    noise = windows.__getitems__(frames)
    for kept in ("step_mask_BH", "reference_BA", "embodiment_B"):
        assert torch.equal(getattr(plain, kept), getattr(noise, kept))
    again = windows.__getitems__(frames[::-1])  # depends on seed and frame only
    assert torch.equal(again.action_BHA, noise.action_BHA.flip(0))
    assert torch.equal(again.state_BHS, noise.state_BHS.flip(0))
    other = TrajectoryWindows(store, 8, noise_seed=4).__getitems__(frames)
    assert not torch.equal(other.state_BHS, noise.state_BHS)
    # Slots that a robot has not are zero; the others have mean and scale of the learnt form.
    normalizer = Normalizer(store.embodiments)
    for robot in range(2):
        rows = plain.embodiment_B == robot
        values = [
            torch.cat([normalizer.relative_action(b), b.state_BHS], -1)[rows][b.step_mask_BH[rows]]
            for b in (plain, noise)
        ]
        unused = (values[0] == 0).all(0)
        assert (values[1][:, unused] == 0).all()
        before, after = (v[:, ~unused].double() for v in values)
        np.testing.assert_allclose(after.std(0) / before.std(0), 1, atol=0.35)
        assert ((after.mean(0) - before.mean(0)) / before.std(0)).abs().max() < 0.5
        pairs = torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))
        step = after[1:] - after[:-1]  # independent at each step: differences are √2 as wide
        assert step.std() / after.std(0).pow(2).mean().sqrt() > 1.2
        assert pairs[0, 1].abs() < 0.5


def test_moving_finds_still_windows_and_ignores_a_held_joints_noise() -> None:
    robot = delta_arm()
    rng = np.random.default_rng(1)
    still = rng.normal(scale=1e-5, size=(40, 8)).astype(np.float32)
    delta = np.zeros((60, 8), np.float32)
    delta[:, 0] = 0.05
    states = [np.repeat(still[:1], 40, 0) + still, np.cumsum(delta, 0)]
    lengths = np.array([40, 60])
    store = TrajectoryStore(
        [robot], [(0, Recording(np.concatenate([still, delta]), np.concatenate(states), lengths))]
    )
    found = moving(store, torch.arange(100), 10, 0.05)
    assert not found[:40].any()
    assert found[40:99].all()


def test_split_is_deterministic_and_leaves_something_on_both_sides() -> None:
    def draw(seed: int, count: int, fraction: float) -> list[int]:
        return split_episodes(count, fraction, np.random.default_rng(seed)).tolist()

    assert draw(0, 50, 0.2) == draw(0, 50, 0.2) != draw(1, 50, 0.2)
    assert len(draw(0, 50, 0.2)) == 10
    assert len(draw(0, 2, 0.01)) == len(draw(0, 2, 0.99)) == 1
    assert draw(0, 1, 0.5) == draw(0, 9, 0.0) == []


def test_a_recording_whose_parts_disagree_is_refused() -> None:
    with pytest.raises(ValueError, match="add up to 3 frames"):
        Recording(np.zeros((4, 2), np.float32), np.zeros((3, 2), np.float32), np.array([3]))


def test_gather_is_fast() -> None:
    robot = delta_arm()
    zeros = np.zeros((20000, 8), np.float32)
    store = TrajectoryStore([robot], [(0, Recording(zeros, zeros, np.full(200, 100)))])
    frames = torch.randint(20000, (256,))
    store.future(frames, 15)
    start = time.perf_counter()
    for _ in range(20):
        store.future(frames, 15)
    frames_a_second = 20 * 256 * 15 / (time.perf_counter() - start)
    assert frames_a_second > 100_000  # about 2 million on an idle core


def test_a_turn_through_pi_is_no_jump() -> None:
    arm, steps = position_arm(), 40
    still = np.zeros((steps, 6), dtype=np.float32)
    turning = still.copy()
    turning[:, 0] = (math.pi - 0.1 + 0.005 * np.arange(steps) + math.pi) % (2 * math.pi) - math.pi
    fast = still.copy()
    fast[:, 0] = np.linspace(0, 2, steps)
    recordings = [
        (0, Recording(values, values, np.array([steps]))) for values in (turning, fast, fast)
    ]
    store = TrajectoryStore([arm], recordings)
    across = torch.tensor([16])  # 0.05 rad, through π
    assert not moving(store, torch.cat([across, torch.arange(40, 120)]), 10, 0.5)[0]
