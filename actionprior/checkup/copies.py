"""Check for episodes that repeat frames of another episode.

Axes: N frames, E episodes.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from actionprior.checkup.advice import EXCLUDE
from actionprior.checkup.finding import Finding
from actionprior.checkup.subject import Subject
from actionprior.embodiment import FloatArray

SHARED = 0.3  # share of an episode's moving frames that another episode has, too
LEAST = 5  # frames that must be shared


def check_copies(subject: Subject) -> Iterator[Finding]:
    """Find episodes of which many frames are in an earlier episode, with actions and states."""
    hash_N = _hash(subject.action_ND, 0) + _hash(subject.state_ND, 1)
    _, first_N, code_N = np.unique(hash_N, return_index=True, return_inverse=True)
    episode_N = np.repeat(np.arange(len(subject.lengths_E)), subject.lengths_E)
    again_N = episode_N[first_N[code_N]] != episode_N
    still_N = np.concatenate([[False], code_N[1:] == code_N[:-1]])  # a robot at rest
    found: dict[int, tuple[int, float]] = {}
    for episode in np.unique(episode_N[again_N]).tolist():
        rows = slice(int(subject.start_E[episode]), int(subject.stop_E[episode]))
        moves_T = ~still_N[rows]
        source_T = episode_N[first_N[code_N[rows]]]
        others = Counter(source_T[moves_T & again_N[rows]].tolist())
        if not others:
            continue
        other, shared = others.most_common(1)[0]
        share = shared / int(moves_T.sum())
        if shared >= LEAST and share > SHARED:
            found[episode] = (other, share)
    for episode, (other, share) in found.items():
        what = "is a copy of" if share == 1 else f"shares {share:.0%} of its frames with"
        yield subject.say(
            "warning",
            "duplicate",
            "",
            f"{what} episode {subject.number_E[other]}: if only one of them is held out, "
            "validation uses training data",
            episode=episode,
            episodes=[episode],
            advice=EXCLUDE,
        )


def _hash(values_ND: FloatArray, seed: int) -> npt.NDArray[np.uint64]:
    """Hash each row; equal rows have equal hashes, and others differ but for 1 in 10^19."""
    rng = np.random.default_rng(seed)
    factors = rng.integers(0, 2**64, values_ND.shape[1], np.uint64) | np.uint64(1)
    hash_N = np.zeros(len(values_ND), dtype=np.uint64)
    bits_ND = np.ascontiguousarray(values_ND).view(np.uint32)
    for factor, bits_N in zip(factors, bits_ND.T, strict=True):
        hash_N += bits_N * factor
    return hash_N
