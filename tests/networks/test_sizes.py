"""Sizes out of range are refused by name, before a module is built."""

import pytest

from actionprior.errors import UserError
from actionprior.networks.motion_prior import PriorArchitecture
from actionprior.networks.sizes import require_heads, require_size


@pytest.mark.parametrize("value", [0, -3, 1.0, True, "3", None, 9])
def test_sizes_are_whole_numbers_in_a_range(value: object) -> None:
    require_size("depth", 3, 1, 8)
    with pytest.raises(UserError, match=r"depth is .*; expected a whole number, from 1 to 8"):
        require_size("depth", value, 1, 8)


def test_heads_divide_the_width() -> None:
    require_heads("fusion", 12, 3)
    with pytest.raises(UserError, match=r"fusion\.width is 12, .* multiple of fusion\.heads, 5"):
        require_heads("fusion", 12, 5)


@pytest.mark.parametrize(
    ("name", "value"), [("heads", 0), ("heads", 7), ("width", 0), ("chunk_length", -1)]
)
def test_an_architecture_checks_its_sizes(name: str, value: int) -> None:
    with pytest.raises(UserError, match=rf"architecture\.{name}"):
        PriorArchitecture(**{name: value})
