"""The contract that every data module inherits, through a real Trainer."""

import contextlib
import warnings
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from actionprior.batch import TrajectoryBatch
from actionprior.data import DataError
from actionprior.data.frame_ranges import Spans
from tests.helpers.stage1_runs import Stop
from tests.helpers.synthetic import ToyTrajectories


class Recorder(lightning.LightningModule):
    """Writes down which windows it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, torch.Tensor]] = []
        self.validated: list[torch.Tensor] = []

    def training_step(self, batch: TrajectoryBatch, batch_idx: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch.state_BHS.clone()))
        return self.weight * batch.action_BHA.sum()

    def validation_step(self, batch: TrajectoryBatch, batch_idx: int) -> None:
        self.validated.append(batch.state_BHS)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.trainer.estimated_stepping_batches  # noqa: B018  builds the loader early
        return torch.optim.SGD(self.parameters(), lr=0.0)


def windows(data: ToyTrajectories, spans: Spans) -> TrajectoryBatch:
    return data.frames.store.future(torch.from_numpy(spans.frames()), 15)


def fit(folder: Path, *callbacks: Callback, ckpt: Path | None = None, workers: int = 0, **options):
    size = options.pop("batch_size", 16)
    module, data = Recorder(), ToyTrajectories(episodes=6, batch_size=size, num_workers=workers)
    trainer = lightning.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
        **{"max_epochs": 3, **options},
    )
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        trainer.fit(module, data, ckpt_path=ckpt, weights_only=True if ckpt else None)
    return module, data


def same(a: list[tuple[int, torch.Tensor]], b: list[tuple[int, torch.Tensor]]) -> bool:
    return len(a) == len(b) and all(
        x[0] == y[0] and torch.equal(x[1], y[1]) for x, y in zip(a, b, strict=True)
    )


# 200 training windows in batches of 16: 12 steps an epoch.
@pytest.mark.parametrize(
    ("step", "workers", "options"),
    [
        (5, 0, {}),
        (17, 0, {}),
        (17, 2, {}),
        (12, 0, {}),  # the last batch of an epoch
        (13, 0, {}),  # the first of one
        (7, 0, {"limit_train_batches": 5}),
        (6, 0, {"accumulate_grad_batches": 2}),
        (17, 0, {"val_check_interval": 4}),
    ],
)
def test_a_stopped_run_continues_with_the_exact_next_batch(
    step: int, workers: int, options: dict[str, int], tmp_path: Path
) -> None:
    whole, _ = fit(tmp_path, **options)
    stopped, _ = fit(tmp_path, Stop(step), workers=workers, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings(
            "ignore", message=".*(num_workers|not have many workers|Checkpoint|`srun`)"
        )
        resumed, _ = fit(tmp_path, ckpt=tmp_path / "stopped.ckpt", workers=workers, **options)
    done = len(stopped.seen)
    assert 0 < done < len(whole.seen)
    assert same(stopped.seen, whole.seen[:done])
    assert same(resumed.seen, whole.seen[done:])


def test_a_run_that_is_stopped_again_continues_with_the_exact_next_batch(tmp_path: Path) -> None:
    whole, _ = fit(tmp_path)
    seen = fit(tmp_path, Stop(12))[0].seen
    for step in (17, 24, 31, 36):  # 12, 24 and 36 are the last of their epochs
        seen += fit(tmp_path, Stop(step), ckpt=tmp_path / "stopped.ckpt")[0].seen
        assert same(seen, whole.seen[:step])


def test_epoch_end_checkpoints_continue_with_the_next_epoch(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole, _ = fit(tmp_path, keep)
    resumed, _ = fit(tmp_path, ckpt=tmp_path / "epoch=0.ckpt")
    assert same(resumed.seen, whole.seen[12:])


def test_epochs_differ_and_validation_is_complete(tmp_path: Path) -> None:
    module, data = fit(tmp_path, max_epochs=2, num_sanity_val_steps=0)
    first, second = module.seen[:12], module.seen[12:]
    assert not torch.equal(first[0][1], second[0][1])
    held_out = torch.cat(module.validated[: len(module.validated) // 2])
    assert len(held_out) == len(data.frames.val)
    expected = windows(data, data.frames.val).state_BHS
    assert sorted(held_out.flatten(1).tolist()) == sorted(expected.flatten(1).tolist())


def test_overfitting_sees_the_same_batches_each_epoch(tmp_path: Path) -> None:
    module, _ = fit(tmp_path, overfit_batches=2, max_epochs=2)
    assert torch.equal(module.seen[0][1], module.seen[2][1])


def test_predicting_gets_the_validation_windows(tmp_path: Path) -> None:
    class Predictor(Recorder):
        def predict_step(self, batch: TrajectoryBatch, batch_idx: int) -> int:
            return len(batch.embodiment_B)

    data = ToyTrajectories(episodes=6, batch_size=16)
    trainer = lightning.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False
    )
    counts = trainer.predict(Predictor(), data)
    assert sum(counts) == len(data.frames.val)


@pytest.mark.parametrize("size", [8, 32, 10])
def test_a_changed_global_batch_continues_with_the_exact_next_window(
    size: int, tmp_path: Path
) -> None:
    def frames(seen: list[tuple[int, torch.Tensor]]) -> torch.Tensor:
        return torch.cat([torch.zeros(0, 15, 74), *(batch for _, batch in seen)])

    whole, _ = fit(tmp_path)
    fit(tmp_path, Stop(5))
    state = torch.load(tmp_path / "stopped.ckpt", weights_only=True)["ToyTrajectories"]
    assert state == {"epoch": 0, "frames": 80}
    resumed, _ = fit(tmp_path, Stop(8), ckpt=tmp_path / "stopped.ckpt", batch_size=size)
    expected, found = frames(whole.seen), frames(resumed.seen)
    left = (200 - 80) // size * size  # of the first epoch, in whole batches
    assert torch.equal(found[:left], expected[80 : 80 + left][: len(found)])
    again, _ = fit(tmp_path, ckpt=tmp_path / "stopped.ckpt", batch_size=size, max_epochs=1)
    assert len(frames(again.seen)) == max(0, left - len(found))


def test_statistics_sample_is_balanced_and_of_training_windows() -> None:
    data = ToyTrajectories(episodes=12)
    with pytest.raises(DataError, match="call setup"):
        data.statistics_sample()
    data.setup("fit")
    sample = data.statistics_sample(100)
    assert torch.bincount(sample.embodiment_B).tolist() == [50, 50]
    assert torch.equal(sample.action_BHA, data.statistics_sample(100).action_BHA)
    training = windows(data, data.frames.train).state_BHS.flatten(1).tolist()
    held_out = windows(data, data.frames.val).state_BHS.flatten(1).tolist()
    rows = sample.state_BHS.flatten(1).tolist()
    assert all(row in training and row not in held_out for row in rows)


@pytest.mark.parametrize(
    ("argument", "message"),
    [({"chunk_length": 0}, "chunk_length is 0"), ({"history_length": -1}, "history_length is -1")],
)
def test_impossible_lengths_are_refused(argument: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ToyTrajectories(**argument)
