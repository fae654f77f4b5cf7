"""Check that normalisation is reversible, and report how much of the unified spaces is used."""

from collections.abc import Iterator

import torch

from actionprior.checkup.finding import Finding, Level
from actionprior.checkup.subject import Subject
from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH
from actionprior.embodiment.normalization import CONSTANT, Normalizer

WINDOWS = 4096


def check_round_trip(subject: Subject) -> Iterator[Finding]:
    """Measure how much normalising actions and back changes them, and count the slots in use."""
    every = max(1, len(subject.store) // WINDOWS)
    frames_B = torch.arange(0, len(subject.store), every)
    batch = subject.store.future(frames_B, subject.chunk_length)
    normalizer = Normalizer([subject.robot], chunk_length=subject.chunk_length)
    normalizer.fit(batch)
    normal_BHA = normalizer.normalize_action(batch)
    relative_BHA = normalizer.unnormalize_action(normal_BHA, batch.embodiment_B)
    action_BHA = normalizer.absolute_action(relative_BHA, batch.reference_BA, batch.embodiment_B)
    mask_BHA = normalizer.action_mask(batch)
    error_BHA = torch.zeros_like(action_BHA)
    for form, slots in subject.robot.relative_forms():
        error_BHA[..., slots] = form.apart(action_BHA[..., slots], batch.action_BHA[..., slots])
    largest = float(error_BHA.abs()[mask_BHA].max())
    scale = float(batch.action_BHA.abs()[mask_BHA].max())
    level: Level = "note" if largest <= 1e-3 * max(scale, CONSTANT) else "error"  # also if NaN
    used = int(subject.robot.action_mask().sum()), int(subject.robot.state_mask().sum())
    yield subject.say(
        level,
        "round_trip",
        "",
        f"normalising an action and back changes it by at most {largest:.1e}; {used[0]} of "
        f"{ACTION_WIDTH} action and {used[1]} of {STATE_WIDTH} state slots are used",
    )
