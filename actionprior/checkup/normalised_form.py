"""What normalisation does to actions, and how much of the unified spaces is used."""

from collections.abc import Iterator

import torch

from actionprior.checkup.finding import Finding, Level
from actionprior.checkup.subject import Subject
from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH, rotations
from actionprior.embodiment.normalization import CONSTANT, Normalizer

WINDOWS = 4096


def check_round_trip(subject: Subject) -> Iterator[Finding]:
    """Normalise → unnormalise error, and slots used."""
    every = max(1, len(subject.store) // WINDOWS)
    frames_B = torch.arange(0, len(subject.store), every)
    batch = subject.store.future(frames_B, subject.chunk_length)
    normalizer = Normalizer([subject.robot], chunk_length=subject.chunk_length)
    normalizer.fit(batch)
    normal_BHA = normalizer.normalize_action(batch)
    relative_BHA = normalizer.unnormalize_action(normal_BHA, batch.embodiment_B)
    action_BHA = normalizer.absolute_action(relative_BHA, batch.reference_BA, batch.embodiment_B)
    mask_BHA = normalizer.action_mask(batch)
    off_BHA = action_BHA - batch.action_BHA
    angles = torch.from_numpy(subject.robot.angle_mask())
    # A whole turn is no other angle, nor is π about an axis another turn than about its opposite.
    off_BHA = torch.where(angles, rotations.wrapped(off_BHA), off_BHA)
    for start in subject.robot.rotation_starts():
        three = slice(start, start + rotations.VECTOR_WIDTH)
        off_BHA[..., three] = rotations.relative_vector(
            action_BHA[..., three], batch.action_BHA[..., three]
        )
    wrong = float(off_BHA.abs()[mask_BHA].max())
    scale = float(batch.action_BHA.abs()[mask_BHA].max())
    level: Level = "note" if wrong <= 1e-3 * max(scale, CONSTANT) else "error"  # NaN is one
    slots = int(subject.robot.action_mask().sum()), int(subject.robot.state_mask().sum())
    yield subject.say(
        level,
        "round_trip",
        "",
        f"normalised and back, an action is off by at most {wrong:.1e}; {slots[0]} of "
        f"{ACTION_WIDTH} action and {slots[1]} of {STATE_WIDTH} state slots are used",
    )
