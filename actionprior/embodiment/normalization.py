"""Normalise actions and states per robot, actions in the relative form in which they are learnt.

Actions are learnt in the relative form of their representation: positions as the difference from
the window's first state, orientations as the turn from it, deltas as their running sum along the
window. The normaliser is part of the motion prior, so every checkpoint has its statistics.

Axes: B batch, H steps, A = 37 action slots, S = 74 state slots, E embodiments.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from actionprior.batch import TrajectoryBatch
from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH, Embodiment
from actionprior.embodiment.recorded_ranges import RecordedRanges
from actionprior.embodiment.relative_actions import RelativeActions
from actionprior.errors import UserError

Law = Literal["quantile", "mean_std"]

CONSTANT = 1e-6  # features whose range is a smaller share of their values are constant
RELATIVE_FLOOR = 0.05  # smallest scale of a feature, as a share of its group's widest
FEW = 5.0  # units within which rare motions stay
WILD = 3  # values that may lie farther away at each step of a chunk: wild frames, no motion
WILD_SHARE = 0.01  # largest share of the sample that counts as wild


class MissingStatisticsError(UserError):
    """A robot has no normalisation statistics."""


class Normalizer(nn.Module):
    """Map robot units to about [-1, 1] (``quantile``) or unit variance (``mean_std``) and back.

    Each step of the chunk has its own action statistics. In relative form the first steps hardly
    leave the start, so the range of the last steps would hide them from the loss. Yet a robot
    that re-plans often executes mostly these first steps.

    Both kinds of statistics (mean and std, 1 % and 99 % quantiles) are buffers of shape (E, H, A)
    and (E, S), so that those in checkpoints can be compared. A quantile range near zero would blow
    the loss up (arXiv 2606.26095 leaves normalisation open), so that scales have floors:

    - a fifth of the distance from the centre to rare values, such as those of a gripper that
      closes in 0.5 % of frames. All but three wild values per step then stay within ``FEW`` units;
    - 5 % of the widest scale in the same group of features;
    - 1 for a group that never moves, beyond the rounding of float32.
    """

    fitted_E: Tensor
    action_mask_EA: Tensor
    state_mask_ES: Tensor
    action_center: Tensor  # (E, H, A)
    action_scale: Tensor  # (E, H, A), what ``normalize_action`` divides by
    state_center: Tensor  # (E, S)
    state_scale: Tensor  # (E, S)

    def __init__(
        self, embodiments: list[Embodiment], law: Law = "quantile", chunk_length: int = 15
    ) -> None:
        """Create an empty normaliser; ``fit`` fills it.

        Args:
            embodiments: Robots; their order defines ``embodiment_B``.
            law: ``quantile`` or ``mean_std``.
            chunk_length: Steps H of a chunk.

        Raises:
            UserError: the law is unknown.
        """
        super().__init__()
        if law not in ("quantile", "mean_std"):
            raise UserError(f"normalisation {law!r} is unknown; expected 'quantile' or 'mean_std'")
        self.law = law
        self.embodiments: list[Embodiment] = []
        self.ranges: dict[str, RecordedRanges] = {}  # by robot; descriptions hold them
        self.ranges_are_wide = False  # True once they cover the data of this run
        for kind, shape in (("action", (chunk_length, ACTION_WIDTH)), ("state", (STATE_WIDTH,))):
            for statistic in ("mean", "std", "q01", "q99", "center", "scale"):
                self.register_buffer(f"{kind}_{statistic}", torch.zeros(0, *shape))
        self.register_buffer("fitted_E", torch.zeros(0, dtype=torch.bool))
        for name, width in (("action_mask_EA", ACTION_WIDTH), ("state_mask_ES", STATE_WIDTH)):
            # Follows from the embodiments, hence not saved.
            self.register_buffer(name, torch.zeros(0, width, dtype=torch.bool), persistent=False)
        self.relative = RelativeActions()
        self.add_embodiments(embodiments)

    def add_embodiments(self, embodiments: list[Embodiment]) -> None:
        """Append unfitted rows for new robots; the rows of known robots stay."""
        self.embodiments = [*self.embodiments, *embodiments]
        count = len(embodiments)
        for name, buffer in list(self.named_buffers(recurse=False)):
            fill = 1.0 if name.endswith("_scale") else 0.0
            new = torch.full((count, *buffer.shape[1:]), fill, device=buffer.device)
            setattr(self, name, torch.cat([buffer, new.to(buffer.dtype)]))
        for row, embodiment in enumerate(embodiments, len(self.embodiments) - count):
            self.action_mask_EA[row] = torch.from_numpy(embodiment.action_mask())
            self.relative.add(embodiment.relative_forms())
            self.state_mask_ES[row] = torch.from_numpy(embodiment.state_mask())

    # ---- masks ----------------------------------------------------------------------------

    def action_mask(self, trajectory: TrajectoryBatch) -> Tensor:
        """Mask (B, H, A): True where a step is inside the episode and the slot is the robot's."""
        slots_BA = self.action_mask_EA[trajectory.embodiment_B]
        return trajectory.step_mask_BH[:, :, None] & slots_BA[:, None, :]

    # ---- relative form --------------------------------------------------------------------

    def relative_action(self, trajectory: TrajectoryBatch) -> Tensor:
        """Compute the learnt form of the actions in robot units, (B, H, A), zero where masked."""
        mask_BHA = self.action_mask(trajectory)
        action_BHA = torch.where(mask_BHA, trajectory.action_BHA, 0.0)
        relative_BHA = self.relative.relative(
            action_BHA, trajectory.reference_BA, trajectory.embodiment_B
        )
        return torch.where(mask_BHA, relative_BHA, 0.0)

    def absolute_action(
        self, relative_BHA: Tensor, reference_BA: Tensor, embodiment_B: Tensor
    ) -> Tensor:
        """Commands of the robot (B, H, A): the inverse of ``relative_action``.

        An angle that crosses half a turn is commanded beyond it, so that the joint does not turn
        back a whole turn.
        """
        action_BHA = self.relative.absolute(relative_BHA, reference_BA, embodiment_B)
        return torch.where(self.action_mask_EA[embodiment_B][:, None, :], action_BHA, 0.0)

    # ---- normalised form ------------------------------------------------------------------

    def normalize_action(self, trajectory: TrajectoryBatch) -> Tensor:
        """Compute the values that the flow is learnt on, (B, H, A), zero where masked."""
        center_BHA, scale_BHA = self._steps(trajectory.action_BHA, trajectory.embodiment_B)
        normal_BHA = (self.relative_action(trajectory) - center_BHA) / scale_BHA
        return torch.where(self.action_mask(trajectory), normal_BHA, 0.0)

    def unnormalize_action(self, normal_BHA: Tensor, embodiment_B: Tensor) -> Tensor:
        """Map normalised values (B, H, A) back to the relative form in robot units."""
        center_BHA, scale_BHA = self._steps(normal_BHA, embodiment_B)
        slots_B1A = self.action_mask_EA[embodiment_B][:, None, :]
        return torch.where(slots_B1A, normal_BHA * scale_BHA + center_BHA, 0.0)

    def normalize_state(self, state_BHS: Tensor, embodiment_B: Tensor) -> Tensor:
        """Normalise states (B, H, S); slots of other robots are zero."""
        center_B1S = self.state_center[embodiment_B][:, None, :]
        scale_B1S = self.state_scale[embodiment_B][:, None, :]
        slots_B1S = self.state_mask_ES[embodiment_B][:, None, :]
        return torch.where(slots_B1S, (state_BHS - center_B1S) / scale_B1S, 0.0)

    def _steps(self, window_BHA: Tensor, embodiment_B: Tensor) -> tuple[Tensor, Tensor]:
        """Centre and scale of each step; steps past a chunk's length have those of its last."""
        steps, known = window_BHA.shape[1], self.action_scale.shape[1]
        step_H = torch.arange(steps, device=embodiment_B.device).clamp(max=known - 1)
        chosen = (embodiment_B[:, None], step_H[None, :])
        return self.action_center[chosen], self.action_scale[chosen]

    # ---- statistics -----------------------------------------------------------------------

    @property
    def action_range_EA(self) -> Tensor:
        """Largest scale (E, A) of each slot over the steps of a chunk: one scale for all steps."""
        return self.action_scale.amax(dim=1)

    @property
    def missing(self) -> list[str]:
        """Names of the robots that have no statistics."""
        return [
            e.name for e, ok in zip(self.embodiments, self.fitted_E.tolist(), strict=True) if not ok
        ]

    def require_fitted(self) -> None:
        """Check that all robots have statistics.

        Raises:
            MissingStatisticsError: some have none; the message names them.
        """
        if self.missing:
            raise MissingStatisticsError(
                f"no normalisation statistics for {', '.join(map(repr, self.missing))}; "
                "fit first, or load a checkpoint that knows the robot"
            )

    @torch.no_grad()
    def fit(self, sample: TrajectoryBatch) -> None:
        """Fit the robots that have no statistics yet.

        Args:
            sample: Windows of H steps from training episodes; ``embodiment_B`` indexes this
                normaliser's robots.

        Raises:
            MissingStatisticsError: a robot to be fitted has no window in ``sample``.
        """
        relative_BHA = self.relative_action(sample)
        for row in (~self.fitted_E).nonzero().flatten().tolist():
            of_row_B = sample.embodiment_B == row
            embodiment, inside_NH = self.embodiments[row], sample.step_mask_BH[of_row_B]
            if not inside_NH.any():
                raise MissingStatisticsError(
                    f"no training window of embodiment {embodiment.name!r} to fit statistics on"
                )
            actions = [embodiment.action_slots(g) for g in embodiment.action]
            states = [embodiment.state_slots(g) for g in embodiment.state]
            # Differences of large values are rounded as these are.
            largest_A = sample.action_BHA[of_row_B][inside_NH].abs().amax(0)
            largest_A = largest_A.maximum(sample.reference_BA[of_row_B].abs().amax(0))
            rounding_A = CONSTANT * largest_A
            self._fit_row("action", row, relative_BHA[of_row_B], inside_NH, actions, rounding_A)
            inside_N1 = inside_NH[inside_NH][:, None]
            states_N1S = sample.state_BHS[of_row_B][inside_NH][:, None]
            largest_S = states_N1S.abs().amax((0, 1))
            self._fit_row("state", row, states_N1S, inside_N1, states, CONSTANT * largest_S)
            self.fitted_E[row] = True

    def _fit_row(
        self,
        kind: str,
        row: int,
        values_NHD: Tensor,
        inside_NH: Tensor,
        groups: list[slice],
        rounding_D: Tensor,
    ) -> None:
        statistics = _statistics(values_NHD.double(), inside_NH)
        if self.law == "quantile":
            center = (statistics["q01"] + statistics["q99"]) / 2
            scale = (statistics["q99"] - statistics["q01"]) / 2
        else:
            center, scale = statistics["mean"], statistics["std"]
        low, high = statistics.pop("low"), statistics.pop("high")
        scale = scale.maximum((high - center).maximum(center - low) / FEW)
        for group in groups:
            widest = scale[:, group].max()
            moves = (scale[:, group] > rounding_D[group]).any()
            floor = RELATIVE_FLOOR * widest if moves else torch.ones_like(widest)
            scale[:, group] = scale[:, group].clamp(min=float(floor))
        unused = torch.ones(scale.shape[1], dtype=torch.bool, device=scale.device)
        for group in groups:
            unused[group] = False
        scale[:, unused] = 1.0
        for name, value_HD in (statistics | {"center": center, "scale": scale}).items():
            buffer: Tensor = getattr(self, f"{kind}_{name}")
            buffer[row] = value_HD.reshape(buffer.shape[1:]).to(buffer.dtype)


