"""Test that names of a vector's entries are read in every form in which writers store them."""

from typing import Any

import pytest

from data_modules.lerobot.names import feature_names, has_names

NUMBERS = ["0", "1"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        ({"motors": ["a", "b"]}, ["a", "b"]),
        ({"a": 0, "b": 1}, ["a", "b"]),
        ({"b": 1, "a": 0}, ["a", "b"]),
        ({"b": 1.0, "a": 0.0}, ["a", "b"]),
        ({"axes": {"b": 1, "a": 0}}, ["a", "b"]),
        ([["a"], ["b"]], ["a", "b"]),
        ({"left": ["j"], "right": ["j"]}, ["left.j", "right.j"]),
        (["grip", "grip"], ["grip", "grip_2"]),
        ("ab", NUMBERS),
        (None, NUMBERS),
        ([], NUMBERS),
        ({}, NUMBERS),
        ({"motors": None}, NUMBERS),
        ([None, None], NUMBERS),
        ([0, 1], NUMBERS),
        (["vector"], NUMBERS),
        (True, NUMBERS),
        (3.5, NUMBERS),
        ({"a": {"b": None}}, NUMBERS),
        ({"a": True, "b": False}, NUMBERS),
    ],
)
def test_names_are_read_in_every_form(names: Any, expected: list[str]) -> None:
    feature = {"shape": [2], "names": names}
    assert feature_names(feature) == expected
    assert has_names(feature) == (expected != NUMBERS)


def test_numbered_names_stay_unique() -> None:
    feature = {"shape": [4], "names": ["grip", "grip_2", "grip", "grip"]}
    names = feature_names(feature)
    assert len(set(names)) == 4
    assert names[:2] == ["grip", "grip_2"]
