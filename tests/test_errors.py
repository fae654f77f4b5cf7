"""The one sentence that names a missing extra, and that nothing says it in other words."""

import tomllib
from pathlib import Path

from actionprior.errors import missing_extra

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
