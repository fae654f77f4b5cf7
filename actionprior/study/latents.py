"""What chunks do, and whether their latents tell: motion types, projections, neighbours.

Axes: N chunks, H steps, G hands of a robot, S state slots, Z latent width.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actionprior.embodiment import Embodiment, FloatArray, StateGroup
from actionprior.errors import UserError

MOTIONS = ("still", "down", "up", "sideways", "grasp", "carry", "release")
"""Motion types, in the order of the numbers that :func:`motion_types` gives."""
NEIGHBOURS = 5

_STILL = 0.02
"""Mean speed below which a tip stands still [m/s]; the experts' top speed is ten times that."""
_HOLDING = {"1": (0.75, np.inf), "m": (0.01, 0.075)}
"""Between which gripper readings something is held, by unit: a vacuum's 1; an opening [m] that is
neither closed nor wide."""

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Embedded(NamedTuple):
    """Latents as a figure shows them.

    Attributes:
        point_N2: their first two principal components.
        variance_2: the share of all variance along each of them.
        accuracy: see :func:`neighbour_accuracy`, of the whole latents.
    """

    point_N2: FloatArray
    variance_2: FloatArray
    accuracy: float


class LatentMap(NamedTuple):
    """Chunks under a trained encoder, and under an untrained one of the same architecture.

    Attributes:
        robots: names.
        robot_N: index into ``robots``.
        motion_N: index into ``MOTIONS``.
        trained: their latents.
        untrained: the control.
    """

    robots: list[str]
    robot_N: IntArray
    motion_N: IntArray
    trained: Embedded
    untrained: Embedded

    @property
    def largest_share(self) -> float:
        """Share of the most frequent motion type: what guessing without a look reaches."""
        return float(np.bincount(self.motion_N).max() / len(self.motion_N))


def motion_types(robot: Embodiment, state_NHS: FloatArray) -> IntArray:
    """What each chunk does, as an index into ``MOTIONS`` (N,).

    The first rule that fits names it: ``grasp``, nothing is held at its first step and something
    at its last; ``release``, the reverse; ``still``, the tip's way from first to last step is
    slower than 2 cm/s; ``carry``, something is held throughout; ``down`` and ``up``, the way is
    steeper than 45°; ``sideways``. A robot with two hands is judged by the one that grasps or
    releases, or else goes further.

    Args:
        robot: one of the simulated suite: tips (x, y, z) with z up, and grippers of a vacuum
            (unit ``1``) or of jaws (unit ``m``).
        state_NHS: (N, H, 74) unified states, H at least 2.

    Raises:
        UserError: the robot's state does not tell this.
    """
    way_GN3, held_GNH = _hands(robot, state_NHS)
    before_GN, after_GN = held_GNH[..., 0], held_GNH[..., -1]
    change_GN = before_GN != after_GN
    far_GN = np.linalg.norm(way_GN3, axis=-1)
    hand_N = np.where(change_GN.any(0), change_GN.argmax(0), far_GN.argmax(0))
    row_N = np.arange(len(state_NHS))
    way_N3, far_N = way_GN3[hand_N, row_N], far_GN[hand_N, row_N]
    before_N, after_N = before_GN[hand_N, row_N], after_GN[hand_N, row_N]
    steep_N = np.abs(way_N3[:, 2]) > np.linalg.norm(way_N3[:, :2], axis=1)
    rules = {
        "grasp": ~before_N & after_N,
        "release": before_N & ~after_N,
        "still": far_N * robot.control_hz / (state_NHS.shape[1] - 1) < _STILL,
        "carry": before_N,
        "down": steep_N & (way_N3[:, 2] < 0),
        "up": steep_N,
    }
    numbers = [MOTIONS.index(name) for name in rules]
    return np.select(list(rules.values()), numbers, MOTIONS.index("sideways")).astype(np.int64)


def embed(z_NZ: FloatArray, motion_N: IntArray, episode_N: IntArray) -> Embedded:
    """Project latents, and see how well their neighbours tell the motion type."""
    centred_NZ = z_NZ - z_NZ.mean(0)
    _, size_Z, axis_ZZ = np.linalg.svd(centred_NZ, full_matrices=False)
    share_Z = size_Z**2 / max(float((size_Z**2).sum()), 1e-12)
    accuracy = neighbour_accuracy(z_NZ, motion_N, episode_N)
    return Embedded(centred_NZ @ axis_ZZ[:2].T, share_Z[:2], accuracy)


def neighbour_accuracy(
    z_NZ: FloatArray, label_N: IntArray, episode_N: IntArray, neighbours: int = NEIGHBOURS
) -> float:
    """Share of chunks whose label is that of most of their nearest neighbours.

    Neighbours are of other episodes: those of a chunk's own overlap with it, so that any encoder
    would find them. A tie goes to the label of the nearest.

    Args:
        z_NZ: (N, Z) latents.
        label_N: (N,) what is to be told.
        episode_N: (N,) whose chunk each is.
        neighbours: how many vote.

    Raises:
        UserError: some chunk has fewer chunks of other episodes.
    """
    others = len(z_NZ) - int(np.bincount(episode_N).max())
    if others < neighbours:
        raise UserError(
            f"some episode leaves {others} chunks to compare it with, expected at least "
            f"{neighbours}; take more held-out episodes"
        )
    square_N = (z_NZ**2).sum(1)
    distance_NN = square_N[:, None] + square_N - 2 * z_NZ @ z_NZ.T
    distance_NN[episode_N[:, None] == episode_N] = np.inf
    nearest_NK = np.argsort(distance_NN, axis=1, kind="stable")[:, :neighbours]
    vote_K = 1 + 0.5 ** np.arange(2, neighbours + 2)  # in a tie, the nearest outweighs the rest
    is_label_NKL = label_N[nearest_NK][..., None] == np.arange(label_N.max() + 1)
    told_N = (is_label_NKL * vote_K[:, None]).sum(1).argmax(1)
    return float((told_N == label_N).mean())


def _hands(robot: Embodiment, state_NHS: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Each hand's way from first to last step (G, N, 3) [m], and where it holds (G, N, H)."""
    tips = [g for g in robot.state if g.slot == "end_effector" and g.unit == "m"]
    states = zip(robot.state, robot.state_representations, strict=True)
    grippers = [g for g, known in states if known.is_gripper and g.unit in _HOLDING]
    if not tips or len(tips) != len(grippers) or any(len(g.features) != 3 for g in tips):
        raise UserError(
            f"robot {robot.name!r} does not tell what its chunks do; expected a tip (x, y, z) [m] "
            "and a gripper of unit '1' or 'm' a hand, as the simulated suite's robots have"
        )

    def values(group: StateGroup) -> FloatArray:
        return state_NHS[..., robot.state_slots(group)]

    way_GN3 = np.stack([values(tip)[:, -1] - values(tip)[:, 0] for tip in tips])
    held = []
    for gripper in grippers:
        low, high = _HOLDING[gripper.unit]
        reading_NH = values(gripper)[..., 0]
        held.append((reading_NH > low) & (reading_NH < high))
    return way_GN3, np.stack(held)
