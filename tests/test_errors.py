"""Helpers for error messages, and that no code writes the message of a missing extra itself."""

import tomllib
from pathlib import Path

from actionprior.errors import missing_extra, near_matches, shorten

PROJECT = Path(__file__).parents[1]


def test_a_missing_extra_is_installed_from_the_clone() -> None:
    assert missing_extra("msgpack", "serve") == (
        "msgpack is not installed; run `uv pip install -e '.[serve]'` "
        "(or `pip install -e '.[serve]'`) in your clone of actionprior"
    )


def test_only_the_helper_says_how_to_install_an_extra() -> None:
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    names = extras["optional-dependencies"]
    for folder in ("actionprior", "callbacks", "data_modules"):
        for path in (PROJECT / folder).rglob("*.py"):
            text = path.read_text("utf-8")
            for name in names:
                assert f"actionprior[{name}]" not in text, path
            assert path.name == "errors.py" or "pip install" not in text, path


def test_a_message_is_put_on_one_line_and_cut() -> None:
    assert shorten(ValueError("two\n  lines")) == "two lines"
    assert shorten(ValueError("x" * 300)) == "x" * 200
    assert shorten(TimeoutError()) == "TimeoutError"


def test_the_closest_known_names_are_listed() -> None:
    assert near_matches("vit_bas", ["resnet", "vit_base"]) == "; near are vit_base"
    assert near_matches("vit", []) == "; it has none"
