"""Test the command line in a user's folder, with the user's own model and DataModule."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
import yaml

import actionprior.commands
from actionprior import cli
from actionprior.checkpoints.reading import read_checkpoint
from tests.helpers.command_line import LIGHTNING, checkpoint_of, refused


def test_fit_then_resume_with_a_flag_that_beats_the_checkpoint(folder: Path) -> None:
    cli.main(["fit", "--config", "recipe.yaml"])
    first = read_checkpoint(checkpoint_of(folder))
    assert first["hyper_parameters"]["embodiments"][0]["name"] == "toy"
    saved = yaml.safe_load((folder / "outputs/lightning_logs/version_0/config.yaml").read_text())
    assert saved["trainer"]["use_distributed_sampler"] is False
    assert saved["seed_everything"] == 0

    resume = ["--ckpt_path", str(checkpoint_of(folder)), "--trainer.max_epochs", "3"]
    cli.main(["fit", "--config", "recipe.yaml", "--model.lr", "0.9", *resume])
    second = read_checkpoint(checkpoint_of(folder, 1))
    assert second["hyper_parameters"]["lr"] == 0.9
    assert (first["global_step"], second["global_step"]) == (4, 12)


@pytest.mark.slow
def test_the_command_runs_in_the_users_folder(folder: Path) -> None:
    for name in ("callbacks", "data_modules"):  # files that must not replace the project's packages
        (folder / f"{name}.py").write_text("raise RuntimeError('shadowed')")
    words = ["fit", "--config", "recipe.yaml", "--trainer.fast_dev_run", "true"]
    done = subprocess.run([LIGHTNING, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


PRESSED = """
import os
import signal

import mylab.toy


def press():
    os.kill(os.getpid(), signal.SIGINT)


class Data(mylab.toy.Data):
    def __init__(self, when: str):
        super().__init__()
        self.when = when
        self.press_at("creation")

    def press_at(self, name):
        if self.when == name:
            press()

    def prepare_data(self):
        self.press_at("preparation")

    def setup(self, stage):
        self.press_at("setup")

    def val_dataloader(self):
        self.press_at("first validation")
        return super().val_dataloader()
