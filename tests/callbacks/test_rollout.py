"""Test the evaluation callback in real ``fit`` and ``test`` runs."""

import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from actionprior.embodiment.recorded_ranges import RecordedRanges
from actionprior.errors import UserError
from actionprior.rollout import RolloutError
from actionprior.training.sharding import ShardedStrategy
from callbacks import rollout, rollout_report
from tests.helpers.point_module import PointModule, evaluation

SCALARS = (
    "success_rate",
    "success_low",
    "success_high",
    "return",
    "episode_length",
    "jerk",
    "latency_ms",
)
ENV = "rollout/test/Point-v0"


def trainer_of(folder: Path, *callbacks: pl.Callback, **changes: Any) -> pl.Trainer:
    arguments: dict[str, Any] = {
        "accelerator": "cpu",
        "max_steps": 5,
        "logger": TensorBoardLogger(folder, name="", version="run"),
        "callbacks": list(callbacks),
        "default_root_dir": folder,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return pl.Trainer(**(arguments | changes))


def test_groups_of_tasks_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = {"toys/easy": ("test/Point-v0", "test/Other-v0"), "toys/hard": ("test/Third-v0",)}
    for module in (rollout, rollout_report):
        monkeypatch.setattr(module, "DIFFICULTY_GROUPS", groups)
    trainer = trainer_of(tmp_path, evaluation(episodes=2, max_steps=30))
    trainer.test(PointModule())
    assert trainer.callback_metrics["rollout/toys/easy/success_rate"] in (0.0, 0.5, 1.0)
    assert "rollout/toys/hard/success_rate" not in trainer.callback_metrics
    assert "toys/easy" in (printed := capsys.readouterr().out)
    assert "(1 of 2 tasks)" in printed
    written = json.loads((tmp_path / "run/rollouts/test/results.json").read_text())
    [group] = written["groups"]
    assert (group["name"], group["played"], group["size"]) == ("toys/easy", 1, 2)
    assert written["mean_of_groups"] == group["success_rate"] == written["success_rate"]


def test_fit_logs_metrics_and_videos(tmp_path: Path) -> None:
    callback = evaluation(every_n_steps=2, max_steps=30)
    best = ModelCheckpoint(
        tmp_path / "best", monitor="rollout/success_rate", mode="max", every_n_train_steps=2
    )
    # Rollouts are logged although log_every_n_steps is far beyond the run.
    trainer = trainer_of(
        tmp_path, callback, best, enable_checkpointing=True, log_every_n_steps=1000
    )
    trainer.fit(PointModule())

    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0}).Reload()
    for key in SCALARS:
        steps = [event.step for event in events.Scalars(f"{ENV}/{key}")]
        assert steps == [2, 4, 5], key
    rates = [event.value for event in events.Scalars(f"{ENV}/success_rate")]
    lows = [event.value for event in events.Scalars(f"{ENV}/success_low")]
    highs = [event.value for event in events.Scalars(f"{ENV}/success_high")]
    assert rates[-1] == 1.0
    assert (lows[-1], highs[-1]) == pytest.approx((0.5655175, 1.0))  # Wilson, 5 of 5
    assert events.Scalars("rollout/success_rate")[-1].value == 1.0
    assert best.best_model_score == 1.0
    assert float(trainer.callback_metrics["rollout/success_rate"]) == 1.0

    for k in range(2):
        videos = events.Images(f"{ENV}/video_{k}")
        assert [video.step for video in videos] == [2, 4, 5]
        gif = Image.open(io.BytesIO(videos[-1].encoded_image_string))
        assert gif.format == "GIF"
        assert gif.n_frames == callback.results[0].episodes[k].length + 1  # type: ignore[attr-defined]  # Pillow's GIFs have it
        assert (videos[-1].width, videos[-1].height) == gif.size
    assert f"{ENV}/video_2" not in events.Tags()["images"]


