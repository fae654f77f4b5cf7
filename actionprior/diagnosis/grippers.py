"""When a policy switches its grippers, and when the recordings do.

Axes: N frames or windows, H steps.
"""

from collections.abc import Iterator

import numpy as np
import torch

from actionprior.checkup import Finding
from actionprior.data import EmbodiedDataModule
from actionprior.data.frame_ranges import BoolArray, IntArray
from actionprior.data.keyframes import GripperEntry, gripper_entries
from actionprior.diagnosis import chunks, windows
from actionprior.diagnosis.measurement import Diagnosis, MeasuredValue, finding
from actionprior.embodiment import Embodiment
from actionprior.embodiment.normalization import CONSTANT
from actionprior.networks.policy_network import PolicyNetwork

LONGEST = 8  # steps by which switching may be off
LATE = 2  # steps that are worth a finding
MISSED = 0.3  # share of missed switches that is worth a finding
FEWEST = 4  # windows with a switch


def best_shift(first_NH: BoolArray, second_NH: BoolArray, longest: int) -> int:
    """Return s at which first[h + s] and second[h] agree best; the smallest of equal ones."""
    steps = first_NH.shape[-1]
    longest = min(longest, steps - 1)

    def agreement(s: int) -> float:
        here = first_NH[..., max(0, s) : steps + min(0, s)]
        there = second_NH[..., max(0, -s) : steps - max(0, s)]
        return float((here == there).mean())

    return max(range(-longest, longest + 1), key=lambda s: (round(agreement(s), 6), -abs(s)))


def diagnose_grippers(
    network: PolicyNetwork, data: EmbodiedDataModule, robot: int, index: int, count: int
) -> Diagnosis:
    """Compare predicted and recorded switching, and the recorded command with its state.

    Args:
        network: The policy.
        data: Data module of Stage 2, already set up.
        robot: Number of the robot in the data.
        index: Number of the robot in the policy.
        count: Largest number of windows to predict for each gripper.
    """
    body = data.embodiments[robot]
    spans = windows.robot_spans(data, robot, data.frames.val)
    frame_N = windows.evenly(spans, 20000)
    ahead = data.frames.store.future(torch.from_numpy(frame_N), data.chunk_length)
    rows: list[MeasuredValue] = []
    found: list[Finding] = []
    action_Na = body.action_from_unified(ahead.action_BHA[:, 0].numpy())
    for entry in gripper_entries(body, action_Na):
        high_NH = ahead.action_BHA[..., entry.slot].numpy() > entry.middle
        inside_N = ahead.step_mask_BH.all(1).numpy()
        switch_N = (high_NH[:, :1] != high_NH).any(1)
        early_N = high_NH[:, 0] != high_NH[:, max(1, data.chunk_length - LATE - 1)]
        chosen = np.nonzero(inside_N & switch_N & early_N)[0]
        if len(chosen) < FEWEST:
            continue
        chosen = chosen[np.linspace(0, len(chosen) - 1, min(count, len(chosen))).astype(int)]
        part = _predicted(network, data, index, body, entry, frame_N[chosen], high_NH[chosen])
        rows += part.measurements
        found += part.findings
    return Diagnosis(rows, [*found, *late_labels(data, robot)])


def _predicted(
    network: PolicyNetwork,
    data: EmbodiedDataModule,
    index: int,
    robot: Embodiment,
    entry: GripperEntry,
    frame_N: IntArray,
    recorded_NH: BoolArray,
) -> Diagnosis:
    some = windows.gather(data, index, frame_N)
    chunk_NHA = chunks.predict(network, some.observation)
    predicted_NH = chunk_NHA[..., entry.slot].numpy() > entry.middle
    shift = best_shift(predicted_NH, recorded_NH, LONGEST)
    name = robot.name
    rows = [
        MeasuredValue(name, "grippers", "predicted after recorded", entry.feature, shift, "steps")
    ]
    found = []
    if abs(shift) >= LATE:
        when = "late" if shift > 0 else "early"
        message = (
            f"switches {abs(shift)} steps too {when} ({abs(shift) / robot.control_hz:.2f} s): "
            "check that commands and images are recorded at the same time"
        )
        found.append(finding("warning", "gripper_timing", name, entry.feature, message))
    rises_N = recorded_NH[:, -1]
    for rises, way in ((True, "low to high"), (False, "high to low")):
        of_way = rises_N == rises
        if of_way.sum() < FEWEST:
            continue
        reached_N = (predicted_NH == rises)[of_way].any(1)
        missed = 1 - float(reached_N.mean())
        what = f"missed switches from {way}"
        rows.append(MeasuredValue(name, "grippers", what, entry.feature, missed, ""))
        if missed > MISSED:
            message = (
                f"misses {missed:.0%} of the switches from {way}: a gripper that hardly switches "
                "there; check its label, show more such moments, or train longer"
            )
            found.append(finding("error", "gripper_missed", name, entry.feature, message))
    return Diagnosis(rows, found)


def late_labels(data: EmbodiedDataModule, robot: int) -> Iterator[Finding]:
    """Find gripper commands that are recorded after the gripper has moved."""
    body = data.embodiments[robot]
    frame_N = np.concatenate([np.array(r) for r in data.frames.store.of_embodiment(robot)])[:20000]
    at = data.frames.store.future(torch.from_numpy(frame_N), 1)
    action_Na = body.action_from_unified(at.action_BHA[:, 0].numpy())
    for entry in gripper_entries(body, action_Na):
        for group, kind in zip(body.state, body.state_representations, strict=True):
            if not kind.is_gripper or entry.feature not in group.features:
                continue
            slot = body.state_slots(group).start + group.features.index(entry.feature)
            value_N = at.state_BHS[:, 0, slot].numpy()
            low, high = np.quantile(value_N, [0.01, 0.99]).tolist()
            if high - low <= CONSTANT:
                continue
            state_N, command_N = value_N > (low + high) / 2, action_Na[:, entry.column]
            closed_N = command_N > entry.middle
            if (closed_N == state_N).mean() < 0.5:  # what opens one closes the other
                state_N = ~state_N
            lag = best_shift(closed_N[None], state_N[None], LONGEST)
            if lag > 0:
                message = (
                    f"is recorded {lag} steps after the gripper has moved "
                    f"({lag / body.control_hz:.2f} s): it is no command, and a policy that "
                    "learns it switches late; shift it, or record the command that was sent"
                )
                yield finding("error", "late_gripper", body.name, entry.feature, message)