"""


@pytest.fixture
def pressed(folder: Path) -> Iterator[None]:
    (folder / "mylab" / "pressed.py").write_text(PRESSED)
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)  # Lightning ignores it after the first


@pytest.mark.usefixtures("pressed")
@pytest.mark.parametrize(
    ("verb", "when", "said"),
    [
        ("fit", "creation", "nothing was trained, so nothing was saved"),
        ("fit", "preparation", "nothing was trained, so nothing was saved"),
        ("fit", "setup", "nothing was trained, so nothing was saved"),
        ("fit", "first validation", "nothing was trained, so nothing was saved"),
        ("validate", "creation", "stopped"),
        ("validate", "first validation", "validate has not ended, so there is no result"),
    ],
)
def test_ctrl_c_says_in_one_sentence_what_is_lost(
    verb: str, when: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [verb, "--config=recipe.yaml", "--data=mylab.pressed.Data", f"--data.when={when}"]
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 128 + signal.SIGINT
    errors = capsys.readouterr().err
    lines = [line for line in errors.splitlines() if not line.startswith(("warning: ", "INFO: "))]
    assert lines == [f"Ctrl-C: {said}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["--help"], ["fit", "--config=recipe.yaml"]], ids=["help", "fit"]
)
def test_a_command_whose_output_nobody_reads_ends_as_usual(folder: Path, words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [LIGHTNING, *words], cwd=folder, stdout=write, stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == 0
    assert "Broken" not in done.stderr
    os.close(write)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_messages_that_nobody_reads_change_no_exit_code(unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    for words, code in ((["--help"], 0), (["nothing"], 2)):  # as `2>&1 | head -1`
        command: list[str | Path] = [LIGHTNING, *words]
        done = subprocess.run(command, env=environment, stdout=write, stderr=write)
        assert done.returncode == code
    os.close(write)


@pytest.fixture
def bad(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a checkpoint that writes a file if it is unpickled; torch is allowed to unpickle."""

    class Payload:
        def __reduce__(self):
            return open, (str(folder / "proof"), "w")

    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"state_dict": {}, "hyper_parameters": {"lr": Payload()}}, folder / "bad.ckpt")
    yield folder / "bad.ckpt"
    assert not (folder / "proof").exists()


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_a_hostile_checkpoint_runs_nothing(
    bad: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused([verb, "--config", "recipe.yaml", "--ckpt_path", "bad.ckpt"], capsys)
    assert "bad.ckpt holds more than tensors and plain data" in message


STAGE2 = str(Path(__file__).parent.parent / "recipes/finetune.yaml")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["export", "--out", "exported", "--ckpt_path"],
        ["serve", "--ckpt_path"],
        ["visualize", "--config", STAGE2, "--ckpt_path"],
        ["illustrate", "--out", "pictures", "--config", STAGE2, "--policy"],
        ["fit", "--config", STAGE2, "--model.trunk.weights=", "--model.prior_checkpoint"],
    ],
)
def test_a_hostile_checkpoint_runs_nothing_in_the_other_verbs(
    bad: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "bad.ckpt holds more than tensors and plain data" in refused([*words, str(bad)], capsys)


@pytest.mark.slow
def test_a_hostile_checkpoint_from_a_url_runs_nothing(
    bad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=bad.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/bad.ckpt"
        message = refused(["fit", "--config", "recipe.yaml", "--ckpt_path", url], capsys)
        server.shutdown()
    assert "bad.ckpt holds more than tensors and plain data" in message


def test_safe_reading_cannot_be_turned_off(folder: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["fit", "--config", "recipe.yaml", "--weights_only", "false"])
    assert stop.value.code == 2


def test_a_checkpoint_names_no_class_to_import(folder: Path) -> None:
    (folder / "trap.py").write_text("open('proof', 'w').close()")
    cli.main(["fit", "--config", "recipe.yaml"])
    checkpoint = read_checkpoint(checkpoint_of(folder))
    checkpoint["hyper_parameters"] |= {"_class_path": "trap.Model", "_instantiator": "trap.make"}
    torch.save(checkpoint, folder / "trap.ckpt")
    cli.main(["test", "--config", "recipe.yaml", "--ckpt_path", "trap.ckpt"])
    assert not (folder / "proof").exists()


def test_recipes_keep_their_own_plugins(folder: Path) -> None:
    plugin = "lightning.pytorch.plugins.io.AsyncCheckpointIO"
    cli.main(["fit", "--config", "recipe.yaml", "--trainer.plugins", plugin])
    assert read_checkpoint(checkpoint_of(folder))["global_step"] == 4


def test_bad_input_is_refused_in_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = ["fit", "--config", "recipe.yaml"]
    assert "control_hz is 0.0" in refused([*fit, "--data.control_hz", "0"], capsys)
    assert "gone.ckpt does not exist" in refused([*fit, "--ckpt_path", "gone.ckpt"], capsys)
    (folder / "cut.ckpt").write_bytes(b"PK")
    assert "cut.ckpt is cut short" in refused([*fit, "--ckpt_path", "cut.ckpt"], capsys)
    assert "NoRobots has no embodiments" in refused([*fit, "--data", "mylab.toy.NoRobots"], capsys)

    monkeypatch.setenv("ACTIONPRIOR_DEBUG", "1")
    with pytest.raises(ValueError, match=r"control_hz is 0\.0"):
        cli.main([*fit, "--data.control_hz", "0"])


def test_a_bug_keeps_its_traceback(folder: Path) -> None:
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["fit", "--config", "recipe.yaml", "--model.broken", "true"])


def test_an_unknown_verb_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    expected = "error: unknown verb 'fti' (did you mean 'fit'?); expected one of fit, validate"
    assert refused(["fti"], capsys).startswith(expected)


def test_an_unknown_option_is_refused_with_the_nearest(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = refused(["fit", "--config", "recipe.yaml", "--trainer.max_stpes", "3"], capsys)
    assert found.startswith(
        "error: unknown option '--trainer.max_stpes' (did you mean '--trainer.max_steps'?)"
    )
    found = refused(["record", "--ovrewrite"], capsys)
    assert found.startswith("error: unknown option '--ovrewrite' (did you mean '--overwrite'?)")


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    verbs = {words[0]: words[1:] for line in lines if (words := line.split())}
    files = [path.stem for path in cli.COMMANDS.glob("*.py") if not path.stem.startswith("_")]
    own = [stem.replace("_", "-") for stem in files]
    for verb in ["fit", "validate", "test", "predict", *own]:
        assert verbs[verb], f"{verb} is not explained"


@pytest.mark.parametrize("command", ["lightning", "actionprior"])
@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_import_no_heavy_library(command: str, flag: str) -> None:
    script = LIGHTNING.with_name(command)
    found = subprocess.run(
        [sys.executable, "-X", "importtime", script, flag], capture_output=True, text=True
    )
    assert found.returncode == 0
    imported = {line.split("|")[-1].strip() for line in found.stderr.splitlines()}
    assert "actionprior.cli" in imported
    assert not imported & {"torch", "numpy", "lightning", "lerobot", "open_clip", "pybullet"}


def test_a_verb_gets_the_words_after_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "greet_me.py").write_text(
        '"""Greet."""\n'
        "from actionprior.errors import UserError\n\n\n"
        "def main(args):\n"
        "    if not args:\n        raise UserError('nobody to greet')\n"
        "    print('hello', *args)\n"
    )
    monkeypatch.setattr(cli, "COMMANDS", tmp_path)
    monkeypatch.setattr(actionprior.commands, "__path__", [str(tmp_path)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    cli.main(["greet-me", "you", "--twice"])
    assert capsys.readouterr().out == "hello you --twice\n"
    assert refused(["greet-me"], capsys) == "error: nobody to greet"
    del sys.modules["actionprior.commands.greet_me"]
