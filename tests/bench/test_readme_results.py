"""The README's table is what the studies' tables say."""

from pathlib import Path

from bench.readme_results import readme_table

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_has_the_printed_table() -> None:
    assert readme_table() in README.read_text("utf-8")
