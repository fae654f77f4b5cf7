"""Checkpoints of other formats are refused."""

import pytest
import torch

from actionprior.checkpoints import keys
from actionprior.checkpoints.formats import FORMAT, FormatError, check_checkpoint_format
from actionprior.checkpoints.keys import below


@pytest.mark.parametrize(
    ("found", "advice"), [(99, "update actionprior"), (1, "create it again"), (None, "create it")]
)
@pytest.mark.parametrize("key", [keys.PRIOR, keys.POLICY, keys.WEIGHTS])
def test_another_format_is_refused(found: int | None, advice: str, key: str) -> None:
    checkpoint = {key: {}} if found is None else {keys.FORMAT: found, key: {}}
    if key == keys.WEIGHTS and found is None:
        check_checkpoint_format(checkpoint, "x.ckpt")  # of a user's own model
        return
    with pytest.raises(
        FormatError, match=rf"x\.ckpt is of format {found}, .* reads format {FORMAT}; .*{advice}"
    ):
        check_checkpoint_format(checkpoint, "x.ckpt")


def test_the_format_of_this_version_is_accepted() -> None:
    check_checkpoint_format({keys.FORMAT: FORMAT, keys.POLICY: {}}, "x.ckpt")


def test_entries_below_a_prefix_are_selected() -> None:
    state = {"prior.w": torch.zeros(1), "priority": torch.ones(1), "network.prior.w": torch.ones(2)}
    assert below(keys.PRIOR_PREFIX, state) == {"w": state["prior.w"]}
    assert below(keys.NETWORK_PREFIX, state) == {"prior.w": state["network.prior.w"]}
