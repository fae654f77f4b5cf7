"""What may be wrong with a robot's recordings, found before a GPU hour is spent on them.

Each check looks at one recording in the robot's own units and says what it found, where, and what
it expected. Axes: N frames, D features of a vector, E episodes.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from actionprior.embodiment import ActionGroup, Embodiment, FloatArray, StateGroup
from actionprior.normalization import CONSTANT, RELATIVE_FLOOR, Normalizer
from actionprior.trajectories import Recording, TrajectoryStore, moving

Level = Literal["error", "warning", "note"]

FAR = 5.0  # an outlier lies this many 1-99 % ranges beyond them
LARGEST = {"rad": 4 * np.pi, "m": 10.0}  # what a unit's values can hardly exceed
MOSTLY = 0.99
MANY = 0.5


class Finding(NamedTuple):
    """One thing found.

    Attributes:
        level: ``error`` spoils training, ``warning`` is worth a look, ``note`` is good to know.
        check: its name.
        robot: the embodiment's name.
        dataset: which of the robot's datasets.
        feature: name of the feature or group; empty: all.
        episode: number in the dataset; -1: all.
        frame: row in the episode; -1: all.
        message: what was found and what to do.
    """

    level: Level
    check: str
    robot: str
    dataset: str
    feature: str
    episode: int
    frame: int
    message: str


class Checkup:
    """The checks of one recording.

    Args:
        robot: whose recording it is.
        dataset: its name in the findings.
        recording: the frames.
        chunk_length: steps H of a chunk, by which episodes are judged.
    """

    def __init__(
        self, robot: Embodiment, dataset: str, recording: Recording, chunk_length: int
    ) -> None:
        self.robot, self.dataset, self.chunk_length = robot, dataset, chunk_length
        self.lengths_E = recording.lengths_E
        self.stop_E = np.cumsum(recording.lengths_E)
        self.action_ND: FloatArray = recording.action_Na[:]
        self.state_ND: FloatArray = recording.state_Ns[:]
        self.store = TrajectoryStore([robot], [(0, recording)])

    def findings(self) -> list[Finding]:
        """Everything found, errors first."""
        found = [
            *self._values("action", self.action_ND, self.robot.action),
            *self._values("state", self.state_ND, self.robot.state),
            *self._action_against_state(),
            *self._grippers(),
            *self._episodes(),
            *self._motion(),
            *self._round_trip(),
        ]
        order = ["error", "warning", "note"]
        return sorted(found, key=lambda finding: order.index(finding.level))

    # ---- checks -------------------------------------------------------------------------------

    def _values(
        self, kind: str, values_ND: FloatArray, groups: Sequence[ActionGroup | StateGroup]
    ) -> Iterator[Finding]:
        for group, part_ND in _parts(values_ND, groups):
            low, high = np.quantile(part_ND, [0.01, 0.99], axis=0)
            spread, whole = high - low, np.ptp(part_ND, axis=0)
            for entry, feature in enumerate(group.features):
                name, column = f"{kind} {feature}", part_ND[:, entry]
                if whole[entry] < CONSTANT:
                    yield self._say("warning", "constant", name, f"is {column[0]:g} in every frame")
                elif spread[entry] < RELATIVE_FLOOR * spread.max():
                    yield self._say(
                        "note",
                        "narrow",
                        name,
                        f"its 1-99 % range is {spread[entry]:.3g}, the widest of its group's "
                        f"{spread.max():.3g}; it is scaled by a floor",
                    )
                margin = FAR * max(spread[entry], RELATIVE_FLOOR * spread.max())
                far = (column > high[entry] + margin) | (column < low[entry] - margin)
                if margin > 0 and far.any():
                    at = int(far.argmax())
                    yield self._say(
                        "warning",
                        "outlier",
                        name,
                        f"is {column[at]:.4g}, where 98 % lie in {low[entry]:.4g} to "
                        f"{high[entry]:.4g} ({int(far.sum())} such values)",
                        at,
                    )
            limit = LARGEST.get(group.unit)
            if limit is not None and np.abs(part_ND).max() > limit:
                at = int(np.abs(part_ND).max(axis=1).argmax())
                other = {"rad": "degrees", "m": "millimetres"}[group.unit]
                yield self._say(
                    "error",
                    "unit",
                    f"{kind} {group.name}",
                    f"reaches {np.abs(part_ND).max():.4g} {group.unit}; is it in {other}?",
                    at,
                )

    def _action_against_state(self) -> Iterator[Finding]:
        states = {g.name: part for g, part in _parts(self.state_ND, self.robot.state)}
        inside_N = np.ones(len(self.action_ND), dtype=np.bool_)
        inside_N[self.stop_E - 1] = False  # no next frame in the episode
        for group, action_ND in _parts(self.action_ND, self.robot.action):
            if not group.relative_to:
                continue
            state_ND = states[group.relative_to]
            tolerance = 1e-5 * max(float(np.ptp(state_ND)), CONSTANT)
            if not np.ptp(state_ND, axis=0).max() > CONSTANT:
                continue
            same = np.abs(action_ND - state_ND).max(axis=1) <= tolerance
            after = np.abs(action_ND[:-1] - state_ND[1:]).max(axis=1) <= tolerance
            if same.mean() > MOSTLY:
                yield self._say(
                    "error",
                    "action_is_state",
                    group.name,
                    f"action equals state {group.relative_to!r} of the same frame in "
                    f"{same.mean():.0%} of frames: such a policy would stand still",
                )
            elif after[inside_N[:-1]].mean() > MOSTLY:
                yield self._say(
                    "note",
                    "action_is_next_state",
                    group.name,
                    "action is the next frame's state: what was reached, not what was commanded",
                )
            else:
                yield from self._lag(group, action_ND, state_ND)

    def _lag(
        self, group: ActionGroup, action_ND: FloatArray, state_ND: FloatArray
    ) -> Iterator[Finding]:
        """By how many steps the state follows the action, where that can be told."""
        steps = range(-5, 11)
        apart = [_mean_distance(action_ND, state_ND, lag) for lag in steps]
        best = steps[int(np.argmin(apart))]
        seconds = best / self.robot.control_hz
        if best < 0:
            yield self._say(
                "warning",
                "action_lags_state",
                group.name,
                f"action fits the state {-best} steps ({-seconds:.2f} s) earlier best: it tells "
                "what has been done already",
            )
        else:
            yield self._say(
                "note",
                "lag",
                group.name,
                f"state follows action by about {best} steps ({seconds:.2f} s)",
            )

    def _grippers(self) -> Iterator[Finding]:
        for group, part_ND in _parts(self.action_ND, self.robot.action):
            if group.representation != "gripper":
                continue
            for entry, feature in enumerate(group.features):
                column = part_ND[:, entry]
                low, high = float(column.min()), float(column.max())
                if high - low < CONSTANT:
                    continue  # told as constant
                ends = [np.isclose(column, end, atol=0.01 * (high - low)) for end in (low, high)]
                yield self._say(
                    "note",
                    "gripper",
                    f"action {feature}",
                    f"from {low:.3g} to {high:.3g}; at the low end in {ends[0].mean():.0%} of "
                    f"frames, at the high end in {ends[1].mean():.0%}",
                )

    def _episodes(self) -> Iterator[Finding]:
        short = np.nonzero(self.lengths_E < self.chunk_length)[0]
        if len(short):
            yield Finding(
                "warning",
                "short",
                self.robot.name,
                self.dataset,
                "",
                int(short[0]),
                -1,
                f"has {self.lengths_E[short[0]]} frames, fewer than a chunk of "
                f"{self.chunk_length} ({len(short)} such episodes)",
            )
        missing = self.chunk_length - 1 - np.arange(self.chunk_length)
        padded = sum(float(np.maximum(missing[: int(n)], 0).sum()) for n in self.lengths_E)
        share = padded / (self.chunk_length * int(self.lengths_E.sum()))
        level: Level = "warning" if share > MANY else "note"
        yield self._say(
            level, "padded", "", f"{share:.1%} of all chunks' steps lie past an episode's end"
        )

    def _motion(self) -> Iterator[Finding]:
        frames_N = torch.arange(len(self.store))
        idle = 1 - float(moving(self.store, frames_N, self.chunk_length, 0.02).float().mean())
        level: Level = "warning" if idle > MANY else "note"
        advice = "; consider skip_idle" if idle > MANY else ""
        yield self._say(level, "idle", "", f"hardly anything moves in {idle:.0%} of chunks{advice}")

    def _round_trip(self) -> Iterator[Finding]:
        every = max(1, len(self.store) // 4096)
        batch = self.store.future(torch.arange(0, len(self.store), every), self.chunk_length)
        normalizer = Normalizer([self.robot], chunk_length=self.chunk_length)
        normalizer.fit(batch)
        normal_BHA = normalizer.normalize_action(batch)
        relative_BHA = normalizer.unnormalize_action(normal_BHA, batch.embodiment_B)
        action_BHA = normalizer.absolute_action(
            relative_BHA, batch.reference_BA, batch.embodiment_B
        )
        mask_BHA = normalizer.action_mask(batch)
        wrong = float((action_BHA - batch.action_BHA).abs()[mask_BHA].max())
        scale = float(batch.action_BHA.abs()[mask_BHA].max())
        level: Level = "error" if wrong > 1e-3 * max(scale, CONSTANT) else "note"
        slots = int(self.robot.action_mask().sum()), int(self.robot.state_mask().sum())
        yield self._say(
            level,
            "round_trip",
            "",
            f"normalised and back, an action is off by at most {wrong:.1e}; {slots[0]} of 37 "
            f"action and {slots[1]} of 74 state slots are used",
        )

    def _say(self, level: Level, check: str, feature: str, message: str, at: int = -1) -> Finding:
        """A finding, at frame ``at`` of the recording where one is given."""
        episode = row = -1
        if at >= 0:
            episode = int(np.searchsorted(self.stop_E, at, side="right"))
            row = at - int(self.stop_E[episode] - self.lengths_E[episode])
        name = self.robot.name
        return Finding(level, check, name, self.dataset, feature, episode, row, message)


def _parts[G: ActionGroup | StateGroup](
    values_ND: FloatArray, groups: Sequence[G]
) -> Iterator[tuple[G, FloatArray]]:
    first = 0
    for group in groups:
        yield group, values_ND[:, first : first + len(group.features)]
        first += len(group.features)


def _mean_distance(action_ND: FloatArray, state_ND: FloatArray, lag: int) -> float:
    """Mean distance of action[t] from state[t + lag], episodes' edges included."""
    count = len(action_ND) - abs(lag)
    if count < 1:
        return float("inf")
    first = max(0, -lag)
    apart: npt.NDArray[np.float64] = np.abs(
        action_ND[first : first + count] - state_ND[first + lag : first + lag + count]
    ).mean(axis=1, dtype=np.float64)
    return float(apart.mean())
