"""Test augmentation: only of training images, and the same ones in a resumed run."""

import contextlib
from collections import Counter
from pathlib import Path

import jsonargparse
import lightning
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torchvision.transforms import v2

from actionprior.batch import Observation, VLABatch
from actionprior.data import DataError
from data_modules import CropColourBlur, LeRobotVLA
from data_modules.images.augmentation import augment
from data_modules.vla import ImageSettings
from tests.helpers.datasets import CAMERAS, arm
from tests.helpers.stage1_runs import Stop


class Recorder(lightning.LightningModule):
    """Records the images of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.trained: list[Tensor] = []
        self.validated: list[Tensor] = []
        self.drawn: list[Tensor] = []

    def training_step(self, batch: VLABatch, batch_idx: int) -> Tensor:
        self.trained.append(batch.observation.images_BCKYX)
        self.drawn.append(torch.rand(2))
        return self.weight

    def validation_step(self, batch: VLABatch, batch_idx: int) -> None:
        self.validated.append(batch.observation.images_BCKYX)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(
    seen: Path, folder: Path, *callbacks: Callback, ckpt: Path | None = None, **options
) -> Recorder:
    robots = [arm(seen, name="two", cameras=CAMERAS), arm(seen, name="one", cameras=CAMERAS[1:])]
    images = ImageSettings(image_size=(16, 24), cache_dir=str(folder))
    data = LeRobotVLA(robots, batch_size=4, images=images, **options)
    module = Recorder()
    trainer = lightning.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        accumulate_grad_batches=2,
        max_epochs=2,
        callbacks=list(callbacks),
    )
    lightning.seed_everything(3)
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        trainer.fit(module, data, ckpt_path=ckpt, weights_only=True if ckpt else None)
    return module


def test_only_training_images_change(seen: Path, tmp_path: Path) -> None:
    plain = fit(seen, tmp_path)
    changed = fit(seen, tmp_path, image_transforms=[CropColourBlur()])
    assert len(plain.trained) == len(changed.trained) > 10
    for before, after in zip(plain.trained, changed.trained, strict=True):
        assert after.dtype == torch.uint8
        assert not after.requires_grad
        masked = (before == 0).all(dim=(2, 3, 4))  # the camera that the robot lacks
        assert (after[masked] == 0).all()
        assert (after != before).any(dim=(2, 3, 4))[~masked].float().mean() > 0.9
    assert any((image == 0).all() for batch in plain.trained for image in batch[:, 1])
    for before, after in zip(plain.validated, changed.validated, strict=True):
        assert torch.equal(before, after)
    # Other random draws of the run do not change.
    assert torch.equal(torch.stack(plain.drawn), torch.stack(changed.drawn))


@pytest.mark.parametrize("step", [3, 7])
def test_a_resumed_run_gets_the_same_images(step: int, seen: Path, tmp_path: Path) -> None:
    options = {"image_transforms": [CropColourBlur()]}
    whole = fit(seen, tmp_path, **options)
    stopped = fit(seen, tmp_path, Stop(step), **options)
    resumed = fit(seen, tmp_path, ckpt=tmp_path / "stopped.ckpt", **options)
    pieces = [*stopped.trained, *resumed.trained]
    assert len(resumed.trained) > 0
    assert len(pieces) == len(whole.trained)
    assert all(torch.equal(a, b) for a, b in zip(pieces, whole.trained, strict=True))


def observation(images_BCKYX: Tensor, mask_BC: Tensor) -> Observation:
    nothing = torch.zeros(len(images_BCKYX))
    return Observation(images_BCKYX, mask_BC, [], nothing, nothing, (), nothing)  # type: ignore[arg-type]  # parts that augmentation does not use


def test_large_batches_are_changed_in_groups() -> None:
    picture = torch.arange(3 * 16 * 24).remainder(256).to(torch.uint8).reshape(3, 16, 24)
    mask = torch.ones(40, 2, dtype=torch.bool)
    mask[::3, 1] = False
    given = observation(picture.expand(40, 2, 3, 16, 24), mask)
    found = augment(given, [CropColourBlur(crop=0.5, colour=0.5)], (0,)).images_BCKYX
    assert all(torch.equal(image, picture) for image in found[~mask])
    counts = Counter(image.numpy().tobytes() for image in found[mask])
    assert len(counts) == 16
    assert max(counts.values()) == -(-int(mask.sum()) // 16)
    assert picture.numpy().tobytes() not in counts


def test_draws_depend_only_on_the_key_and_differ_per_image() -> None:
    picture = torch.arange(3 * 16 * 24).remainder(256).to(torch.uint8).reshape(3, 16, 24)
    same = observation(picture.expand(6, 2, 3, 16, 24), torch.ones(6, 2, dtype=torch.bool))
    transforms = [CropColourBlur(crop=0.5, colour=0.5)]
    first = augment(same, transforms, (0, 5, 9, 0)).images_BCKYX
    torch.rand(7)
    assert torch.equal(augment(same, transforms, (0, 5, 9, 0)).images_BCKYX, first)
    for other in ((1, 5, 9, 0), (0, 6, 9, 0), (0, 5, 10, 0), (0, 5, 9, 1)):
        assert not torch.equal(augment(same, transforms, other).images_BCKYX, first)
    assert len({image.numpy().tobytes() for image in first.flatten(0, 1)}) == 12
    assert torch.equal(same.images_BCKYX[3, 1], picture)


def test_other_transforms_must_keep_size_and_type() -> None:
    images = torch.zeros(1, 1, 3, 16, 24, dtype=torch.uint8)
    given = observation(images, torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(
        DataError, match=r"make torch\.uint8 \(1, 3, 8, 8\) of torch\.uint8 \(1, 3, 16"
    ):
        augment(given, [v2.Resize((8, 8))], (0,))
    with pytest.raises(DataError, match=r"make torch\.float32 \(1, 3, 16, 24\) of torch\.uint8"):
        augment(given, [v2.ToDtype(torch.float32)], (0,))
    with pytest.raises(DataError, match=r"crop 0\.0, colour 0\.2 and blur 0\.2, expected each"):
        CropColourBlur(crop=0.0)


def test_recipes_may_name_own_and_torchvision_transforms(seen: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "data.yaml"
    transforms = [
        {"class_path": "data_modules.CropColourBlur", "init_args": {"blur": 0.5}},
        {
            "class_path": "torchvision.transforms.v2.ColorJitter",
            "init_args": {"brightness": [0.5, 1.5], "hue": 0.1},
        },
        {"class_path": "torchvision.transforms.v2.RandomGrayscale"},
    ]
    recipe.write_text(yaml.safe_dump({"image_transforms": transforms}))
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(LeRobotVLA, skip={"embodiments"})
    made = parser.instantiate(parser.parse_args([f"--config={recipe}"])).image_transforms
    assert [type(t) for t in made] == [CropColourBlur, v2.ColorJitter, v2.RandomGrayscale]
    assert made[1].brightness == (0.5, 1.5)
    given = observation(
        torch.full((2, 1, 3, 8, 8), 90, dtype=torch.uint8), torch.ones(2, 1, dtype=torch.bool)
    )
    assert not torch.equal(augment(given, made, (0,)).images_BCKYX, given.images_BCKYX)