def test_fit_writes_films_and_results(tmp_path: Path) -> None:
    callback = evaluation(videos=1)
    trainer_of(tmp_path, callback, logger=CSVLogger(tmp_path, name="", version="run")).fit(
        PointModule()
    )
    folder = tmp_path / "run" / "rollouts" / "step_00000005"
    assert sorted(p.name for p in folder.iterdir()) == [
        "results.json",
        "test_Point-v0_50_success.mp4",
    ]
    with av.open(str(folder / "test_Point-v0_50_success.mp4")) as film:
        count = sum(1 for _ in film.decode(video=0))
    report = json.loads((folder / "results.json").read_text())
    assert (report["step"], report["success_rate"]) == (5, 1.0)
    environment = report["environments"][0]
    assert environment["env_id"] == "test/Point-v0"
    assert [e["seed"] for e in environment["episodes"]] == [50, 51, 52, 53, 54]
    assert count == environment["episodes"][0]["length"] + 1


def test_a_policy_that_stands_still_fails(tmp_path: Path) -> None:
    callback = evaluation(every_n_steps=1, max_steps=8)
    module = PointModule()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.0)  # type: ignore[method-assign]  # this run's own
    trainer_of(tmp_path, callback, max_steps=1).fit(module)
    names = [p.name for p in (tmp_path / "run" / "rollouts" / "step_00000001").glob("*.mp4")]
    assert sorted(names) == [f"test_Point-v0_{seed}_failure.mp4" for seed in (50, 51)]
    assert callback.results[0].success_rate == 0.0


def test_training_is_the_same_with_and_without_rollouts(tmp_path: Path) -> None:
    runs = []
    for callbacks in ([], [evaluation(every_n_steps=1, videos=0)]):
        pl.seed_everything(3)
        module = PointModule()
        trainer_of(tmp_path, *callbacks, logger=False).fit(module)
        runs.append((module.losses, module.gain.item(), torch.rand(1).item()))
    assert runs[0] == runs[1]
    assert module.modes_seen == {False}
    assert module.trained.training  # on_train_batch_start checks the modes between rollouts
    assert not module.frozen.training


@pytest.mark.parametrize("averaging_first", [False, True])
def test_averaged_weights_are_evaluated(tmp_path: Path, averaging_first: bool) -> None:
    plain = PointModule()
    pl.seed_everything(3)
    trainer_of(tmp_path, logger=False).fit(plain)

    module, averaging = PointModule(), EMAWeightAveraging(decay=0.9)
    pair = [averaging, evaluation(every_n_steps=4, videos=0, max_steps=8)]
    pl.seed_everything(3)
    trainer_of(tmp_path, *(pair if averaging_first else pair[::-1]), logger=False).fit(module)
    assert module.losses == plain.losses  # training continued from its own weights
    assert module.gain.item() < 0.75 * plain.gain.item()  # Lightning keeps the average at the end
    at_four, at_the_end = sorted(set(module.gains_seen))
    assert at_four < at_the_end == module.gain.item()


def test_accumulated_gradients_count_optimiser_steps(tmp_path: Path) -> None:
    trainer = trainer_of(
        tmp_path, evaluation(every_n_steps=2), max_steps=4, accumulate_grad_batches=3
    )
    trainer.fit(PointModule())
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [event.step for event in events.Scalars("rollout/success_rate")] == [2, 4]


def test_test_prints_a_table_and_writes_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callback, module = evaluation(videos=1), PointModule()
    torch.nn.init.ones_(module.gain)
    metrics = trainer_of(tmp_path, callback).test(module)[0]
    assert metrics["rollout/success_rate"] == 1.0
    assert metrics[f"{ENV}/episode_length"] > 1
    printed = capsys.readouterr().out
    assert "test/Point-v0" in printed
    assert "56.6 - 100.0 %" in printed  # Wilson, 5 of 5
    folder = tmp_path / "run" / "rollouts" / "test"
    assert (folder / "test_Point-v0_50_success.mp4").stat().st_size > 0
    assert json.loads((folder / "results.json").read_text())["success_rate"] == 1.0
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert {f"{ENV}/{key}" for key in SCALARS} <= set(events.Tags()["scalars"])
    assert f"{ENV}/video_0" in events.Tags()["images"]


