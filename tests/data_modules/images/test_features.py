"""Test training from cached features: same losses, reproducible views, and the cache's laws."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from actionprior.batch import VLABatch
from actionprior.data import DataError
from actionprior.networks.trunks import CompactTrunk, SmallTrunk
from actionprior.networks.trunks.frozen_part import FrozenPart
from data_modules import CropColourBlur, FeatureSettings
from data_modules.images.features import FrozenFeatures, shift_image, transforms_name
from data_modules.images.frames import FrameImages
from tests.helpers.feature_runs import Darken, data_module, fit, frozen_trunk, policy
from tests.helpers.stage1_runs import Stop, trainer
from tests.helpers.stage2_runs import Log

SINGLE = FeatureSettings(cache=True, dtype="float32")
HALF = FeatureSettings(cache=True)
VIEWS = FeatureSettings(cache=True, views=3)
OFF = FeatureSettings()


class Batches(Callback):
    """Record the batches of training and validation."""

    def __init__(self) -> None:
        self.trained: list[VLABatch] = []
        self.validated: list[VLABatch] = []

    def on_train_batch_start(
        self, trainer: lightning.Trainer, module: object, batch: VLABatch, index: int
    ) -> None:
        self.trained.append(batch)

    def on_validation_batch_start(
        self, trainer: lightning.Trainer, module: object, batch: VLABatch, *_: object
    ) -> None:
        self.validated.append(batch)


def losses(log: Log, name: str = "train/loss") -> Tensor:
    return torch.tensor([row[name] for row in log.rows])


def feature_files(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "features").rglob("*.npy"))


def features_of(batches: list[VLABatch]) -> Tensor:
    found = [batch.observation.features_BCF for batch in batches]
    return torch.cat([f for f in found if f is not None])


def count_computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    calls: list[tuple[int, int]] = []
    compute = FrozenFeatures.compute

    def counted(self: FrozenFeatures, images: FrameImages, episode: int, camera: str, view: int):
        calls.append((episode, view))
        return compute(self, images, episode, camera, view)

    monkeypatch.setattr(FrozenFeatures, "compute", counted)
    return calls


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    for name in ("read", "frames"):
        method = getattr(FrameImages, name)

        def counted(self: FrameImages, *args: Any, name: str = name, method: Any = method):
            calls.append(name)
            return method(self, *args)

        monkeypatch.setattr(FrameImages, name, counted)
    return calls


def test_losses_are_those_of_the_frozen_network(seen: Path, tmp_path: Path) -> None:
    expected = fit(seen, tmp_path, OFF)
    recorded = Batches()
    found = fit(seen, tmp_path, SINGLE, recorded)
    torch.testing.assert_close(losses(found), losses(expected), rtol=1e-6, atol=1e-6)
    for batch in recorded.trained + recorded.validated:
        assert batch.observation.images_BCKYX.shape[-2:] == (0, 0)
    half = fit(seen, tmp_path, HALF)
    torch.testing.assert_close(losses(half), losses(expected), rtol=1e-3, atol=1e-3)
    name = "val/cosine"
    assert found.rows[-1][name] == pytest.approx(expected.rows[-1][name], abs=1e-5)


def test_each_robots_cameras_are_cropped_by_their_own_regions(seen: Path, tmp_path: Path) -> None:
    # The second robot's only camera is the second one of the first robot, in another region.
    def trunk() -> CompactTrunk:
        return frozen_trunk(regions=[[0.0, 0.25, 0.5, 0.75], None])

    settings = FeatureSettings(cache=True, dtype="float32", views=2, shift=0.1)
    expected = fit(seen, tmp_path, OFF, trunk=trunk())
    found = fit(seen, tmp_path, SINGLE, trunk=trunk())
    torch.testing.assert_close(losses(found), losses(expected), rtol=1e-6, atol=1e-6)
    whole = fit(seen, tmp_path, SINGLE)
    assert (losses(found) - losses(whole)).abs().max() > 1e-4
    assert losses(fit(seen, tmp_path, settings, trunk=trunk())).isfinite().all()


@pytest.mark.parametrize("cache_images", [True, False])
def test_a_second_run_reads_no_image_and_computes_nothing(
    cache_images: bool, seen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = count_computed(monkeypatch)
    options = {"cache_images": cache_images, "image_transforms": [Darken()]}
    first = fit(seen, tmp_path, VIEWS, **options)
    # Three episodes of three datasets' cameras, in three views each.
    assert len(computed) == len(feature_files(tmp_path)) == 3 * 2 * 3
    reads = count_reads(monkeypatch)
    again = fit(seen, tmp_path, VIEWS, **options)
    assert torch.equal(losses(again), losses(first))
    assert len(computed) == 3 * 2 * 3
    assert reads == []


def test_loader_processes_give_the_same_batches(seen: Path, tmp_path: Path) -> None:
    options = {"image_transforms": [Darken()], "steps": 5}
    plain, worked = Batches(), Batches()
    fit(seen, tmp_path, VIEWS, plain, **options)
    fit(seen, tmp_path, VIEWS, worked, num_workers=2, **options)
    assert torch.equal(features_of(plain.trained), features_of(worked.trained))
    assert torch.equal(features_of(plain.validated), features_of(worked.validated))


def test_views_differ_and_are_chosen_by_seed_epoch_and_place(seen: Path, tmp_path: Path) -> None:
    data = data_module(seen, tmp_path, VIEWS, image_transforms=[Darken()])
    runner = trainer(tmp_path, 1, limit_val_batches=0)
    runner.fit(policy(data), data)
    windows = data.windows(training=True)
    assert len(windows) == 3 * len(data.frames.store)
    views = [features_of([windows.__getitems__([3 * 5 + view])]) for view in range(3)]
    plain = data.windows(training=False).__getitems__([5])
    assert torch.equal(views[0], features_of([plain]))
    assert not torch.equal(views[1], views[0])
    assert not torch.equal(views[1], views[2])
    # Each image has draws of its own.
    darkened = features_of([windows.__getitems__([3 * frame + 1 for frame in range(6)])])
    bright = features_of([windows.__getitems__([3 * frame for frame in range(6)])])
    assert len((bright.float().norm(dim=2) / darkened.float().norm(dim=2))[:, 0].unique()) == 6

    order = data.train_dataloader().batch_sampler
    epochs = []
    for epoch in (0, 1, 0):
        order.sampler.set_epoch(epoch)
        epochs.append(torch.tensor(list(order)).flatten())
    assert torch.equal(epochs[0], epochs[2])
    assert set((epochs[0] % 3).tolist()) == {0, 1, 2}
    at = [dict(zip((e // 3).tolist(), (e % 3).tolist(), strict=True)) for e in epochs]
    common = at[0].keys() & at[1].keys()
    assert 0.1 < sum(at[0][frame] == at[1][frame] for frame in common) / len(common) < 0.7


def test_a_resumed_run_sees_what_it_would_have_seen(seen: Path, tmp_path: Path) -> None:
    options = {"image_transforms": [Darken()]}
    whole, first, second = Batches(), Batches(), Batches()
    log = fit(seen, tmp_path, VIEWS, whole, trunk=frozen_trunk(map_dropout=0.5), **options)
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        fit(seen, tmp_path, VIEWS, first, Stop(7), trunk=frozen_trunk(map_dropout=0.5), **options)
    # The weights of the frozen part come from the checkpoint, before features are looked for.
    files = feature_files(tmp_path)
    resumed = fit(
        seen, tmp_path, VIEWS, second,
        ckpt=tmp_path / "stopped.ckpt", trunk=frozen_trunk(seed=5, map_dropout=0.5), **options,
    )  # fmt: skip
    assert feature_files(tmp_path) == files
    assert torch.equal(features_of(whole.trained[7:]), features_of(second.trained))
    torch.testing.assert_close(losses(resumed), losses(log)[7:])


def test_other_weights_and_other_transforms_are_computed_apart(
    seen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = count_computed(monkeypatch)
    short = {"steps": 1, "image_transforms": [Darken()]}
    fit(seen, tmp_path, VIEWS, **short)
    fit(seen, tmp_path, VIEWS, **{**short, "image_transforms": [Darken(0.5)]})
    assert {view for _, view in computed[18:]} == {1, 2}, "view 0 needs no transform"
    before = len(computed)
    fit(seen, tmp_path, VIEWS, trunk=frozen_trunk(seed=9), **short)
    assert len(computed) == before + 18
    crop = CropColourBlur()
    assert transforms_name([crop]) == transforms_name([CropColourBlur()])
    assert transforms_name([crop]) != transforms_name([CropColourBlur(crop=0.7)])
    assert transforms_name([crop]) != transforms_name([CropColourBlur(blur=0.1)])


def test_shifted_views_show_things_where_they_are(seen: Path, tmp_path: Path) -> None:
    shifted = FeatureSettings(cache=True, views=3, shift=0.2, dtype="float32")
    data, trunk = data_module(seen, tmp_path, shifted), frozen_trunk()
    trainer(tmp_path, 1, limit_val_batches=0).fit(policy(data, trunk), data)
    windows = data.windows(training=True)
    plain, first, second = (
        features_of([windows.__getitems__([3 * frame + view for frame in range(8)])])
        for view in range(3)
    )
    assert not torch.equal(first, plain)
    assert not torch.equal(first, second)
    again = data_module(seen, tmp_path, FeatureSettings(cache=True, views=2, shift=0.1))
    files = feature_files(tmp_path)
    trainer(tmp_path, 1, limit_val_batches=0).fit(policy(again, trunk), again)
    assert len(feature_files(tmp_path)) > len(files), "another shift has files of its own"


def test_features_are_moved_back_by_the_shift() -> None:
    """With features that are a square's place, every view has the same ones."""
    images = torch.zeros(6, 3, 20, 40, dtype=torch.uint8)
    for number, image in enumerate(images):
        image[:, 8:12, 10 + number : 14 + number] = 255

    def places(seen: Tensor) -> Tensor:
        weight = seen[:, 0].double()
        total = weight.sum(dim=(1, 2))
        column = (weight.sum(dim=1) * torch.arange(40)).sum(dim=1) / total / 40
        row = (weight.sum(dim=2) * torch.arange(20)).sum(dim=1) / total / 20
        return torch.stack([column, row], dim=1)

    class Shown:
        def episode(self, number: int, camera: str) -> Iterator[Tensor]:
            yield images

    moves: list[Tensor] = []

    def move(features: Tensor, distance: Tensor) -> Tensor:
        moves.append(distance)
        return features + distance

    part = FrozenPart(nn.Linear(1, 1), places, 2, {}, move)
    frozen = FrozenFeatures(part, [], 0.2, torch.float32)
    (found,) = frozen.compute(Shown(), 0, "front", 1)  # type: ignore[arg-type]  # only its images
    torch.testing.assert_close(found, places(images).float())
    assert len(moves[0].unique(dim=0)) > 3, "each image has a shift of its own"


