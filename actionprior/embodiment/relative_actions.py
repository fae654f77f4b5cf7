"""Relative forms of several robots' actions, applied to batches that mix the robots.

Axes: B batch, H steps, A = 37 action slots, E robots.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from actionprior.embodiment.feature_groups import ACTION_WIDTH
from actionprior.embodiment.representations.relative_forms import DIFFERENCE, RelativeForm

FormOfSlots = tuple[RelativeForm, slice]


class RelativeActions(nn.Module):
    """Applies to each robot's action slots the relative form that they have.

    Forms that work entry by entry run once on all slots; their results are masked.

    Args:
        robots: For each robot, the form and the unified entries of its action groups.
    """

    form_EA: Tensor  # index into ``forms``

    def __init__(self, robots: Sequence[Sequence[FormOfSlots]] = ()) -> None:
        super().__init__()
        self.forms: list[RelativeForm] = [DIFFERENCE]  # of entries without an action, too
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
        """Learnt form (B, H, A) of commands, each robot's as its representations say."""
        return self._by_form(
            lambda form, *values: form.relative(*values), action_BHA, reference_BA, embodiment_B
        )

    def absolute(self, relative_BHA: Tensor, reference_BA: Tensor, embodiment_B: Tensor) -> Tensor:
        """Commands (B, H, A): the inverse of ``relative``."""
        return self._by_form(
            lambda form, *values: form.absolute(*values), relative_BHA, reference_BA, embodiment_B
        )

    def path(self, action_BHA: Tensor, embodiment_B: Tensor) -> Tensor:
        """Places after each command (B, H, A): sums of changes, and targets themselves."""
        reference_BA = action_BHA.new_zeros(len(action_BHA), ACTION_WIDTH)
        return self._by_form(
            lambda form, values, _: form.path(values), action_BHA, reference_BA, embodiment_B
        )

    def commands(self, path_BHA: Tensor, embodiment_B: Tensor) -> Tensor:
        """Inverse of ``path``."""
        reference_BA = path_BHA.new_zeros(len(path_BHA), ACTION_WIDTH)
        return self._by_form(
            lambda form, values, _: form.commands(values), path_BHA, reference_BA, embodiment_B
        )

    def _by_form(
        self,
        method: Callable[[RelativeForm, Tensor, Tensor], Tensor],
        values_BHA: Tensor,
        reference_BA: Tensor,
        embodiment_B: Tensor,
    ) -> Tensor:
        form_B1A, reference_B1A = self.form_EA[embodiment_B][:, None], reference_BA[:, None]
        result_BHA = method(self.forms[0], values_BHA, reference_B1A)
        for index, form in enumerate(self.forms[1:], 1):
            if not form.spans_group:
                found_BHA = method(form, values_BHA, reference_B1A)
                result_BHA = torch.where(form_B1A == index, found_BHA, result_BHA)
                continue
            result_BHA = result_BHA.clone()
            for slots in self._groups[index]:
                found_BHn = method(form, values_BHA[..., slots], reference_B1A[..., slots])
                starts_B11 = form_B1A[..., slots.start, None] == index
                result_BHA[..., slots] = torch.where(starts_B11, found_BHn, result_BHA[..., slots])
        return result_BHA
