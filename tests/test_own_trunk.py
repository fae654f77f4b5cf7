"""Test that a trunk in a user's own folder works in every verb, from the command line only."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from actionprior import Policy
from actionprior.checkpoints.reading import CheckpointError, read_checkpoint
from actionprior.cli import main
from actionprior.errors import UserError
from actionprior.lerobot.modeling_actionprior import ActionPriorPolicy
from tests.helpers.datasets import CAMERAS, write_dataset
from tests.helpers.policies import tiny_network, write_checkpoint
from tests.helpers.recipes import ROBOT
from tests.helpers.serving_client import Client
from tests.helpers.serving_process import served

CAMERA = CAMERAS[0]
CLASS_PATH = "my.module.MyTrunk"
PAGE = Path(__file__).parents[1] / "docs" / "trunks.md"
OBSERVATION = {
    "observation.state": np.zeros(3, dtype=np.float32),
    CAMERA: np.full((32, 48, 3), 90, dtype=np.uint8),
    "task": "lift the cube",
}


@contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """Make a folder the working directory; forget the user's modules at the end.

    So every command has to find the user's class by itself, as in a new process.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        yield
    for name in [name for name in sys.modules if name.split(".")[0] == "my"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a user's folder with the page's trunk, a recipe, and what ``fit`` saves."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "my").mkdir()
    code = PAGE.read_text("utf-8").partition("```python\n")[2].partition("```")[0]
    (folder / "my" / "module.py").write_text(f"{code}\n\nclass WiderTrunk(MyTrunk): ...\n")
    root = write_dataset(folder / "mine", (23, 18), cameras={CAMERA: "image"})
    robot = ROBOT | {"roots": [str(root)], "cameras": [CAMERA]}
    sizes = {"width": 16, "latent_width": 8, "chunk_length": 5, "history_length": 3}
    checkpoint = {"dirpath": ".", "filename": "policy", "save_on_train_epoch_end": True}
    recipe = {
        "model": {
            "class_path": "actionprior.VLAModule",
            "init_args": {
                "use_prior": False,
                "architecture": sizes,
                "fusion": {"width": 32},
                "trunk": {
                    "class_path": CLASS_PATH,
                    "init_args": {"width": 24, "weights": "first.pt"},
                },
            },
        },
        "data": {
            "class_path": "data_modules.LeRobotVLA",
            "init_args": {
                "embodiments": [robot],
                "chunk_length": 5,
                "history_length": 3,
                "batch_size": 4,
                "images": {"image_size": 32},
            },
        },
        "trainer": {
            "max_steps": 1,
            "limit_val_batches": 1,
            "limit_test_batches": 1,
            "enable_progress_bar": False,
            "callbacks": [
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": checkpoint | {"enable_version_counter": False},
                }
            ],
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    first = {"see.weight": torch.ones(24, 3), "see.bias": torch.zeros(24)}
    first |= {"read.weight": torch.ones(24, 1), "read.bias": torch.zeros(24)}
    torch.save(first, folder / "first.pt")
    with in_folder(folder):
        main(["fit", "--config=recipe.yaml"])
    (folder / "first.pt").unlink()  # a checkpoint makes it unnecessary
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path) -> Iterator[None]:
    """Run each test in the user's folder."""
    with in_folder(folder):
        yield


@pytest.fixture(scope="module")
def exported(folder: Path) -> Path:
    with in_folder(folder):
        main(["export", "--ckpt_path=policy.ckpt", "--out=exported", f"--trunk={CLASS_PATH}"])
    return folder / "exported"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must fail, and return its error of one line."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


def test_a_run_resumes_and_is_tested_without_the_first_weights(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ends = ["--config=recipe.yaml", "--trainer.default_root_dir=again"]
    checkpoint = "--trainer.callbacks.init_args.dirpath=again"
    dropout = "--model.trunk.init_args.dropout=0.1"
    Path("again").mkdir()
    Path("again/policy.ckpt").write_bytes(Path("policy.ckpt").read_bytes())
    main(["fit", *ends, checkpoint, dropout, "--ckpt_path=last", "--trainer.max_steps=2"])
    resumed = read_checkpoint("again/policy.ckpt")
    assert resumed["global_step"] == 2
    assert resumed["vla"]["trunk"] == {
        "name": "MyTrunk",
        "class_path": CLASS_PATH,
        "init_args": {"width": 24, "weights": "", "dropout": 0.1, "lr_scale": 1.0},
    }
    main(["test", *ends, "--ckpt_path=policy.ckpt"])
    assert "test/loss_pred" in capsys.readouterr().out
    wider = "--model.trunk.init_args.width=32"
    said = refused(capsys, "test", *ends, wider, "--ckpt_path=policy.ckpt")
    assert "trunk.width is 24 in the checkpoint and 32 in the recipe" in said


def test_an_exported_folder_says_which_class_it_needs(exported: Path) -> None:
    described = json.loads((exported / "config.json").read_text())["actionprior"]["trunk"]
    assert described["class_path"] == CLASS_PATH
    card = (exported / "README.md").read_text()
    assert "from my.module import MyTrunk" in card
    assert 'Policy.load("path/to/this/folder", trunk=MyTrunk)' in card
    assert f"--trunk {CLASS_PATH}" in card
    assert "lerobot-eval" not in card


def test_policies_load_with_the_class_or_a_built_trunk(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path.cwd())
    from my.module import MyTrunk, WiderTrunk

    chunks = [
        Policy.load(path, trunk=trunk).predict_chunk(OBSERVATION)
        for path in ("policy.ckpt", exported)
        for trunk in (MyTrunk, MyTrunk(24))
    ]
    for chunk in chunks[1:]:
        np.testing.assert_array_equal(chunk, chunks[0])
    with pytest.raises(CheckpointError, match="but the trunk that was given is 'WiderTrunk'"):
        Policy.load("policy.ckpt", trunk=WiderTrunk)


def test_no_class_that_a_file_names_is_imported(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.delitem(sys.modules, "my.module", raising=False)
    for path in ("policy.ckpt", exported):
        with pytest.raises(CheckpointError, match=f"give its class: --trunk {CLASS_PATH}"):
            Policy.load(path)
    with pytest.raises(UserError, match=r"LeRobot's tools load.*lightning serve --trunk"):
        ActionPriorPolicy.from_pretrained(exported)
    assert "my.module" not in sys.modules


def test_arguments_that_the_class_does_not_take_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path.cwd())
    from my.module import MyTrunk

    checkpoint = read_checkpoint("policy.ckpt")
    checkpoint["vla"]["trunk"]["init_args"] |= {"colours": 3}
    torch.save(checkpoint, tmp_path / "policy.ckpt")
    with pytest.raises(CheckpointError, match="unexpected keyword argument 'colours'") as found:
        Policy.load(tmp_path / "policy.ckpt", trunk=MyTrunk)
    assert "\n" not in str(found.value)


def test_a_policy_is_served(exported: Path) -> None:
    for path in (Path("policy.ckpt"), exported):
        with served(path, f"--trunk={CLASS_PATH}") as server:
            answer = Client(server.host, server.port).actions(OBSERVATION)
            assert answer.shape == (5, 3)


def test_predictions_are_drawn_with_the_recipes_trunk_or_the_named_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw = ["visualize", "--ckpt_path=policy.ckpt", "--episode=1"]
    main([*draw, "--config=recipe.yaml", "--out=one"])
    recipe = yaml.safe_load(Path("recipe.yaml").read_text())
    del recipe["model"]
    Path("data.yaml").write_text(yaml.safe_dump(recipe))
    named = ["--config=data.yaml", f"--trunk={CLASS_PATH}"]
    main([*draw, *named, "--out=two"])
    one, two = (Path(out, "arm-episode-1.png").read_bytes() for out in ("one", "two"))
    assert one == two
    assert "give its class" in refused(capsys, *draw, "--config=data.yaml", "--out=three")


@pytest.mark.slow
def test_paths_are_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("pybullet")
    from actionprior.envs.embodiments import suite_embodiment
    from actionprior.networks.policy_network import PolicyNetwork

    sys.path.append(str(Path.cwd()))
    from my.module import MyTrunk

    small = tiny_network([suite_embodiment("panda")])
    network = PolicyNetwork(small.embodiments, MyTrunk(24), small.prior, width=32, heads=2)
    path = write_checkpoint(network, tmp_path / "panda.ckpt")
    words = ["illustrate", f"--policy={path}", "--scenes=1", f"--out={tmp_path}"]
    words += ["--env_id=actionprior/PandaLift-v0"]
    main([*words, f"--trunk={CLASS_PATH}"])
    assert "trajectories" in capsys.readouterr().out
    main([*words, "--config=recipe.yaml"])
    assert "trajectories" in capsys.readouterr().out
    assert "give its class" in refused(capsys, *words)


@pytest.mark.parametrize(
    ("class_path", "sentence"),
    [
        ("MyTrunk", "is no class path; expected one such as my.module.MyTrunk"),
        ("my.nowhere.MyTrunk", "cannot be imported (No module named 'my.nowhere')"),
        ("my.module.Nothing", "has no attribute 'Nothing'"),
        ("my.module.TrunkTokens", "is not a subclass of"),
        ("my.module.Trunk", "lacks forward, init_args"),
        ("my.module.WiderTrunk", "but the trunk that was given is 'WiderTrunk'"),
    ],
)
def test_a_class_path_that_names_no_trunk_is_refused(
    class_path: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in (["serve"], ["export", "--out=never"]):
        said = refused(capsys, *verb, "--ckpt_path=policy.ckpt", f"--trunk={class_path}")
        assert sentence in said
    assert not Path("never").exists()
