"""Relative forms of several robots' actions, applied to batches that mix the robots.

Axes: B batch, H steps, A = 37 action slots, E robots.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from actionprior.embodiment.feature_groups import ACTION_WIDTH
from actionprior.embodiment.representations.relative_forms import (
    DIFFERENCE,
    Difference,
    RelativeForm,
)

FormOfSlots = tuple[RelativeForm, slice]


class RelativeActions(nn.Module):
    """Apply the relative forms of each robot to its action slots.

    Forms that work entry by entry run once on all slots, and their results are masked.

    Args:
        robots: For each robot, the form and the unified entries of its action groups.
    """

    form_EA: Tensor  # index into ``forms``

    def __init__(self, robots: Sequence[Sequence[FormOfSlots]] = ()) -> None:
        super().__init__()
        self.forms: list[RelativeForm] = [DIFFERENCE]  # also the form of unused slots
        self._groups: dict[int, list[slice]] = {}
        # Follows from the embodiments, hence not saved.
        empty = torch.zeros(0, ACTION_WIDTH, dtype=torch.uint8)
        self.register_buffer("form_EA", empty, persistent=False)
        for robot in robots:
            self.add(robot)

    def add(self, robot: Sequence[FormOfSlots]) -> None:
        """Append a robot."""
        form_A = torch.zeros(ACTION_WIDTH, dtype=torch.uint8)
        for form, slots in robot:
            if form not in self.forms:
                self.forms.append(form)
            index = self.forms.index(form)
            if form.spans_group:
                # Only the first entry is marked: another robot's group may start at the second.
                form_A[slots.start] = index
                groups = self._groups.setdefault(index, [])
                if slots not in groups:
                    groups.append(slots)
            else:
                form_A[slots] = index
        self.form_EA = torch.cat([self.form_EA, form_A[None].to(self.form_EA.device)])

    def relative(self, action_BHA: Tensor, reference_BA: Tensor, embodiment_B: Tensor) -> Tensor:
        """Compute the learnt form (B, H, A) of commands."""
        reference_B1A = reference_BA[:, None]
        return self._by_form("relative", embodiment_B, action_BHA, reference_B1A)

    def absolute(self, relative_BHA: Tensor, reference_BA: Tensor, embodiment_B: Tensor) -> Tensor:
        """Compute the commands (B, H, A): the inverse of ``relative``."""
        reference_B1A = reference_BA[:, None]
        return self._by_form("absolute", embodiment_B, relative_BHA, reference_B1A)

    def path(self, action_BHA: Tensor, embodiment_B: Tensor) -> Tensor:
        """Compute the place after each command (B, H, A): the sum of changes, or the target."""
        return self._by_form("path", embodiment_B, action_BHA)

    def commands(self, path_BHA: Tensor, embodiment_B: Tensor) -> Tensor:
        """Compute the commands (B, H, A): the inverse of ``path``."""
        return self._by_form("commands", embodiment_B, path_BHA)

    def _by_form(self, method: str, embodiment_B: Tensor, *values: Tensor) -> Tensor:
        """Call a method of each form on its slots; ``values`` are (B, H, A) or (B, 1, A)."""
        form_B1A = self.form_EA[embodiment_B][:, None]
        result_BHA: Tensor = getattr(DIFFERENCE, method)(*values)
        for index, form in enumerate(self.forms):
            if getattr(type(form), method) is getattr(Difference, method):
                continue  # already in the result
            if not form.spans_group:
                found_BHA = getattr(form, method)(*values)
                result_BHA = torch.where(form_B1A == index, found_BHA, result_BHA)
                continue
            result_BHA = result_BHA.clone()
            for slots in self._groups[index]:
                found_BHn = getattr(form, method)(*(v[..., slots] for v in values))
                starts_B11 = form_B1A[..., slots.start, None] == index
                result_BHA[..., slots] = torch.where(starts_B11, found_BHn, result_BHA[..., slots])
        return result_BHA
