"""Check that normalisation is reversible, and report how much of the unified spaces is used."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from actionprior.checkup.advice import RECORD, exclude_listed
from actionprior.checkup.finding import Finding, Level
from actionprior.checkup.subject import GroupValues, Subject
from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH, ActionGroup, StateGroup
from actionprior.embodiment.normalization import FEW, RELATIVE_FLOOR, Normalizer

WINDOWS = 1024
WILD = 20.0  # size of a learnt value that counts as wild
_WIDTH = {"action": ACTION_WIDTH, "state": STATE_WIDTH}


def check_round_trip(subject: Subject) -> Iterator[Finding]:
    """Measure how much normalising actions and back changes them, and count the slots in use."""
    frames_B = torch.arange(0, len(subject.store), _stride(subject))
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
    level: Level = "note" if largest <= 1e-3 * scale else "error"  # also if NaN
    used = int(subject.robot.action_mask().sum()), int(subject.robot.state_mask().sum())
    yield subject.say(
        level,
        "round_trip",
        "",
        f"normalising an action and back changes it by at most {largest:.1e}; {used[0]} of "
        f"{ACTION_WIDTH} action and {used[1]} of {STATE_WIDTH} state slots are used",
        advice="" if level == "note" else f"see the findings about outliers; {RECORD}",
    )
    yield from _rare(subject, normalizer)
    normal_BHS = normalizer.normalize_state(batch.state_BHS, batch.embodiment_B)
    yield from _wild(subject, "action", normal_BHA)
    yield from _wild(subject, "state", normal_BHS)


def _rare(subject: Subject, normalizer: Normalizer) -> Iterator[Finding]:
    """Name the entries that are scaled by rare values, because the 1-99 % range is too narrow."""
    for entry in entries(subject):
        q01, q99, scale = (
            getattr(normalizer, f"{entry.kind}_{name}")[0].reshape(-1, _WIDTH[entry.kind])
            for name in ("q01", "q99", "scale")
        )
        floor = RELATIVE_FLOOR * scale[:, entry.group].max()
        range_H, scale_H = (q99 - q01)[:, entry.slot], scale[:, entry.slot]
        step = int((scale_H - range_H / 2).argmax())
        if scale_H[step] > 1.01 * max(float(range_H[step]) / 2, float(floor)) != 0:
            yield subject.say(
                "note",
                "rare",
                f"{entry.kind} {entry.name}",
                f"moves rarely: 98 % of the values that are learnt lie within "
                f"{float(range_H[step]):.3g} of each other, yet rare ones go "
                f"{FEW * float(scale_H[step]):.3g} from their middle; it is scaled by a fifth of "
                f"that, so that they stay within {FEW:g} units",
            )


def _wild(subject: Subject, kind: str, normal_BHD: Tensor) -> Iterator[Finding]:
    """Name the entries in which single values stay far outside of the learnt range."""
    for entry in entries(subject):
        if entry.kind != kind:
            continue
        size_BH = normal_BHD[..., entry.slot].abs()
        largest, (window, step) = (
            float(size_BH.max()),
            divmod(int(size_BH.argmax()), size_BH.shape[1]),
        )
        if largest > WILD:
            wild_B = np.nonzero((size_BH > WILD).any(dim=1).numpy())[0] * _stride(subject)
            episodes = np.unique(np.searchsorted(subject.stop_E, wild_B, side="right")).tolist()
            yield subject.say(
                "warning",
                "wild",
                f"{kind} {entry.name}",
                f"is learnt as up to {largest:.0f} units, and other values as about 1: single "
                "frames are wild, and their loss hides all others",
                at=min(window * _stride(subject) + step, len(subject.store) - 1),
                advice=exclude_listed(subject, episodes),
            )


class Entry(NamedTuple):
    """One unified entry of a robot: action or state, its name, its slot, and its group's slots."""

    kind: str
    name: str
    slot: int
    group: slice


def entries(subject: Subject) -> Iterator[Entry]:
    """List the unified entries of the dataset's robot."""
    robot = subject.robot
    for action in subject.actions:
        assert isinstance(action.group, ActionGroup)
        yield from _of_group(action, robot.action_slots(action.group))
    for state in subject.states:
        assert isinstance(state.group, StateGroup)
        yield from _of_group(state, robot.state_slots(state.group))


def _of_group(part: GroupValues, where: slice) -> Iterator[Entry]:
    names = part.representation.entry_names(part.group.features, part.group.name)
    for slot, name in zip(range(where.start, where.stop), names, strict=True):
        yield Entry(part.kind, name, slot, where)


def _stride(subject: Subject) -> int:
    """Return the distance of the windows that are examined [frames]."""
    return max(1, len(subject.store) // WINDOWS)
