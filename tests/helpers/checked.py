"""Clean recordings of a small arm, and what the checks find in them."""

import numpy as np

from actionprior.checkup import Finding, Subject, examine
from actionprior.data import Contents
from actionprior.data.store import Recording
from actionprior.embodiment import ActionGroup, Embodiment, StateGroup

JOINTS = ["j1", "j2", "j3"]


def robot(unit: str = "rad") -> Embodiment:
    return Embodiment(
        name="arm",
        control_hz=10,
        action=[
            ActionGroup("arm", "joints", JOINTS, "joint_position", unit, 0, "arm"),
            ActionGroup("gripper", "joints", ["grip"], "gripper", "", 7),
        ],
        state=[
            StateGroup("arm", "joints", JOINTS, "position", unit),
            StateGroup("gripper", "joints", ["grip"], "gripper", "", 7),
        ],
    )


def clean(lengths: tuple[int, ...] = (80, 60), lag: int = 2) -> Recording:
    """Smooth motion; the state follows the action by ``lag`` steps."""
    rng = np.random.default_rng(0)
    action, state = [], []
    for length in lengths:
        t = np.arange(length + lag)[:, None] / 10
        path = np.sin(t * rng.uniform(0.5, 1.5, 3) + rng.uniform(0, 6, 3))
        grip = (np.sin(t) > 0).astype(float)
        both = np.concatenate([path, grip], axis=1).astype(np.float32)
        action.append(both[lag:])
        state.append(both[:length])
    return Recording(np.concatenate(action), np.concatenate(state), np.array(lengths))


def found(recording: Recording, arm: Embodiment | None = None, **more) -> dict[str, Finding]:
    subject = Subject(arm or robot(), "data", Contents(recording, **more), chunk_length=15)
    findings = examine(subject)
    levels = [finding.level for finding in findings]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)
    return {finding.check: finding for finding in findings}
