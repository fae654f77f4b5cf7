"""Limits that keep the code readable, as ``python -m bench.house`` counts them."""

import os
from pathlib import Path

import pytest

from bench.house import banned_words, counts

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found() -> dict[str, object]:
    before = Path.cwd()
    os.chdir(PROJECT)  # git lists the files of the repository
    try:
        return counts()
    finally:
        os.chdir(before)


@pytest.mark.parametrize(("name", "most"), [("root_modules", 12), ("helpers_in_commands", 6)])
def test_counts_stay_below_their_limits(found: dict[str, object], name: str, most: int) -> None:
    count = found[name]
    assert isinstance(count, int)
    assert count <= most


@pytest.mark.parametrize(
    "name",
    ["files_over_400_lines", "public_symbols_without_docstring", "repeated_class_names"],
)
def test_lists_are_empty(found: dict[str, object], name: str) -> None:
    assert not found[name]


def test_constructors_have_at_most_16_arguments(found: dict[str, object]) -> None:
    longest = found["longest_constructor"]
    assert isinstance(longest, dict)
    assert longest["arguments"] <= 16, longest["place"]


def test_no_text_uses_a_word_that_the_style_guide_advises_against() -> None:
    before = Path.cwd()
    os.chdir(PROJECT)
    try:
        found = banned_words()
    finally:
        os.chdir(before)
    assert not found, "\n".join(f"{kind}: {place}" for kind, place in found)
