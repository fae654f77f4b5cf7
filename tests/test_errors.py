"""Helpers for error messages, and that no code writes the message of a missing extra itself."""

import tomllib
from pathlib import Path

import pytest

from actionprior.checkup import Finding
from actionprior.checkup.report import print_table
from actionprior.cli import exit_on_user_error
from actionprior.data import DataError
from actionprior.errors import UserError, missing_extra, near_matches, printable, shorten, shown

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


def test_values_of_files_are_shown_without_control_characters() -> None:
    assert shown("\x1b[31mred\n\u202e") == "'\\x1b[31mred\\n\\u202e'"
    assert shown("Würfel 立方") == "'Würfel 立方'"
    assert len(shown("x" * 10_000)) == len(shown([0] * 10_000)) == 200
    assert shown(None) == "None"


def test_an_error_of_a_loader_process_keeps_only_its_sentence() -> None:
    from torch._utils import ExceptionWrapper

    def fail() -> None:
        try:
            raise OSError("the disk")
        except OSError as cause:
            raise DataError("set/a.mp4: frame 3 of 'front': is cut") from cause

    try:
        fail()
    except DataError:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(DataError) as error:
        wrapped.reraise()
    assert str(error.value) == "set/a.mp4: frame 3 of 'front': is cut"
    assert str(UserError("Caught in the rain")) == "Caught in the rain"
    assert UserError().args == ()


def test_control_characters_of_names_are_printed_as_escapes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "\x1b]0;title\x07red\u202e\nline é 立方"
    assert printable(name) == "\\x1b]0;title\\x07red\\u202e line é 立方"
    with pytest.raises(SystemExit), exit_on_user_error():
        raise UserError(name)
    assert capsys.readouterr().err == f"error: {printable(name)}\n"
    finding = Finding("error", "check", name, name, name, 0, 0, name)
    print_table([finding])
    assert "\x1b]" not in capsys.readouterr().out