def test_an_image_is_shifted_down_and_to_the_right() -> None:
    image = torch.arange(12).reshape(1, 3, 4)
    assert shift_image(image, 1, 2).tolist() == [[[0, 0, 0, 1], [0, 0, 0, 1], [4, 4, 4, 5]]]
    assert shift_image(image, 0, -1).tolist() == [[[1, 2, 3, 3], [5, 6, 7, 7], [9, 10, 11, 11]]]


def test_a_damaged_file_is_computed_again_with_a_warning(
    seen: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fit(seen, tmp_path, SINGLE)
    for path in feature_files(tmp_path):
        good = path.read_bytes()
        content = bytearray(good)
        content[-1000] ^= 16
        path.write_bytes(content)
    computed = count_computed(monkeypatch)
    recorded = Batches()
    found = fit(seen, tmp_path, SINGLE, recorded)
    # Batches with a damaged row are trained on images, and the file is written again.
    torch.testing.assert_close(losses(found), losses(expected), rtol=1e-5, atol=1e-5)
    assert "is damaged; the episode is computed again" in caplog.text
    assert computed
    assert any(batch.observation.features_BCF is None for batch in recorded.trained)
    again = fit(seen, tmp_path, SINGLE)
    torch.testing.assert_close(losses(again), losses(expected))
    first = feature_files(tmp_path)[0]
    first.write_bytes(first.read_bytes()[:-8])
    computed.clear()
    fit(seen, tmp_path, SINGLE, steps=1)
    assert len(computed) == 1, "a file of another size is known at once"


def test_the_limit_is_kept_and_old_features_make_room(seen: Path, tmp_path: Path) -> None:
    fit(seen, tmp_path, HALF, steps=1)
    files = feature_files(tmp_path)
    for path in files:
        os.utime(path, (1, 1))
    needed = sum(path.stat().st_size for path in files)
    bound = FeatureSettings(cache=True, cache_gb=1.5 * needed / 1e9)
    fit(seen, tmp_path, bound, steps=1, trunk=frozen_trunk(seed=3))
    left = feature_files(tmp_path)
    assert sum(path.stat().st_size for path in left) <= 1.5 * needed
    assert len([path for path in left if path not in files]) == len(files)
    few = FeatureSettings(cache=True, cache_gb=0.5 * needed / 1e9)
    with pytest.raises(DataError, match=r"take .* GB and images\.features\.cache_gb is .*; raise"):
        fit(seen, tmp_path, few, steps=1)


def test_other_stages_see_images(seen: Path, tmp_path: Path) -> None:
    data, recorded = data_module(seen, tmp_path, HALF), Batches()
    module = policy(data)
    runner = trainer(tmp_path, 1, callbacks=[recorded], limit_val_batches=1, num_sanity_val_steps=1)
    runner.fit(module, data)
    runner.validate(module, data, verbose=False)
    assert [b.observation.features_BCF is None for b in recorded.validated] == [False, True]
    assert recorded.validated[1].observation.images_BCKYX.shape[-2:] == (32, 48)


def test_what_cannot_work_is_reported(seen: Path, tmp_path: Path) -> None:
    def settings(message: str, **values: Any) -> None:
        transforms = values.pop("image_transforms", [])
        with pytest.raises(DataError, match=message):
            data_module(seen, tmp_path, FeatureSettings(**values), image_transforms=transforms)

    settings("views is 0, expected 1 or more", views=0)
    settings("dtype is 'int8', expected 'float16' or", dtype="int8")
    settings(r"cache_gb is 1 with cache False, expected", cache_gb=1)
    settings("views is 3 with 0 image_transforms and shift 0.0; expected", cache=True, views=3)
    settings("shift is 0.5 with cache True, expected a share", cache=True, views=2, shift=0.5)
    settings("shift is 0.1 with cache False, expected a share", shift=0.1)
    settings("views is 1 with 1 image_trans", cache=True, image_transforms=[Darken()])

    data = data_module(seen, tmp_path, HALF)
    data.setup("fit")
    with pytest.raises(DataError, match=r"needs the trunk of a VLAModule, and found no Trainer;"):
        data.train_dataloader()
    with pytest.raises(DataError, match=r"nothing of this SmallTrunk is; freeze it \(freeze or"):
        fit(seen, tmp_path, HALF, trunk=SmallTrunk(image_size=32))
    with pytest.raises(DataError, match="needs a trunk whose image network is frozen"):
        fit(seen, tmp_path, HALF, trunk=frozen_trunk(freeze=False))


def test_features_beyond_half_precision_are_reported(seen: Path, tmp_path: Path) -> None:
    trunk = frozen_trunk()
    for buffer in (trunk.image.std_K11,):
        buffer.mul_(1e-9)
    with pytest.raises(DataError, match=r"not finite in torch.float16; set .*dtype to float32"):
        fit(seen, tmp_path, HALF, trunk=trunk)


@pytest.mark.slow
def test_ranks_share_the_work_and_train_as_on_images(seen: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.helpers.ranks_features", str(seen), str(tmp_path)]
    subprocess.run(command, check=True, timeout=200, cwd=Path(__file__).parents[3])
    off, on = (
        [json.loads((tmp_path / f"{name}.{rank}.json").read_text()) for rank in range(2)]
        for name in ("off", "on")
    )
    for expected, found in zip(off, on, strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
        assert found["weights"] == pytest.approx(expected["weights"], rel=1e-9)
    assert on[0]["weights"] == on[1]["weights"]
    assert on[0]["sent"]
    assert not [name for name in on[0]["sent"] if name.startswith("network.trunk.")]
    computed = on[0]["computed"] + on[1]["computed"]
    assert len(computed) == len(set(computed)) == len(feature_files(tmp_path)) == 6
