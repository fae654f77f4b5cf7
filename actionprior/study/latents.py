"""Motion types of chunks, and how well their latents reveal them: projections, neighbours.

Axes: N chunks, H steps, G hands of a robot, S state slots, Z latent width.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actionprior.embodiment import Embodiment, FloatArray, StateGroup
from actionprior.errors import UserError

MOTIONS = ("still", "down", "up", "sideways", "grasp", "carry", "release")
"""Motion types, in the order of the indices that :func:`motion_types` returns."""
NEIGHBOURS = 5

_STILL = 0.02
"""Mean speed below which a tip counts as still [m/s]; the experts' top speed is ten times that."""
_HOLDING = {"1": (0.75, np.inf), "m": (0.01, 0.075)}
"""Range of gripper readings while holding, by unit: 1 for a vacuum, an opening [m] that is neither
closed nor wide for jaws."""

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class EmbeddedLatents(NamedTuple):
    """Latents as a figure shows them.

    Attributes:
        point_N2: First two principal components.
        variance_2: Share of the variance along each of the two.
        accuracy: Result of :func:`neighbour_accuracy` for the complete latents.
    """

    point_N2: FloatArray
    variance_2: FloatArray
    accuracy: float


class LatentMap(NamedTuple):
    """Latents of chunks by a trained encoder, and by an untrained one of the same architecture.

    Attributes:
        robots: Names of the robots.
        robot_N: Index into ``robots``.
        motion_N: Index into ``MOTIONS``.
        trained: Latents of the trained encoder.
        untrained: Latents of the untrained encoder, as a control.
    """

    robots: list[str]
    robot_N: IntArray
    motion_N: IntArray
    trained: EmbeddedLatents
    untrained: EmbeddedLatents

    @property
    def largest_share(self) -> float:
        """Share of the most frequent motion type, which is the accuracy of constant guessing."""
        return float(np.bincount(self.motion_N).max() / len(self.motion_N))


def motion_types(robot: Embodiment, state_NHS: FloatArray) -> IntArray:
    """Classify the motion of each chunk, as an index into ``MOTIONS`` (N,).

    The first rule that fits decides:

    - ``grasp``: nothing is held at the first step and something at the last.
    - ``release``: the reverse.
    - ``still``: from first to last step the tip moves slower than 2 cm/s.
    - ``carry``: something is held throughout.
    - ``down`` and ``up``: the displacement is steeper than 45°.
    - ``sideways``: everything else.

    For a robot with two hands, the hand that grasps or releases decides, otherwise the hand that
    moves further.

    Args:
        robot: Robot of the simulated suite: tips (x, y, z) with z up, and vacuum grippers (unit
            ``1``) or jaws (unit ``m``).
        state_NHS: Unified states (N, H, 74), H at least 2.

    Raises:
        UserError: The robot's state does not contain tips and grippers.
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


def embed(z_NZ: FloatArray, motion_N: IntArray, episode_N: IntArray) -> EmbeddedLatents:
    """Project latents, and measure how well their neighbours predict the motion type."""
    centred_NZ = z_NZ - z_NZ.mean(0)
    _, size_Z, axis_ZZ = np.linalg.svd(centred_NZ, full_matrices=False)
    share_Z = size_Z**2 / max(float((size_Z**2).sum()), 1e-12)
    accuracy = neighbour_accuracy(z_NZ, motion_N, episode_N)
    return EmbeddedLatents(centred_NZ @ axis_ZZ[:2].T, share_Z[:2], accuracy)


def neighbour_accuracy(
    z_NZ: FloatArray, label_N: IntArray, episode_N: IntArray, neighbours: int = NEIGHBOURS
) -> float:
    """Return the share of chunks whose label is that of most of their nearest neighbours.

    Neighbours are of other episodes only, since chunks of the same episode overlap and any encoder
    would find them. A tie goes to the label of the nearest neighbour.

    Args:
        z_NZ: Latents (N, Z).
        label_N: Labels to predict (N,).
        episode_N: Episode of each chunk (N,).
        neighbours: Number of neighbours that vote.

    Raises:
        UserError: A chunk has too few chunks of other episodes.
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
    predicted_N = (is_label_NKL * vote_K[:, None]).sum(1).argmax(1)
    return float((predicted_N == label_N).mean())


def _hands(robot: Embodiment, state_NHS: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Return each hand's displacement (G, N, 3) [m] over a chunk, and when it holds (G, N, H)."""
    tips = [g for g in robot.state if g.slot == "end_effector" and g.unit == "m"]
    states = zip(robot.state, robot.state_representations, strict=True)
    grippers = [g for g, known in states if known.is_gripper and g.unit in _HOLDING]
    if not tips or len(tips) != len(grippers) or any(len(g.features) != 3 for g in tips):
        raise UserError(
            f"the state of robot {robot.name!r} does not show motion types; expected, per hand, "
            "a tip (x, y, z) [m] and a gripper of unit '1' or 'm', as robots of the suite have"
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
