"""Visualize draws held-out episodes, films them, and draws a checkpoint's chunks over them."""

import importlib.util
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from PIL import Image

from actionprior.cli import main
from tests.helpers.datasets import CAMERAS, write_dataset
from tests.helpers.recipes import ROBOT

SMALL = {"width": 16, "latent_width": 8, "chunk_length": 5, "history_length": 3}
ENDS = {"max_steps": 1, "limit_val_batches": 0, "enable_progress_bar": False}
LENGTHS = (23, 18, 21)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recipes of both stages, and a checkpoint of each after one step."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ACTIONPRIOR_CACHE", str(folder / "cache"))
        root = write_dataset(folder / "mine", LENGTHS, cameras=dict.fromkeys(CAMERAS, "image"))
        robot = ROBOT | {"roots": [str(root)], "cameras": list(CAMERAS)}
        data = {"embodiments": [robot], "chunk_length": 5, "history_length": 3, "batch_size": 4}
        prior = {
            "class_path": "actionprior.MotionPriorModule",
            "init_args": {"architecture": SMALL},
        }
        policy = {
            "class_path": "actionprior.VLAModule",
            "init_args": {
                "prior_checkpoint": "prior.ckpt",
                "fusion": {"width": 32},
                "trunk": {
                    "class_path": "actionprior.networks.trunks.SmallTrunk",
                    "init_args": {"image_size": 32, "grid": 2},
                },
            },
        }
        for name, model, kind, more in (
            ("prior", prior, "LeRobotTrajectories", {}),
            ("policy", policy, "LeRobotVLA", {"images": {"image_size": 32}}),
        ):
            callback = {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"dirpath": ".", "filename": name, "save_on_train_epoch_end": True},
            }
            recipe = {
                "model": model,
                "data": {"class_path": f"data_modules.{kind}", "init_args": data | more},
                "trainer": ENDS | {"callbacks": [callback]},
            }
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
            main(["fit", f"--config={name}.yaml"])
    shutil.rmtree(folder / "cache" / "images")
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(folder / "cache"))


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["visualize", *words, "--out=refused"])
    assert stop.value.code == 2
    assert not Path("refused").exists()
    return capsys.readouterr().err


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_held_out_episode_is_drawn_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    main(["visualize", "--config=prior.yaml", "--out=drawn"])
    (picture,) = Path("drawn").iterdir()
    assert capsys.readouterr().out.splitlines()[-1] == str(picture)
    drawn = pixels(picture)
    assert drawn.shape[1] > 800
    assert drawn.shape[0] > 500  # one row per group
    number = int(picture.stem.removeprefix("arm-episode-"))
    main(["visualize", "--config=prior.yaml", "--out=again", f"--episode={number}", "--robot=arm"])
    assert np.array_equal(pixels(Path("again") / picture.name), drawn)
    other = (number + 1) % len(LENGTHS)
    main(["visualize", "--config=prior.yaml", "--out=again", f"--episode={other}"])
    assert not np.array_equal(pixels(Path(f"again/arm-episode-{other}.png")), drawn)


def test_a_priors_chunks_are_drawn_over_the_recording() -> None:
    main(["visualize", "--config=prior.yaml", "--out=plain", "--episode=0"])
    main(
        ["visualize", "--config=prior.yaml", "--out=over", "--episode=0", "--ckpt_path=prior.ckpt"]
    )
    assert not np.array_equal(
        pixels(Path("plain/arm-episode-0.png")), pixels(Path("over/arm-episode-0.png"))
    )


def test_a_policys_episode_is_filmed_beside_its_actions() -> None:
    main(["visualize", "--config=policy.yaml", "--out=film", "--episode=1",
          "--ckpt_path=policy.ckpt"])  # fmt: skip
    assert {p.name for p in Path("film").iterdir()} == {"arm-episode-1.png", "arm-episode-1.mp4"}
    assert not Path("cache/images").exists()  # one episode was decoded, none cached
    with av.open("film/arm-episode-1.mp4") as film:
        assert film.streams.video[0].average_rate == 10
        frames = [f.to_ndarray(format="rgb24").astype(int) for f in film.decode(video=0)]
    assert len(frames) == LENGTHS[1]
    left = frames[0].shape[0] // 2  # two square images, one above the other
    plots = [frame[:, left:] for frame in frames[1:]]
    # The reddest column; the codec spreads colour over two.
    cursor = [int((f[..., 0] - f[..., 1]).clip(0).sum(axis=0).argmax()) for f in plots]
    assert cursor == sorted(cursor)  # it moves to the right
    assert cursor[-1] - cursor[0] > 300
    assert np.abs(frames[0][:, : left - 8] - frames[9][:, : left - 8]).mean() > 5