def _statistics(values_NHD: Tensor, inside_NH: Tensor) -> dict[str, Tensor]:
    """Compute statistics (H, D); steps that no window reaches copy the last reached step.

    ``low`` and ``high`` are the lowest and the highest value without the wild ones.
    """
    count_H = inside_NH.sum(0)
    reached_H = torch.arange(len(count_H), device=count_H.device).clamp(
        max=int(count_H.count_nonzero()) - 1
    )
    values_NHD, count_H = values_NHD[:, reached_H], count_H[reached_H]
    inside_NH1 = inside_NH[:, reached_H, None]
    count_H1 = count_H[:, None]
    mean = torch.where(inside_NH1, values_NHD, 0.0).sum(0) / count_H1
    spread_NHD = torch.where(inside_NH1, values_NHD - mean, 0.0)
    # quantile() is bounded in size and slow on long columns: sort once and index.
    ordered_NHD = torch.where(inside_NH1, values_NHD, torch.inf).sort(dim=0).values
    step_H = torch.arange(len(count_H), device=count_H.device)
    wild_H = (WILD_SHARE * count_H).long().clamp(max=WILD)
    return {
        "mean": mean,
        "std": (spread_NHD.square().sum(0) / count_H1).sqrt(),
        "q01": ordered_NHD[(0.01 * (count_H - 1)).round().long(), step_H],
        "q99": ordered_NHD[(0.99 * (count_H - 1)).round().long(), step_H],
        "low": ordered_NHD[wild_H, step_H],
        "high": ordered_NHD[count_H - 1 - wild_H, step_H],
    }
