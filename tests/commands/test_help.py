"""Every verb's ``--help`` explains the verb and each option, and switches behave the same."""

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest

from actionprior import cli
from actionprior.commands._parser import call, make_parser
from actionprior.errors import UserError

FILES = sorted(path.stem for path in cli.COMMANDS.glob("[!_]*.py"))


def help_of(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("file", FILES)
def test_help_explains_the_verb_and_each_option(
    file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = help_of(file.replace("_", "-"), capsys)
    usage, _, rest = text.partition("\n\n")
    assert usage.startswith(f"usage: lightning {file.replace('_', '-')} ")
    about, _, options = rest.partition("\n\noptions:\n")
    assert re.match(r"[A-Z][^.]+\.", about), about
    assert "Args:" not in text
    assert "Raises:" not in text
    blocks = re.split(r"\n  (?=-)", "\n" + options)[1:]
    assert len(blocks) >= 3
    for block in blocks:
        explained = re.sub(r"\((type|required)[^)]*\)", "", block.split("  ", 1)[-1])
        assert len(explained.split()) >= 2, f"{file}: {block}"


@pytest.mark.parametrize("file", FILES)
def test_switches_need_no_value(file: str) -> None:
    module = import_module(f"actionprior.commands.{file}")
    function = getattr(module, file)
    parser = make_parser(function, f"lightning {file}")
    hints = get_type_hints(function)
    for name in inspect.signature(function).parameters:
        if hints[name] in (bool, bool | None):
            (action,) = [a for a in parser._actions if a.dest == name]
            assert (action.nargs, action.const) == ("?", True)


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_the_trainers_verbs_explain_themselves(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(verb, capsys)
    assert re.search(r"\n\n[A-Z][^.]+ recipe", text)
    assert "--ckpt_path" in text


def test_the_help_of_a_data_module_lists_no_class_of_torch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["fit", "--data.help", "data_modules.LeRobotVLA"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "--data.image_transforms" in text
    assert "torch.nn.Linear" not in text
    assert "CropColourBlur" in text


def paint(out: Path, colour: str = "blue", overwrite: bool = False, glossy: bool = True) -> object:
    """Paint a wall.

    Args:
        out: Folder to write.
        colour: Name of a colour.
        overwrite: Replace an existing folder.
        glossy: Use glossy paint.
    """
    return out, colour, overwrite, glossy


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("blue", False, True)),
        (["--overwrite"], ("blue", True, True)),
        (["--overwrite", "--colour", "red"], ("red", True, True)),
        (["--overwrite", "true", "--glossy", "false"], ("blue", True, False)),
        (["--overwrite=false", "--glossy=true"], ("blue", False, True)),
        (["--config", "paint.yaml"], ("green", True, True)),
        (["--config", "paint.yaml", "--overwrite", "false"], ("green", False, True)),
    ],
)
def test_options_of_a_function(
    words: list[str],
    expected: tuple[str, bool, bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("paint.yaml").write_text("{colour: green, overwrite: true}")
    assert call(paint, ["--out", "wall", *words], "paint") == (Path("wall"), *expected)
    assert call(paint, ["wall", *words], "paint", as_positional=True) == (Path("wall"), *expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--color=red"], r"unknown option '--color' \(did you mean '--colour'\?\)"),
        (["--out=wall", "--zzz", "1"], "unknown option '--zzz'; `paint --help` lists the options"),
        (["--out=wall", "--glossy=maybe"], "glossy: expected a bool, found maybe"),
        ([], "arguments are required: out"),
        (["--out=wall", "--config=gone.yaml"], "gone.yaml"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as found:
        call(paint, words, "paint")
    assert "\n" not in str(found.value)
