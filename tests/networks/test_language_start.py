"""Priors that start from a language model: sizes, refusals, training, checkpoints, Stage 2."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import huggingface_hub
import pytest
import torch

from actionprior.checkpoints.prior import load_prior
from actionprior.errors import UserError
from actionprior.motion_prior import MotionPriorModule
from actionprior.networks.language_blocks import LanguageSize
from actionprior.networks.language_start import new_prior
from actionprior.networks.motion_prior import PriorArchitecture
from actionprior.training.settings import grouped_settings
from actionprior.vla import VLAModule
from tests.helpers.language_models import write_language_model
from tests.helpers.robots import delta_arm, windows
from tests.helpers.stage1_runs import trainer
from tests.helpers.synthetic import BrightnessTrunk, ToyTrajectories, ToyVLA


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen3")
    write_language_model("qwen3", folder)
    return folder


def test_sizes_are_the_models(folder: Path) -> None:
    prior = new_prior([delta_arm()], PriorArchitecture(init_from=f"local-dir:{folder}"))
    found = prior.architecture
    assert (found.width, found.heads, found.encoder_depth, found.decoder_depth) == (32, 4, 3, 3)
    assert found.language == LanguageSize(2, 16, 40, 10000.0, 1e-6, head_norms=True)
    assert found.init_from == ""
    one = PriorArchitecture(init_from=f"local-dir:{folder}", init_layers=1)
    assert len(new_prior([delta_arm()], one).decoder.blocks) == 1
    assert PriorArchitecture.from_dict(json.loads(json.dumps(asdict(found)))) == found


def test_a_name_on_the_hub_needs_no_prefix(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "models--Qwen--Qwen3-0.6B"
    revision = "0123456789abcdef0123456789abcdef01234567"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(revision)
    shutil.copytree(folder, cached / "snapshots" / revision)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("Qwen/Qwen3-0.6B", "hf-hub:Qwen/Qwen3-0.6B", str(folder)):
        found = new_prior([delta_arm()], PriorArchitecture(init_from=name))
        assert found.architecture.width == 32


@pytest.mark.parametrize(
    ("architecture", "config", "sentence"),
    [
        ({"width": 96}, {}, "architecture.width is 96, but architecture.init_from takes 32"),
        ({"init_layers": 4}, {}, "init_layers is 4, but local-dir:.* has 3 layers"),
        ({}, {"model_type": "gemma"}, "describes 'gemma', whose blocks are not known"),
        ({}, {"hidden_act": "gelu"}, "with SwiGLU and plain rotary positions"),
        ({}, {"rope_scaling": {"rope_type": "yarn"}}, "plain rotary positions"),
        ({}, {"intermediate_size": 41}, r"mlp.down_proj.weight is \(32, 40\), expected \(32, 41\)"),
        ({}, {"hidden_size": "wide"}, "config.json lacks a size or is damaged"),
    ],
)
def test_what_does_not_fit_is_refused(
    folder: Path, tmp_path: Path, architecture: dict, config: dict, sentence: str
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    changed = json.loads((folder / "config.json").read_text()) | config
    (tmp_path / "config.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=sentence):
        new_prior(
            [delta_arm()], PriorArchitecture(init_from=f"local-dir:{tmp_path}", **architecture)
        )


def test_both_stages_train_from_it_and_need_it_no_longer(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    for file in folder.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    data = ToyTrajectories()
    robots = [e.to_dict() for e in data.embodiments]
    start = PriorArchitecture(init_from=f"local-dir:{source}", init_layers=2, latent_width=16)
    runner = trainer(tmp_path, 2, limit_val_batches=1)
    runner.fit(MotionPriorModule(robots, start), data)
    path = tmp_path / "prior.ckpt"
    runner.save_checkpoint(path)
    resumed = trainer(tmp_path, 3, limit_val_batches=0)
    resumed.fit(MotionPriorModule(robots, start), data, ckpt_path=path, weights_only=True)
    assert resumed.global_step == 3
    for file in source.iterdir():
        file.unlink()
    prior = load_prior(path)
    window = windows(prior.embodiments, 4, 15)
    assert prior.encode(window).shape == (4, 16)
    seen = ToyVLA()
    settings = grouped_settings({"warmup_steps": 1, "decay_fraction": 0.5})
    policy = VLAModule(robots, BrightnessTrunk(), str(path), **settings)
    stage2 = trainer(tmp_path, 2, limit_val_batches=1)
    stage2.fit(policy, seen)
    stage2.save_checkpoint(tmp_path / "policy.ckpt")
    loaded = VLAModule.load(tmp_path / "policy.ckpt", BrightnessTrunk())
    observation = next(iter(seen.val_dataloader())).observation
    noise = torch.randn(len(observation.task), 15, 37)
    torch.testing.assert_close(
        loaded.network.predict_chunk(observation, noise),
        policy.eval().network.predict_chunk(observation, noise),
    )