def test_the_film_darkens_what_the_trunk_does_not_see(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = yaml.safe_load(Path("policy.yaml").read_text())
    trunk = recipe["model"]["init_args"]["trunk"]
    trunk["init_args"] |= {"regions": [[0.5, 0.0, 1.0, 1.0]]}
    Path("region.yaml").write_text(yaml.safe_dump(recipe))
    frames = []
    for name in ("policy", "region"):
        main(["visualize", f"--config={name}.yaml", f"--out=seen_{name}", "--episode=1"])
        with av.open(f"seen_{name}/arm-episode-1.mp4") as film:
            frames.append(next(film.decode(video=0)).to_ndarray(format="rgb24").astype(float))
    quarter = len(frames[0]) // 4  # two square images, one above the other, two rows of parts each
    shares = [
        frames[1][rows, : 2 * quarter].mean() / frames[0][rows, : 2 * quarter].mean()
        for rows in (slice(n * quarter + 4, (n + 1) * quarter - 4) for n in range(4))
    ]
    assert shares == pytest.approx([1 / 3, 1, 1, 1], abs=0.06)  # the second camera shows all
    trunk["init_args"] |= {"regions": [[0.5, 0.0, 0.2, 1.0]]}
    Path("region.yaml").write_text(yaml.safe_dump(recipe))
    said = refused(capsys, "--config=region.yaml")
    assert said.startswith("error: regions[0] is [0.5, 0.0, 0.2, 1.0]; expected [top, left,")


def test_a_prior_reads_the_windows_of_stage_2_too() -> None:
    main(["visualize", "--config=policy.yaml", "--out=both", "--ckpt_path=prior.ckpt"])
    assert len(list(Path("both").glob("*.png"))) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config=prior.yaml", "--robot=leg"], "robot 'leg' is not among the recipe's: ['arm']"),
        (["--config=prior.yaml", "--episode=3"], "episode is 3, but robot 'arm' has 3 (0 to 2)"),
        (["--config=prior.yaml", "--ckpt_path=policy.ckpt"], "give the recipe of Stage 2"),
        (["--config=prior.yaml", "--ckpt_path=none.ckpt"], "none.ckpt does not exist"),
        (
            ["--config=prior.yaml", "--ckpt_path=prior.ckpt", "--data.chunk_length=4"],
            "the recipe's data.chunk_length is 4, but chunk_length is 5 in checkpoint prior.ckpt",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *words)


def test_a_checkpoint_of_another_robot_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = yaml.safe_load(Path("prior.yaml").read_text())
    recipe["data"]["init_args"]["embodiments"][0]["name"] = "leg"
    Path("leg.yaml").write_text(yaml.safe_dump(recipe))
    assert "does not know the recipe's 'leg'" in refused(
        capsys, "--config=leg.yaml", "--ckpt_path=prior.ckpt"
    )


@pytest.mark.skipif(importlib.util.find_spec("rerun") is not None, reason="rerun-sdk is installed")
def test_a_missing_rerun_is_refused_with_the_command_to_install_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = refused(capsys, "--config=prior.yaml", "--rerun")
    assert "pip install -e '.[rerun]'" in message


def test_a_rerun_recording_is_written() -> None:
    pytest.importorskip("rerun", reason="rerun-sdk is not installed (extra `rerun`)")
    main(["visualize", "--config=policy.yaml", "--out=rerun", "--rerun",
          "--ckpt_path=policy.ckpt"])  # fmt: skip
    (recording,) = Path("rerun").glob("*.rrd")
    content = recording.read_bytes()
    assert content[:3] == b"RRF"
    assert b"camera" in content
