"""``lightning illustrate``, from checkpoints after one step to its files and its output."""

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("pybullet")

from actionprior.cli import main

RECIPES = Path(__file__).parents[2] / "recipes"
DATA = ["--data.tasks=[lift]", "--data.episodes_per_task=6", "--data.batch_size=8",
        "--data.val_fraction=0.5"]  # fmt: skip
MAP = ["--config=recipes/pretrain.yaml", "--prior=prior.ckpt", *DATA]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a prior of two robots and a policy of one for a step."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copytree(RECIPES, folder / "recipes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ends = ["--trainer.max_steps=1", "--trainer.limit_val_batches=0",
                "--trainer.enable_progress_bar=false", *DATA]  # fmt: skip
        for name, recipe, words in (
            ("prior", "pretrain", []),
            (
                "policy",
                "finetune",
                ["--model.prior_checkpoint=prior.ckpt", "--model.trunk.init_args.weights=",
                 "--model.trunk.init_args.freeze=false"],
            ),
        ):  # fmt: skip
            callback = {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"dirpath": ".", "filename": name, "save_on_train_epoch_end": True},
            }
            main(["fit", f"--config=recipes/{recipe}.yaml", *ends, *words,
                  f"--trainer.callbacks={json.dumps([callback])}"])  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def result(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    main(["illustrate", *words])
    return json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("RESULT "))


def names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def test_the_map_is_drawn_and_measured(capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, *MAP, "--chunks=80", "--out=map")
    assert list(found) == ["z_map"]
    assert sum(found["z_map"]["chunks"].values()) == 80
    assert {"down", "grasp"} <= {k for k, v in found["z_map"]["chunks"].items() if v}
    for key in ("neighbour_accuracy", "neighbour_accuracy_untrained"):
        assert found["z_map"]["largest_share"] - 0.2 < found["z_map"][key] <= 1
    assert names("map") == {"z_map.svg", "z_map.png"}
    ET.parse("map/z_map.svg")
    picture = Path("map/z_map.svg").read_bytes()
    assert result(capsys, *MAP, "--chunks=80", "--out=map") == found
    assert Path("map/z_map.svg").read_bytes() == picture


@pytest.mark.slow
def test_paths_are_drawn_of_one_policy_or_of_two(capsys: pytest.CaptureFixture[str]) -> None:
    task = ["--env_id=actionprior/PandaLift-v0", "--scenes=2"]
    found = result(capsys, "--policy=policy.ckpt", *task, "--out=one")
    assert found["trajectories"]["expert"] == [True, True]
    assert found["trajectories"]["prior"] == [False, False]
    assert "no_prior" not in found["trajectories"]
    assert names("one") == {"trajectories.svg", "trajectories.png"}
    both = ["--policy=policy.ckpt", "--policy_without=policy.ckpt", "--seed=7"]
    found = result(capsys, *both, *task, "--out=two")
    assert found["trajectories"]["seeds"] == [7, 8]
    assert found["trajectories"]["no_prior"] == found["trajectories"]["prior"]
    with Image.open("two/trajectories.png") as picture:
        assert picture.size[0] >= 800


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to draw"),
        (["--prior=prior.ckpt"], "needs a recipe whose `data` is an EmbodiedDataModule"),
        ([*MAP, "--prior=none.ckpt"], "none.ckpt does not exist"),
        ([*MAP, "--data.robots=[panda, xarm6]"], "does not know the recipe's 'xarm6'"),
        ([*MAP, "--chunks=1"], "--chunks is 1; expected at least 2"),
        ([*MAP, "--data.val_fraction=0"], "found 0 held-out chunks"),
        (["--policy=prior.ckpt"], "prior.ckpt is of Stage 1, expected one of Stage 2"),
        (["--policy=policy.ckpt", "--env_id=CartPole-v1"], "env_id 'CartPole-v1' is not the suite"),
        (["--policy=policy.ckpt", "--scenes=0"], "scenes is 0, expected at least 1"),
        (["--policy=policy.ckpt", "--env_id=actionprior/KukaLift-v0"], "no embodiment 'kuka'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["illustrate", *words, "--out=refused"])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path("refused").exists()
