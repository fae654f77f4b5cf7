"""Actions that leave an arm standing: equal to the state, constant, or predicted too small.

Axes: N windows, E episodes.
"""

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from actionprior.checkup import Finding, Subject
from actionprior.checkup.action_and_state import check_action_and_state
from actionprior.data import Contents, EmbodiedDataModule
from actionprior.data.store import Recording
from actionprior.diagnosis import chunks
from actionprior.diagnosis.chunks import Recorded
from actionprior.diagnosis.measurement import Diagnosis, MeasuredValue, finding

EPISODES = 200  # that are read of each dataset
STILL = 0.3  # predicted travel over recorded travel
SAME = 0.99  # share of frames near the median that makes a feature almost constant
NEAR = 0.01  # of the feature's range


def diagnose_actions(
    data: EmbodiedDataModule, robot: int, recorded: Recorded, plain_NHA: Tensor
) -> Diagnosis:
    """Check the recorded actions, and compare how far predicted and recorded chunks travel."""
    found = [f for subject in _subjects(data, robot) for f in _check(subject)]
    name, body = recorded.robot.name, recorded.robot
    ends = [
        chunks.chunk_ends(body, chunk, recorded.mask_NHA)
        for chunk in (plain_NHA, recorded.chunk_NHA)
    ]
    rows = []
    for group, kind in zip(body.action, body.action_representations, strict=True):
        if kind.is_gripper or not (group.relative_to or kind.is_change):
            continue
        mine, true = (float(end[:, body.action_slots(group)].abs().mean()) for end in ends)
        if true < chunks.NOTHING:
            continue
        rows.append(MeasuredValue(name, "actions", "predicted over recorded travel", group.name,
                                mine / true, ""))  # fmt: skip
        if mine < STILL * true:
            message = (
                f"moves {mine / true:.0%} of the recorded way: the arm nearly stands still; look "
                "at the latent's error above, and leave idle windows out (skip_idle)"
            )
            found.append(finding("warning", "stands_still", name, group.name, message))
    return Diagnosis(rows, found)


def _subjects(data: EmbodiedDataModule, robot: int) -> Iterator[Subject]:
    store = data.frames.store
    for number, (index, recording) in enumerate(zip(store.robot_R, store.recordings, strict=True)):
        if index == robot:
            lengths_E = recording.lengths_E[:EPISODES]
            stop = int(lengths_E.sum())
            part = Recording(recording.action_Na[:stop], recording.state_Ns[:stop], lengths_E)
            title = recording.name or f"recording {number}"
            yield Subject(data.embodiments[robot], title, Contents(part), data.chunk_length)


def _check(subject: Subject) -> Iterator[Finding]:
    for found in check_action_and_state(subject):
        if found.level != "note":
            yield found
    for part in subject.actions:
        for entry, feature in enumerate(part.group.features):
            values_N = part.values_ND[:, entry]
            width = float(np.ptp(values_N))
            near_N = np.abs(values_N - np.median(values_N)) <= NEAR * width
            if near_N.mean() > SAME:
                yield subject.say(
                    "note" if part.representation.is_gripper else "warning",
                    "constant_action",
                    f"action {feature}",
                    f"is almost the same in {near_N.mean():.0%} of frames: the policy learns to "
                    "keep it there; check the recording, or leave the feature out",
                )
