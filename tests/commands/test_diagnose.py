"""``lightning diagnose``, from a recipe and a checkpoint to its report."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("pybullet")

from actionprior.cli import main
from tests.helpers.command_line import refused

RECIPES = Path(__file__).parents[2] / "recipes"
DATA = ["--config=recipes/finetune.yaml", "--data.tasks=[lift]", "--data.episodes_per_task=6",
        "--data.batch_size=8", "--data.val_fraction=0.5"]  # fmt: skip
RUN = [*DATA, "--ckpt_path=policy.ckpt", "--windows=16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a policy for a step."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copytree(RECIPES, folder / "recipes")
    callback = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {"dirpath": ".", "filename": "policy", "save_on_train_epoch_end": True},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ACTIONPRIOR_CACHE", str(folder / "cache"))
        main(["fit", *DATA, "--trainer.max_steps=1", "--trainer.limit_val_batches=0",
              "--trainer.enable_progress_bar=false", "--model.use_prior=false",
              "--model.trunk.init_args.weights=", "--model.trunk.init_args.freeze=false",
              f"--trainer.callbacks={json.dumps([callback])}"])  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(folder / "cache"))


def test_a_policy_is_diagnosed_on_held_out_episodes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["diagnose", *RUN, "--open_loop", "--out=open"])
    printed = capsys.readouterr().out
    assert "the policy's error is" in " ".join(printed.split())
    assert "report: open/report.html, open/diagnosis.json" in printed
    found = json.loads(Path("open/diagnosis.json").read_text())
    assert {f["check"] for f in found["findings"]} >= {"error", "decoder"}
    measured = {(m["subject"], m["what"]) for m in found["measurements"]}
    assert ("latent", "error of the policy") in measured
    assert not {subject for subject, _ in measured} & {"places", "replay", "closed loop"}
    page = Path("open/report.html").read_text()
    assert "<title>lightning diagnose</title>" in page
    assert "the decoder cannot draw" in page
    assert "error of the policy on training windows" in page


@pytest.mark.slow
def test_an_untrained_policy_is_diagnosed_in_the_simulator() -> None:
    main(["diagnose", *RUN, "--env_ids=[actionprior/PandaLift-v0]", "--episodes=1", "--out=closed"])
    found = json.loads(Path("closed/diagnosis.json").read_text())
    values = {(m["subject"], m["what"]): m["value"] for m in found["measurements"]}
    assert values["replay", "success of 1 replayed demonstrations"] == 1
    assert values["closed loop", "success"] == 0
    assert values["places", "place of the object read from a constant"] > 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*DATA, "--ckpt_path=none.ckpt"], "none.ckpt does not exist"),
        (["--ckpt_path=policy.ckpt"], "diagnose needs a recipe"),
        (
            [*RUN, "--data.chunk_length=7"],
            "data.chunk_length is 7, but chunk_length is 15 in checkpoint",
        ),
        ([*RUN, "--windows=2"], "windows is 2"),
        ([*RUN, "--env_ids=[actionprior/None-v0]"], "cannot be found"),
        ([*RUN, "--data.robot=kuka"], "has the robots ['kuka']"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(["diagnose", *words, "--out=refused"], capsys)
    assert not Path("refused").exists()
