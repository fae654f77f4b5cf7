"""Compare a dataset with what a checkpoint was trained on.

Axes: E robots of the checkpoint, N frames, H steps, S = 74 state slots, A = 37 action slots.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch

from actionprior.checkup.advice import groups_as, in_groups, on_robot
from actionprior.checkup.finding import Finding
from actionprior.checkup.normalised_form import Entry, entries
from actionprior.checkup.subject import Subject
from actionprior.embodiment import Embodiment, FloatArray
from actionprior.embodiment.image_shape import ImageShape
from actionprior.embodiment.normalization import Normalizer

FRAMES = 4096  # frames and windows that are compared
BEYOND = {"quantile": 2.0, "mean_std": 4.0}  # normalised size that counts as out of range
OFTEN = 0.05  # share of frames out of range that is reported


@dataclass(frozen=True)
class Trained:
    """What a checkpoint was trained on.

    Attributes:
        path: The checkpoint, for messages.
        normalizer: Its robots and statistics.
        sees: True for policies, which see images.
        image_shape: Size at which it sees images; None if unknown.
    """

    path: str
    normalizer: Normalizer
    sees: bool = False
    image_shape: ImageShape | None = None


def compare(subject: Subject, recipe: Embodiment, trained: Trained) -> Iterator[Finding]:
    """Find differences in robot, units, cameras and ranges between a dataset and a checkpoint.

    Args:
        subject: Dataset under examination.
        recipe: Its robot as the recipe describes it.
        trained: The checkpoint.
    """
    names = [robot.name for robot in trained.normalizer.embodiments]
    if recipe.name not in names:
        yield subject.say(
            "error",
            "checkpoint_robot",
            "",
            f"{trained.path} knows the robots {', '.join(names)}, and not {recipe.name!r}",
            advice=f"if it is the same robot: {on_robot(name=names[0])}; if it is new, "
            "`--model.allow_new_embodiments true` lets it join in Stage 2",
        )
        return
    row = names.index(recipe.name)
    known = trained.normalizer.embodiments[row]
    differences = recipe.differences(known)
    advice = _as_in_training(recipe, known)
    for difference in differences:
        yield subject.say("error", "checkpoint_robot", "", difference, advice=advice)
    if trained.sees:
        yield from _cameras(subject, recipe, known)
    if not differences and bool(trained.normalizer.fitted_E[row]):
        yield from _ranges(subject, trained, row)


def compare_images(subject: Subject, trained: Trained, shape: ImageShape) -> Iterator[Finding]:
    """Find images that the recipe brings to another size than the checkpoint's policy saw."""
    saw = trained.image_shape
    if saw is not None and saw != shape:
        yield subject.say(
            "warning",
            "checkpoint_camera",
            "",
            f"the policy saw images of {saw}, and the recipe makes them {shape}",
            advice=f"`--data.images.image_size '[{saw.rows}, {saw.columns}]' "
            f"--data.images.fit {saw.fit}`",
        )


def _as_in_training(recipe: Embodiment, known: Embodiment) -> str:
    """Name the lines that describe a robot as a checkpoint knows it."""
    lines = []
    if recipe.control_hz != known.control_hz:
        lines.append(on_robot(control_hz=known.control_hz, resample=True))
    changes: dict[tuple[str, str], dict[str, Any]] = {}
    for kind in ("action", "state"):
        groups, in_training = getattr(recipe, kind), getattr(known, kind)
        if [g.name for g in groups] != [g.name for g in in_training]:
            lines.append(groups_as(in_training, kind))
            continue
        for mine, other in zip(groups, in_training, strict=True):
            keys = {k: v for k, v in vars(other).items() if v != vars(mine)[k]}
            if keys:
                changes[kind, mine.name] = keys
    return " and ".join([*lines, *([in_groups(changes)] if changes else [])])


def _cameras(subject: Subject, recipe: Embodiment, known: Embodiment) -> Iterator[Finding]:
    if recipe.cameras != known.cameras:
        same = sorted(recipe.cameras) == sorted(known.cameras)
        yield subject.say(
            "error" if same else "warning",
            "checkpoint_camera",
            "",
            f"the policy saw the cameras {known.cameras}, {'in this order, ' * same}and the recipe "
            f"has {recipe.cameras}",
            advice=on_robot(cameras=known.cameras),
        )


def _ranges(subject: Subject, trained: Trained, row: int) -> Iterator[Finding]:
    """Find entries that are often far out of the range that the checkpoint's statistics know."""
    normalizer = trained.normalizer
    frames = len(subject.store)
    frames_B = torch.arange(0, frames, max(1, frames // FRAMES))
    steps = min(subject.chunk_length, normalizer.action_scale.shape[1])
    batch = subject.store.future(frames_B, steps)
    batch = batch._replace(embodiment_B=torch.full_like(batch.embodiment_B, row))
    with torch.no_grad():
        state_BS = normalizer.normalize_state(batch.state_BHS[:, :1], batch.embodiment_B)[:, 0]
        action_BHA = normalizer.normalize_action(batch)
    inside_BH = batch.step_mask_BH
    for entry in entries(subject):
        if entry.kind == "state":
            size_N = state_BS[:, entry.slot].abs().numpy()
            recorded_N = batch.state_BHS[:, 0, entry.slot].numpy()
        else:
            size_N = action_BHA[..., entry.slot][inside_BH].abs().numpy()
            recorded_N = normalizer.relative_action(batch)[..., entry.slot][inside_BH].numpy()
        share = float((size_N > BEYOND[normalizer.law]).mean())
        if share > OFTEN:
            yield _out_of_range(subject, trained, row, entry, share, recorded_N)


def _out_of_range(
    subject: Subject,
    trained: Trained,
    row: int,
    entry: Entry,
    share: float,
    recorded_N: FloatArray,
) -> Finding:
    normalizer = trained.normalizer
    low, high = (
        getattr(normalizer, f"{entry.kind}_{name}")[row][..., entry.slot] for name in ("q01", "q99")
    )
    found = np.quantile(recorded_N, [0.01, 0.99])
    learnt = "" if entry.kind == "state" else "in the learnt form "
    return subject.say(
        "warning",
        "checkpoint_range",
        f"{entry.kind} {entry.name}",
        f"{learnt}is from {found[0]:.3g} to {found[1]:.3g} here (98 %), and was from "
        f"{float(low.min()):.3g} to {float(high.max()):.3g} in training; {share:.0%} of values are "
        "far out of that: are unit, zero and joint the same?",
        advice=f"if the robot is another one: {on_robot(name=_new_name(normalizer, row))} and, in "
        "Stage 2, `--model.allow_new_embodiments true` give it statistics of its own",
    )


def _new_name(normalizer: Normalizer, row: int) -> str:
    names = [robot.name for robot in normalizer.embodiments]
    return next(n for n in (f"{names[row]}_{i}" for i in count(2)) if n not in names)
