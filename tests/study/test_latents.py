"""Motion types of chunks, and how well latents predict them."""

import numpy as np
import pytest

from actionprior.embodiment import ActionGroup, Embodiment
from actionprior.envs.embodiments import suite_embodiment
from actionprior.errors import UserError
from actionprior.study.latents import MOTIONS, embed, motion_types, neighbour_accuracy

H = 15


def chunk(robot: Embodiment, hands: list[tuple[tuple[float, float, float], float, float]]):
    """Unified states (1, H, 74): each hand goes a way [m] and reads two gripper values."""
    parts = []
    tips = [g for g in robot.state if g.slot == "end_effector"]
    joints = [g for g in robot.state if g.name.endswith("joints")]
    for (way, before, after), arm in zip(hands, joints, strict=True):
        line = np.linspace(0, 1, H)[:, None] * np.array(way) + [0.4, 0.1, 0.3]
        grip = np.where(np.arange(H) < H // 2, before, after)[:, None]
        parts.append(np.concatenate([line, np.zeros((H, len(arm.features))), grip], axis=1))
    assert len(tips) == len(hands)
    return robot.state_to_unified(np.concatenate(parts, axis=1).astype(np.float32))[None]


@pytest.mark.parametrize(
    ("way", "before", "after", "wanted"),
    [
        ((0.0, 0.0, 0.01), 0, 0, "still"),
        ((0.0, 0.0, 0.01), 1, 1, "still"),
        ((0.02, 0.0, -0.15), 0, 0, "down"),
        ((0.02, 0.0, -0.15), 0.5, 0.5, "down"),  # suction is on and holds nothing yet
        ((0.02, -0.02, 0.15), 0, 0, "up"),
        ((0.1, -0.1, 0.05), 0, 0, "sideways"),
        ((0.0, 0.0, -0.1), 0.5, 1, "grasp"),
        ((0.0, 0.0, 0.0), 0, 1, "grasp"),
        ((0.1, 0.1, 0.1), 1, 1, "carry"),
        ((0.0, 0.0, 0.1), 1, 0, "release"),
    ],
)
def test_a_chunk_with_a_vacuum_is_named_by_its_way_and_what_it_holds(
    way, before, after, wanted
) -> None:
    robot = suite_embodiment("panda")
    (found,) = motion_types(robot, chunk(robot, [(way, before, after)]))
    assert MOTIONS[found] == wanted


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [(0.08, 0.05, "grasp"), (0.05, 0.08, "release"), (0.05, 0.05, "carry"), (0.0, 0.0, "up")],
)
def test_jaws_hold_what_keeps_them_from_closing(before: float, after: float, wanted: str) -> None:
    robot = suite_embodiment("ur5e")
    assert {g.unit for g in robot.state if g.representation == "gripper"} == {"m"}
    (found,) = motion_types(robot, chunk(robot, [((0.0, 0.0, 0.2), before, after)]))
    assert MOTIONS[found] == wanted


def test_a_robot_with_two_hands_is_judged_by_the_one_that_acts() -> None:
    robot = suite_embodiment("duo")
    open_, shut = (0.08, 0.05) if robot.state[-1].unit == "m" else (0.0, 1.0)
    still, fast = (0.0, 0.0, 0.0), (0.0, 0.3, 0.0)
    grasps = motion_types(robot, chunk(robot, [(fast, open_, open_), (still, open_, shut)]))
    carries = motion_types(robot, chunk(robot, [(still, open_, open_), (fast, shut, shut)]))
    assert [MOTIONS[k] for k in (*grasps, *carries)] == ["grasp", "carry"]


def test_a_robot_without_tips_and_grippers_is_rejected() -> None:
    robot = Embodiment("blind", 10.0, [ActionGroup("arm", "joints", ["a"])])
    with pytest.raises(UserError, match="robot 'blind' does not show motion types"):
        motion_types(robot, np.zeros((1, H, 74), dtype=np.float32))


def test_neighbours_predict_only_labels_that_latents_contain() -> None:
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 4, 400)
    episode_N = np.arange(400) // 8
    held_NZ = np.eye(16)[label_N] + 0.1 * rng.normal(size=(400, 16))
    assert neighbour_accuracy(held_NZ, label_N, episode_N) == 1
    assert neighbour_accuracy(rng.normal(size=(400, 16)), label_N, episode_N) < 0.4


def test_a_chunk_s_own_episode_does_not_help_it() -> None:
    rng = np.random.default_rng(0)
    episode_N = np.repeat(np.arange(40), 10)
    label_N = np.repeat(rng.permutation(np.arange(40) % 2), 10)
    z_NZ = rng.normal(size=(40, 8))[episode_N] + 0.01 * rng.normal(size=(400, 8))
    assert neighbour_accuracy(z_NZ, label_N, np.arange(400)) == 1  # near copies of itself
    assert neighbour_accuracy(z_NZ, label_N, episode_N) < 0.8


def test_a_tie_goes_to_the_nearest_and_most_votes_win() -> None:
    z_N1, every = np.arange(5.0)[:, None], np.arange(5)
    # The first two and the last are tied; the nearest is right only for the first two.
    assert neighbour_accuracy(z_N1, np.array([1, 1, 0, 0, 1]), every, neighbours=4) == 2 / 5
    assert neighbour_accuracy(z_N1[:4], np.array([0, 1, 0, 0]), every[:4], neighbours=3) == 3 / 4


def test_too_few_chunks_are_rejected() -> None:
    with pytest.raises(UserError, match="leaves 2 chunks to compare it with, expected at least 5"):
        neighbour_accuracy(np.zeros((6, 2)), np.zeros(6, int), np.array([0, 0, 0, 0, 1, 1]))


def test_the_projection_keeps_the_widest_directions() -> None:
    rng = np.random.default_rng(0)
    turn_ZZ = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    scale_Z = np.array([3.0, 2.0, 0.1, 0.1, 0.1, 0.1])
    plain_NZ = rng.normal(size=(2000, 6)) * scale_Z
    found = embed(plain_NZ @ turn_ZZ + 5, np.zeros(2000, int), np.arange(2000))
    np.testing.assert_allclose(found.variance_2, scale_Z[:2] ** 2 / (scale_Z**2).sum(), atol=0.03)
    np.testing.assert_allclose(
        np.abs(found.point_N2).std(0), np.abs(plain_NZ[:, :2]).std(0), rtol=0.1
    )
