"""Faults that are planted into clean recordings, one at a time.

Axes: N frames, E episodes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from actionprior.checkup import Camera
from actionprior.data.store import Recording
from actionprior.embodiment.representations.wrapped_angle import PERIODS
from bench.clean_recordings import CleanSet

Image = npt.NDArray[np.uint8]


@dataclass
class Planted:
    """Recordings with one fault, and where it is.

    Attributes:
        found: The recordings.
        checks: Names of the checks that may find the fault.
        features: Names of the features, groups or cameras that may be named.
        episode: Number of the episode.
        frames: Rows of the episode that may be named; empty if the fault is the whole episode.
    """

    found: CleanSet
    checks: tuple[str, ...]
    features: set[str]
    episode: int
    frames: range = field(default_factory=lambda: range(0))


class Planter:
    """Copy of a clean set into which a fault is planted.

    Args:
        clean: The clean set.
        rng: Source of the places and sizes.
    """

    def __init__(self, clean: CleanSet, rng: np.random.Generator) -> None:
        self.clean, self.rng, self.robot = clean, rng, clean.robot
        recording = clean.contents.recording
        self.action_Na = np.array(recording.action_Na[:])
        self.state_Ns = np.array(recording.state_Ns[:])
        self.lengths_E = recording.lengths_E
        self.hz = clean.robot.control_hz
        self.episode = int(rng.integers(len(self.lengths_E)))
        self.start = int(self.lengths_E[: self.episode].sum())
        self.stop = self.start + int(self.lengths_E[self.episode])
        self.deltas = any("delta" in g.representation for g in clean.robot.action)

    # ---- faults ------------------------------------------------------------------------------

    def lag(self) -> Planted:
        """Shift one entry in time by 0.2 to 0.5 s."""
        values_N, names = self._moving_entry()
        shift = int(self.rng.uniform(0.2, 0.5) * self.hz) + 1
        values_N[self.start + shift : self.stop] = values_N[self.start : self.stop - shift].copy()
        return self._planted(("episode_lag",), names)

    def sign(self) -> Planted:
        """Change the sign of one entry."""
        values_N, names = self._moving_entry()
        values_N[self.start : self.stop] *= -1
        return self._planted(("sign",), names)

    def offset(self) -> Planted:
        """Add 10 to 30 % of an entry's range throughout the episode."""
        values_N, names = self._moving_entry()
        values_N[self.start : self.stop] += self._size(values_N, 0.1, 0.3)
        return self._planted(("offset",), names)

    def swapped(self) -> Planted:
        """Exchange two entries of a group."""
        group = self._group("action" if self.deltas else "state")
        names = self._names(group)
        while (
            len(moving := [i for i in group if self._travel(self._values(group)[:, i]) > 0.2]) < 2
        ):
            self._move_on()
        i, j = self.rng.choice(moving, 2, replace=False).tolist()
        rows = slice(self.start, self.stop)
        values_Nd = self._values(group)
        values_Nd[rows, [i, j]] = values_Nd[rows, [j, i]]
        chosen = {names[i - group[0]], names[j - group[0]]}
        return self._planted(
            ("swapped",), {f"{k} {n}" for k in ("action", "state") for n in chosen}
        )

    def frozen_state(self) -> Planted:
        """Keep one state entry for 1 to 3 s, in which it would have moved by 20 % of its range."""
        frames = int(self.rng.uniform(1, 3) * self.hz)
        column = int(self.rng.choice(self._group("state")))
        values_N = self.state_Ns[:, column]
        first = self._moving_stretch(values_N, frames, 0.2)
        values_N[first : first + frames] = values_N[first]
        features = {f"state {self._names([column])[0]}", "state"}
        return self._planted(("frozen_state", "held"), features, first, 2)

    def held(self) -> Planted:
        """Hold a group for 0.3 to 0.6 s, in which it would have moved by 20 % of its range."""
        frames = int(self.rng.uniform(0.3, 0.6) * self.hz)
        kind = "state" if self.deltas or self.rng.random() < 0.5 else "action"
        group = self._group(kind)
        values_Nd = self._values(group)
        first = self._moving_stretch(values_Nd[:, int(self.rng.choice(group))], frames, 0.2)
        values_Nd[first : first + frames, group] = values_Nd[first, group]
        return self._planted(("held", "jump"), self._all_names(kind, group), first, 2)

    def wild_frame(self) -> Planted:
        """Move one entry by 30 to 100 % of its range, for one frame."""
        values_N, names = self._moving_entry(either=True)
        at = int(self.rng.integers(self.start + 1, self.stop - 1))
        values_N[at] += self._size(values_N, 0.3, 1.0)
        return self._planted(("wild_frame", "zero_frame"), names, at)

    def zero_frame(self) -> Planted:
        """Set the action or the state to zero for one frame; of deltas the tool's position."""
        kind = "state" if self.deltas or self.rng.random() < 0.5 else "action"
        group = self._group(kind)
        columns = group if self.deltas else list(range(self._values(group).shape[1]))
        at = int(self.rng.integers(self.start + 1, self.stop - 1))
        self._values(group)[at, columns] = 0
        return self._planted(("zero_frame", "wild_frame"), self._all_names(kind, columns), at)

    def whole_turn(self) -> Planted:
        """Count one joint a whole turn further throughout the episode, as action and state."""
        group = self._group("action")
        column = int(self.rng.choice(group))
        turn = PERIODS[self.robot.action[0].unit] * self.rng.choice([-1, 1])
        for values_Nd in (self.action_Na, self.state_Ns):
            values_Nd[self.start : self.stop, column] += turn
        names = {f"{kind} {self.robot.action_features[column]}" for kind in ("action", "state")}
        return self._planted(("whole_turn",), names)

    def copy(self) -> Planted:
        """Repeat an episode at the end, up to a third of it cut off."""
        cut = int(self.rng.uniform(0, 0.33) * (self.stop - self.start))
        rows = np.arange(self.start + cut, self.stop)
        order_N = np.concatenate([np.arange(len(self.action_Na)), rows])
        contents = self.clean.contents
        assert contents.timestamp_N is not None
        assert contents.task_N is not None
        time_N = np.concatenate(
            [contents.timestamp_N[:], contents.timestamp_N[rows] - contents.timestamp_N[rows[0]]]
        )
        recording = Recording(
            self.action_Na[order_N],
            self.state_Ns[order_N],
            np.append(self.lengths_E, len(rows)),
            contents.recording.name,
        )
        new = replace(
            contents, recording=recording, timestamp_N=time_N, task_N=contents.task_N[:][order_N]
        )
        number = len(self.lengths_E)
        cameras = [
            Camera(c.name, partial(self._again, c, number, cut), c.size) for c in self.clean.cameras
        ]
        found = self.clean._replace(contents=new, cameras=cameras)
        return Planted(found, ("duplicate",), {""}, number)

    def dropped_camera(self) -> Planted:
        """Let a camera turn black, or show its last picture, until the end of the episode."""
        index = int(self.rng.integers(len(self.clean.cameras)))
        camera, black = self.clean.cameras[index], self.rng.random() < 0.5
        episode, row = self.episode, int((self.stop - self.start) * self.rng.uniform(0.2, 0.8))

        def look(e: int, r: int) -> Image:
            if e != episode or r < row:
                return camera.look(e, r)
            return camera.look(e, row) * (not black)

        cameras = list(self.clean.cameras)
        cameras[index] = Camera(camera.name, look, camera.size)
        planted = self._planted(("black", "frozen"), {camera.name}, self.start + row, 1)
        return replace(planted, found=self.clean._replace(cameras=cameras))

    def clock_jump(self) -> Planted:
        """Let the clock jump by 0.2 to 2 s, forwards or backwards."""
        assert self.clean.contents.timestamp_N is not None
        time_N = np.array(self.clean.contents.timestamp_N[:])
        at = int(self.rng.integers(self.start + 5, self.stop - 5))
        time_N[at : self.stop] += self.rng.uniform(0.2, 2) * self.rng.choice([-1, 1])
        planted = self._planted(("gap", "timestamps", "rate"), {"timestamp"}, at, 1)
        contents = replace(self.clean.contents, timestamp_N=time_N)
        return replace(planted, found=self.clean._replace(contents=contents))

    def _again(self, camera: Camera, number: int, cut: int, episode: int, row: int) -> Image:
        copied = episode == number
        return camera.look(self.episode if copied else episode, row + cut * copied)

    # ---- parts -------------------------------------------------------------------------------

    def _planted(
        self, checks: tuple[str, ...], features: set[str], at: int = -1, tolerance: int = 0
    ) -> Planted:
        recording = replace(
            self.clean.contents.recording, action_Na=self.action_Na, state_Ns=self.state_Ns
        )
        contents = replace(self.clean.contents, recording=recording)
        row = at - self.start
        frames = range(row - tolerance, row + tolerance + 1) if at >= 0 else range(0)
        found = self.clean._replace(contents=contents)
        return Planted(found, checks, features, self.episode, frames)

    def _move_on(self) -> None:
        self.episode = (self.episode + 1) % len(self.lengths_E)
        self.start = int(self.lengths_E[: self.episode].sum())
        self.stop = self.start + int(self.lengths_E[self.episode])

    def _group(self, kind: str) -> list[int]:
        """Choose a group of places, and return its columns."""
        self._kind = kind
        groups: list[Any] = list(self.robot.action if kind == "action" else self.robot.state)
        stops = np.cumsum([len(g.features) for g in groups]).tolist()
        known = [
            list(range(stop - len(g.features), stop))
            for g, stop in zip(groups, stops, strict=True)
            if len(g.features) > 1 and not g.encoding
        ]
        return known[int(self.rng.integers(len(known)))]

    def _values(self, group: list[int]) -> npt.NDArray[np.float32]:
        return self.action_Na if self._kind == "action" else self.state_Ns

    def _names(self, columns: list[int]) -> list[str]:
        robot = self.robot
        names = robot.action_features if self._kind == "action" else robot.state_features
        return [names[i] for i in columns]

    def _all_names(self, kind: str, columns: list[int]) -> set[str]:
        groups: list[Any] = list(self.robot.action if kind == "action" else self.robot.state)
        names = {*self._names(columns), *(g.name for g in groups)}
        return {kind, *(f"{kind} {name}" for name in names)}

    def _moving_entry(self, either: bool = False) -> tuple[npt.NDArray[np.float32], set[str]]:
        """Choose an entry that moves in the episode, as a view, with its possible names."""
        kind = "action" if self.deltas or self.rng.random() < 0.5 else "state"
        while True:
            group = self._group(kind)
            column = int(self.rng.choice(group))
            values_N = self._values(group)[:, column]
            if either or self._travel(values_N) > 0.2:
                break
            self._move_on()
        (name,) = self._names([column])
        return values_N, {f"{k} {name}" for k in ("action", "state")}

    def _travel(self, values_N: npt.NDArray[np.float32]) -> float:
        """Range in the episode, as a share of the range in the set."""
        return float(np.ptp(values_N[self.start : self.stop])) / self._range(values_N)

    @staticmethod
    def _range(values_N: npt.NDArray[np.float32]) -> float:
        return float(np.subtract(*np.quantile(values_N, [0.99, 0.01])))

    def _size(self, values_N: npt.NDArray[np.float32], least: float, most: float) -> float:
        share = self.rng.uniform(least, most) * self.rng.choice([-1, 1])
        return float(share) * self._range(values_N)

    def _moving_stretch(self, values_N: npt.NDArray[np.float32], frames: int, share: float) -> int:
        """Choose an episode and its first frame of a stretch after which the entry is elsewhere."""
        while True:
            starts = np.arange(self.start, self.stop - frames - 1)
            way_K = np.abs(values_N[starts + frames] - values_N[starts])
            if (moved_K := way_K > share * self._range(values_N)).any():
                return int(self.rng.choice(starts[moved_K]))
            self._move_on()


FAULTS: dict[str, tuple[str, Callable[[Planter], Planted]]] = {
    "lag": ("one joint is recorded 0.2 to 0.5 s late", Planter.lag),
    "sign": ("one joint has the other sign", Planter.sign),
    "offset": ("one joint is shifted by 10 to 30 % of its range", Planter.offset),
    "swapped": ("two joints are exchanged", Planter.swapped),
    "frozen_state": ("a joint's state is frozen for 1 to 3 s", Planter.frozen_state),
    "held": ("an arm is held for 0.3 to 0.6 s and then jumps", Planter.held),
    "wild_frame": ("one joint is wild in one frame", Planter.wild_frame),
    "zero_frame": ("all values are zero in one frame", Planter.zero_frame),
    "whole_turn": ("one joint counts a whole turn further", Planter.whole_turn),
    "copy": ("an episode is there twice, up to a third of it cut off", Planter.copy),
    "dropped_camera": ("a camera turns black or freezes", Planter.dropped_camera),
    "clock_jump": ("the clock jumps by 0.2 to 2 s", Planter.clock_jump),
}
"""Faults by name, each with a description and the method that plants it."""
