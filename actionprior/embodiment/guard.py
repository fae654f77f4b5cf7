"""Compare states and actions with what was recorded in training, and clip actions on request.

``actionprior.Policy``, the server, LeRobot's tools and rollouts all compare here.

Axes: A = 37 action slots, S = 74 state slots, n_s state features, n_a action features, k steps.
"""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

import numpy as np

from actionprior.embodiment.arrays import BoolArray, FloatArray
from actionprior.embodiment.embodiment import ACTION_WIDTH, Embodiment
from actionprior.embodiment.recorded_ranges import RecordedRanges
from actionprior.errors import UserError

GuardMode = Literal["off", "warn", "clip"]
MODES = ("off", "warn", "clip")
KINDS = ("state", "limit", "step")
"""Kinds of what is counted: states far outside, actions beyond the limits, too large steps."""
Report = Callable[[str, str], object]
"""Function that is called with a kind and a sentence about its first case in an episode."""
FAR = 0.5
"""A state is far outside if it lies beyond the recorded range by this share of its width."""
ROUNDING = 1e-5
_PACKAGE = str(Path(__file__).parents[1])


class Guard:
    """Count and report what was never recorded; with ``clip``, keep actions within the recorded.

    Actions that are orientations or joints that turn past their end are not compared. Actions that
    are changes per step have limits, but no largest step.

    Args:
        robot: Robot of the values.
        ranges: Recorded ranges; None if they are not known, as in older checkpoints.
        mode: ``off``, ``warn`` or ``clip``.
        margin: Share of the recorded range by which actions, and their steps, may exceed it.

    Attributes:
        counts: Number of states far outside (``state``), actions beyond the limits (``limit``),
            and actions with a larger step (``step``), since the guard was made.
        mode: ``off``, ``warn`` or ``clip``.

    Raises:
        UserError: An argument is out of range, or ``clip`` is asked for without known ranges.
    """

    def __init__(
        self,
        robot: Embodiment,
        ranges: RecordedRanges | None,
        mode: GuardMode = "warn",
        margin: float = 0.1,
    ) -> None:
        check_guard(mode, margin)
        if mode == "clip" and ranges is None:
            raise UserError(
                f"guard is 'clip', but the policy's file records no limits of {robot.name!r}, as "
                "those of earlier versions; train or resume it again, or set guard to 'warn'"
            )
        self.mode, self._robot = mode, robot
        self.counts = dict.fromkeys(KINDS, 0)
        self._said: set[str] = set()
        self._report: Report = _warn
        self._ranges = ranges if mode != "off" else None
        if ranges is not None:
            placed_A, stepped_A = _compared_slots(robot)
            width_A = ranges.action_high - ranges.action_low
            slack_A = margin * width_A + ROUNDING * np.abs(ranges.action_high)
            self._low_A = np.where(placed_A, ranges.action_low - slack_A, -np.inf)
            self._high_A = np.where(placed_A, ranges.action_high + slack_A, np.inf)
            step_A = ranges.action_step * (1 + margin) + ROUNDING * np.abs(ranges.action_high)
            self._step_A = np.where(stepped_A, step_A, np.inf)
            far_S = FAR * (ranges.state_high - ranges.state_low) + ROUNDING
            far_S += ROUNDING * np.abs(ranges.state_high)
            self._state_low_S, self._state_high_S = (
                ranges.state_low - far_S,
                ranges.state_high + far_S,
            )

    @property
    def compares(self) -> bool:
        """True if the ranges are known and the mode is not ``off``."""
        return self._ranges is not None

    def same_limits(self, report: Report | None = None) -> Self:
        """Return a guard with the same limits and with counts of its own.

        Args:
            report: Function that is called with the kind and the sentence of each warning. None
                selects that of this guard.
        """
        other = copy.copy(self)
        other.counts, other._said = dict.fromkeys(KINDS, 0), set()
        other._report = report or self._report
        return other

    def reset(self) -> None:
        """Begin an episode: warn again of each kind."""
        self._said.clear()

    def check_state(self, state: FloatArray) -> None:
        """Count and report a state (n_s,) far outside the training range."""
        if self._ranges is None:
            return
        unified_S = self._robot.state_to_unified(state[None])[0]
        beyond_S = (unified_S < self._state_low_S) | (unified_S > self._state_high_S)
        beyond_S &= self._robot.state_mask()
        if beyond_S.any():
            slot = int(np.flatnonzero(beyond_S)[0])
            name = self._state_name(slot)
            self._count(
                "state",
                f"{name} of the state is {unified_S[slot]:.4g}, far outside the training range "
                f"{self._ranges.state_low[slot]:.4g} to {self._ranges.state_high[slot]:.4g}",
            )

    def check_action(self, action: FloatArray, before: FloatArray | None) -> FloatArray:
        """Count and report an action (n_a,) beyond what was recorded; clip it on request.

        Args:
            action: Action that is about to be executed.
            before: Action that was executed one step before; None: none in this episode.
        """
        checked: FloatArray = self.check_actions(action[None], before)[0]
        return checked

    def check_actions(self, actions: FloatArray, before: FloatArray | None) -> FloatArray:
        """Check the actions (k, n_a) of consecutive steps, as ``check_action`` does one by one.

        Args:
            actions: Actions that are about to be executed.
            before: Action that was executed one step before; None: none in this episode.
        """
        if self._ranges is None or not len(actions):
            return actions
        # Converted together, because a rotation costs milliseconds, of one step or of many.
        rows = actions if before is None else np.concatenate([before[None], actions])
        unified_NA = self._robot.action_to_unified(rows)
        before_A = None if before is None else unified_NA[0]
        checked = actions.copy()
        for step, unified_A in enumerate(unified_NA[len(rows) - len(actions) :]):
            allowed_A = self._allowed(unified_A, before_A)
            before_A = unified_A
            if self.mode == "clip" and (allowed_A != unified_A).any():
                allowed_1A = allowed_A[None].astype(np.float32)
                checked[step] = self._robot.action_from_unified(allowed_1A)[0]
                before_A = self._robot.action_to_unified(checked[step : step + 1])[0]
        return checked

    # ---- parts --------------------------------------------------------------------------------

    def _allowed(self, unified_A: FloatArray, before_A: FloatArray | None) -> FloatArray:
        """Return the nearest action within limits and steps; count and report if it differs."""
        assert self._ranges is not None
        allowed_A: FloatArray = unified_A.clip(self._low_A, self._high_A)
        beyond_A = allowed_A != unified_A
        if beyond_A.any():
            slot = int(np.flatnonzero(beyond_A)[0])
            self._count(
                "limit",
                f"{self._action_name(slot)} of the action is {unified_A[slot]:.4g}, beyond the "
                f"recorded {self._ranges.action_low[slot]:.4g} to "
                f"{self._ranges.action_high[slot]:.4g}",
            )
        if before_A is None:
            return allowed_A
        large_A = np.abs(allowed_A - before_A) > self._step_A
        if large_A.any():
            slot = int(np.flatnonzero(large_A)[0])
            self._count(
                "step",
                f"{self._action_name(slot)} of the action changes by "
                f"{allowed_A[slot] - before_A[slot]:.4g} in a step; the largest recorded "
                f"change is {self._ranges.action_step[slot]:.4g}",
            )
            step_A = (allowed_A - before_A).clip(-self._step_A, self._step_A)
            allowed_A = np.where(large_A, before_A + step_A, allowed_A)
        return allowed_A

    def _count(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        if kind not in self._said:
            self._said.add(kind)
            done = "; it is clipped" if self.mode == "clip" and kind != "state" else ""
            self._report(kind, f"{self._robot.name}: {text}{done}")

    def _action_name(self, slot: int) -> str:
        for group in self._robot.action:
            slots = self._robot.action_slots(group)
            if slots.start <= slot < slots.stop:
                return str(group.features[slot - slots.start])
        return f"slot {slot}"

    def _state_name(self, slot: int) -> str:
        for group in self._robot.state:
            slots = self._robot.state_slots(group)
            if slots.start <= slot < slots.stop:
                same = slots.stop - slots.start == len(group.features)
                return group.features[slot - slots.start] if same else group.name
        return f"slot {slot}"


def check_guard(mode: str, margin: float) -> None:
    """Refuse arguments that no guard accepts.

    Args:
        mode: Argument ``guard``.
        margin: Argument ``guard_margin``.

    Raises:
        UserError: One of them is out of range.
    """
    if mode not in MODES:
        raise UserError(f"guard is {mode!r}; expected one of {', '.join(MODES)}")
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not margin >= 0:
        raise UserError(f"guard_margin is {margin!r}; expected a number from 0 on")


def warn_caller(text: str) -> None:
    """Give a ``RuntimeWarning`` that points to the code which called this package."""
    warnings.warn(text, RuntimeWarning, skip_file_prefixes=(_PACKAGE,))


def _warn(kind: str, text: str) -> None:
    warn_caller(f"{text} (said once per episode; counted in Policy.guard.counts[{kind!r}])")


def _compared_slots(robot: Embodiment) -> tuple[BoolArray, BoolArray]:
    """Return the slots whose places, and those whose steps, are compared."""
    placed_A, stepped_A = (np.zeros(ACTION_WIDTH, dtype=np.bool_) for _ in range(2))
    for group, form in zip(robot.action, robot.action_representations, strict=True):
        slots = robot.action_slots(group)
        placed_A[slots] = not form.encodes and not form.is_rotation and form.period is None
        stepped_A[slots] = placed_A[slots] & (not form.is_change)
    return placed_A, stepped_A
