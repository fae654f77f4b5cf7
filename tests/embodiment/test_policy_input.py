"""Test that vectors and images of any common type are taken, or refused in one sentence."""

from typing import Any

import numpy as np
import pytest
import torch

from actionprior.embodiment.policy_input import as_array, check_observation
from actionprior.errors import PolicyError
from tests.helpers.policies import observation
from tests.helpers.robots import delta_arm

ARM = delta_arm()
KEY = ARM.state_key


@pytest.mark.parametrize(
    "change",
    [
        lambda state: torch.from_numpy(state),
        lambda state: torch.from_numpy(state).requires_grad_(),
        lambda state: torch.from_numpy(state).bfloat16(),
        lambda state: torch.from_numpy(state).double(),
        lambda state: state.tolist(),
        lambda state: [torch.tensor(value) for value in state],
        lambda state: tuple(state),
    ],
    ids=["tensor", "grad", "bfloat16", "double", "list", "list_of_tensors", "tuple"],
)
def test_states_of_any_type_are_taken(change: Any) -> None:
    seen = observation(ARM)
    found = check_observation(seen | {KEY: change(seen[KEY])}, ARM).state
    assert found.dtype == np.float32
    assert found == pytest.approx(seen[KEY], abs=0.01)


def test_images_may_be_tensors() -> None:
    seen = observation(ARM)
    tensors = {key: torch.from_numpy(seen[key]) for key in ARM.cameras}
    found, wanted = (check_observation(o, ARM).images for o in (seen | tensors, seen))
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([[1.0, 2.0], [3.0]], "is a list that is no array: .*rows of equal length"),
        ({"x": 1.0}, "is a dict of other things than numbers"),
        ([None] * len(ARM.state_features), "is a list of other things than numbers"),
        ("fast", r"is <U4 of shape \(\), expected"),
        (torch.zeros(len(ARM.state_features), dtype=torch.complex64), "is complex64"),
        (torch.zeros(3).to_sparse(), "[Ss]parse"),
        (torch.zeros(3, device="meta"), "meta"),
    ],
    ids=["ragged", "dict", "none", "text", "complex", "sparse", "meta"],
)
def test_what_is_no_vector_is_refused_by_name(state: Any, message: str) -> None:
    with pytest.raises(PolicyError, match=f"'{KEY}' .*{message}|'{KEY}' {message}"):
        check_observation(observation(ARM) | {KEY: state}, ARM)


def test_the_name_stands_in_the_message() -> None:
    with pytest.raises(PolicyError, match=r"^the executed action is a list that is no array"):
        as_array([[1], [2, 3]], "the executed action")