def test_a_guard_is_counted_in_table_files_and_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callback, module = evaluation(videos=0, guard="clip", guard_margin=0.0), PointModule()
    torch.nn.init.ones_(module.gain)
    narrow, states = np.full(37, 0.05, np.float32), np.full(74, 9.0, np.float32)
    module.recorded_ranges = {"point": RecordedRanges(-narrow, narrow, narrow, -states, states)}  # type: ignore[assignment]  # torch's modules hold anything
    with pytest.warns(RuntimeWarning, match="it is clipped"):
        metrics = trainer_of(tmp_path, callback).test(module)[0]
    assert metrics[f"{ENV}/guard_limit"] > 0
    assert metrics[f"{ENV}/guard_state"] == metrics[f"{ENV}/guard_step"] == 0
    printed = capsys.readouterr().out
    assert "state/limit/step" in printed
    assert f" 0/{metrics[f'{ENV}/guard_limit']:.0f}/0 " in printed
    written = json.loads((tmp_path / "run/rollouts/test/results.json").read_text())
    [environment] = written["environments"]
    assert environment["guard_limit"] == metrics[f"{ENV}/guard_limit"]
    assert (
        sum(e["guard_counts"]["limit"] for e in environment["episodes"])
        == (environment["guard_limit"])
    )
    with pytest.raises(UserError, match="guard is 'stop'"):
        evaluation(guard="stop")


def test_a_test_may_follow_a_fit_of_the_same_trainer(tmp_path: Path) -> None:
    callback, module = evaluation(videos=1), PointModule()
    trainer = trainer_of(tmp_path, EMAWeightAveraging(decay=0.5), callback)
    trainer.fit(module)
    trained = module.gain.item()
    trainer.test(module)
    assert set(module.gains_seen) == {trained}
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert len(events.Images(f"{ENV}/video_0")) == 2


def test_fast_dev_run_is_short_and_writes_nothing(tmp_path: Path) -> None:
    callback = evaluation(episodes=50, execute_steps=3)
    trainer_of(tmp_path, callback, fast_dev_run=True).fit(PointModule())
    assert [e.length for e in callback.results[0].episodes] == [6]
    assert not list(tmp_path.rglob("*.mp4"))


def test_several_environments_may_have_several_robots(tmp_path: Path) -> None:
    ids = ["test/Point-v0", "test/PointCamera-v0"]
    callback = evaluation(env_ids=ids, embodiment=dict.fromkeys(ids, "point"))
    module = PointModule()
    with pytest.raises(RolloutError, match=r"test/PointCamera-v0.*state"):
        trainer_of(tmp_path, callback, max_steps=1).fit(module)
    with pytest.raises(RolloutError, match="names no robot for environment 'test/PointCamera-v0'"):
        evaluation(env_ids=ids, embodiment={"test/Point-v0": "point"})


def test_what_does_not_fit_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(RolloutError, match="ShardedStrategy shards them; remove the callback"):
        evaluation().setup(SimpleNamespace(strategy=ShardedStrategy()), PointModule(), "fit")
    with pytest.raises(RolloutError, match=r"import_modules names 'no\.such\.module'"):
        trainer_of(tmp_path, evaluation(import_modules=["no.such.module"])).fit(PointModule())
    with pytest.raises(RolloutError, match=r"environment 'test/Piont-v0' cannot be found"):
        trainer_of(tmp_path, evaluation(env_ids=["test/Piont-v0"])).fit(PointModule())
    with pytest.raises(RolloutError, match=r"with embodiment 'panda', but the policy knows \['"):
        trainer_of(tmp_path, evaluation(embodiment="panda")).fit(PointModule())
    with pytest.raises(RolloutError, match=r"env_ids=\[\]"):
        evaluation(env_ids=[])
    module = BoringModel()
    with pytest.raises(RolloutError, match="BoringModel has no embodiments, chunk_length"):
        trainer_of(tmp_path, evaluation()).fit(module)


@pytest.mark.slow
def test_two_ranks_share_the_episodes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.helpers.rollout_ranks", str(tmp_path)]
    subprocess.run(command, check=True, timeout=200, cwd=Path(__file__).parents[2])
    reports = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert reports[0] == reports[1]
    episodes = reports[0][0]["episodes"]
    assert [e["seed"] for e in episodes] == [50, 51, 52, 53, 54]
    written = json.loads((tmp_path / "rollouts" / "step_00000003" / "results.json").read_text())
    assert written["environments"] == reports[0]
    assert len(list(tmp_path.rglob("*.mp4"))) == 2
