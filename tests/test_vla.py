"""Test Stage 2: losses, switches, how it reads a prior, and its self-contained checkpoint."""

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

from actionprior.checkpoints.prior import load_prior
from actionprior.checkpoints.reading import CheckpointError
from actionprior.errors import UserError
from actionprior.networks.trunks import SmallTrunk
from actionprior.training.settings import grouped_settings
from actionprior.vla import VLAModule
from tests.helpers.robots import delta_arm
from tests.helpers.stage1_runs import SMALL, StopAt, module, trainer
from tests.helpers.stage2_runs import Log, Start
from tests.helpers.synthetic import BrightnessTrunk, ToyTrajectories, ToyVLA


@pytest.fixture(scope="module")
def stage1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short Stage 1 over both arms."""
    folder = tmp_path_factory.mktemp("stage1")
    data, runner = ToyTrajectories(), trainer(folder, 60)
    runner.fit(module(data), data)
    runner.save_checkpoint(folder / "prior.ckpt")
    return folder / "prior.ckpt"


def vla(prior: Path | str, data: ToyVLA | None = None, **kwargs: object) -> VLAModule:
    torch.manual_seed(1)
    robots = [e.to_dict() for e in (data or ToyVLA()).embodiments]
    settings = {"width": 32, "heads": 2, "warmup_steps": 5, "noise_repeats": 2, **kwargs}
    return VLAModule(robots, BrightnessTrunk(), str(prior), **grouped_settings(settings))


def run(folder: Path, policy: VLAModule, steps: int = 6, data: ToyVLA | None = None) -> Log:
    log = Log()
    trainer(folder, steps, callbacks=[log], limit_val_batches=1).fit(policy, data or ToyVLA())
    return log


def test_the_loss_is_the_methods(tmp_path: Path, stage1: Path) -> None:
    log = run(tmp_path, vla(stage1, decay_fraction=0.5, align_weight=2.0, recon_weight=3.0), 6)
    assert [row["train/lambda"] for row in log.rows] == pytest.approx([1, 2 / 3, 1 / 3, 0, 0, 0])
    for row in log.rows[:3]:
        parts = 2 * row["train/loss_align"] + 3 * row["train/loss_recon"]
        expected = row["train/loss_pred"] + row["train/lambda"] * parts
        assert row["train/loss"] == pytest.approx(expected, rel=1e-5)
        # On the sphere ‖z′ - z‖² = 2 - 2·cos.
        assert row["train/loss_align"] == pytest.approx(2 - 2 * row["train/cosine"], abs=1e-5)
    for row in log.rows[3:]:
        assert row["train/loss"] == pytest.approx(row["train/loss_pred"], rel=1e-6)


def test_the_latent_learns_where_the_next_keyframe_is(tmp_path: Path, stage1: Path) -> None:
    policy = vla(stage1, keyframe_weight=2.0, decay_fraction=0.0)
    rows = run(tmp_path, policy, 60).rows
    for row in rows:
        expected = row["train/loss_pred"] + 2 * row["train/loss_keyframe"]
        assert row["train/loss"] == pytest.approx(expected, rel=1e-5)
    losses = [row["train/loss_keyframe"] for row in rows]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_the_decoder_is_the_action_head_and_nothing_is_frozen(tmp_path: Path, stage1: Path) -> None:
    policy, loaded = vla(stage1), load_prior(stage1)
    for name, value in loaded.state_dict().items():
        assert torch.equal(policy.prior.state_dict()[name], value), name
    before = {k: v.clone() for k, v in policy.state_dict().items()}
    run(tmp_path, policy, 3)
    moved = {k for k, v in policy.named_parameters() if not torch.equal(v, before[k])}
    assert {k.split(".")[1] for k in moved} == {"prior", "fusion", "trunk"}
    assert any("encoder" in k for k in moved)
    assert any("decoder" in k for k in moved)
    scale = "network.prior.normalizer.action_scale"
    assert torch.equal(policy.state_dict()[scale], before[scale])


def test_switches_of_the_prior(stage1: Path) -> None:
    loaded = load_prior(stage1).state_dict()

    def kept(**switches: object) -> set[str]:
        policy = vla(stage1, **switches)
        found = policy.prior.state_dict()
        same = {k for k, v in loaded.items() if torch.equal(found[k], v) and v.any()}
        return {k.split(".")[0] for k in same if not k.endswith(("bias", "norm.weight"))}

    assert kept() >= {"encoder", "decoder", "normalizer", "dataset_EPW"}
    assert "decoder" not in kept(reuse_decoder=False)
    assert "encoder" in kept(reuse_decoder=False)
    without = vla(stage1, use_prior=False)
    assert without.prior.architecture == SMALL  # the same architecture and statistics
    assert without.align_weight == without.recon_weight == 0
    found = without.prior.state_dict()
    assert torch.equal(found["normalizer.action_scale"], loaded["normalizer.action_scale"])
    key = "encoder.embed_action.weight"
    assert not torch.equal(found[key], loaded[key])


@pytest.mark.parametrize(
    ("switches", "encoder", "decoder"),
    [
        ({}, 0.25, 0.25),
        ({"reuse_decoder": False}, 0.25, 1.0),
        ({"use_prior": False}, 1.0, 1.0),
    ],
)
def test_only_pretrained_weights_are_trained_at_the_experts_own_rate(
    tmp_path: Path, stage1: Path, switches: dict[str, bool], encoder: float, decoder: float
) -> None:
    policy = vla(stage1, expert_lr_scale=0.25, learning_rate=1e-3, **switches)
    run(tmp_path, policy, 1)
    groups = policy.optimizers().param_groups
    rate = {id(p): group["initial_lr"] / 1e-3 for group in groups for p in group["params"]}
    known = {name: rate[id(p)] for name, p in policy.named_parameters()}
    assert known["network.prior.encoder.to_latent.weight"] == pytest.approx(encoder)
    assert known["network.prior.dataset_EPW"] == pytest.approx(encoder)
    assert known["network.prior.decoder.to_velocity.weight"] == pytest.approx(decoder)
    assert known["network.fusion.to_latent.weight"] == 1.0


@pytest.mark.parametrize("history", ["off", "encoder", "mlp"])
def test_history_is_seen_only_where_there_is_one(stage1: Path, history: str) -> None:
    policy, data = vla(stage1, history=history).eval(), ToyVLA()
    data.setup("fit")
    first_of_episode = data.windows(True).__getitems__([0, 20])
    later = data.windows(True).__getitems__([9, 29])
    with torch.no_grad():
        start, on = (policy.network.latents(b.observation) for b in (first_of_episode, later))
    torch.testing.assert_close(start.with_history_BZ, start.without_history_BZ)
    apart = (on.with_history_BZ - on.without_history_BZ).norm(dim=-1).max()
    assert float(apart) == 0 if history == "off" else float(apart) > 1e-4
    # What is padded in the history changes nothing.
    past = later.observation.history
    inside = past.step_mask_BH[..., None]
    spoilt = past._replace(
        action_BHA=torch.where(inside, past.action_BHA, 50.0),
        state_BHS=torch.where(inside, past.state_BHS, 50.0),
    )
    with torch.no_grad():
        again = policy.network.latents(later.observation._replace(history=spoilt))
    torch.testing.assert_close(again.with_history_BZ, on.with_history_BZ)


def test_the_trunk_runs_once_a_step(tmp_path: Path, stage1: Path) -> None:
    policy, calls = vla(stage1), []
    policy.network.trunk.register_forward_hook(lambda *args: calls.append(1))
    trainer(tmp_path, 2, limit_val_batches=0).fit(policy, ToyVLA())
    assert len(calls) == 2


def test_validation_logs_what_was_promised(tmp_path: Path, stage1: Path) -> None:
    runner = trainer(tmp_path, 40, check_val_every_n_epoch=None, val_check_interval=40)
    runner.fit(vla(stage1), ToyVLA())
    metrics = {k: float(v) for k, v in runner.callback_metrics.items()}
    assert -1 <= metrics["val/cosine"] <= 1
    assert 0 <= metrics["val/retrieval"] <= 1
    assert metrics["val/panda/mae_arm_rad"] > 0
    assert metrics["val/kuka/mae_arm_rad"] > 0
    assert {"val/loss_pred", "val/loss_recon", "val/mae_normalized", "train/grad_norm"} <= set(
        metrics
    )


def test_a_checkpoint_stands_alone_and_resumes_bit_equal(tmp_path: Path, stage1: Path) -> None:
    own = tmp_path / "prior.ckpt"
    own.write_bytes(stage1.read_bytes())

    def average() -> EMAWeightAveraging:
        return EMAWeightAveraging(decay=0.9, update_starting_at_step=0)

    whole = vla(own)
    trainer(tmp_path, 12, limit_val_batches=0, callbacks=[average()]).fit(whole, ToyVLA())
    saved = tmp_path / "five.ckpt"
    stop = [average(), StopAt(5, saved)]
    trainer(tmp_path, 12, limit_val_batches=0, callbacks=stop).fit(vla(own), ToyVLA())
    own.unlink()
    again = vla(saved)
    resumed = trainer(tmp_path, 12, limit_val_batches=0, callbacks=[average()])
    resumed.fit(again, ToyVLA(), ckpt_path=saved, weights_only=True)
    for (name, wanted), found in zip(
        whole.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(wanted, found), name
    tester = trainer(tmp_path, 1)
    tester.test(vla(saved), ToyVLA(), ckpt_path=saved, weights_only=True, verbose=False)
    assert tester.callback_metrics["test/loss_pred"] > 0
    with pytest.raises(CheckpointError, match=r"prior\.ckpt does not exist"):
        vla(own)
    loaded = VLAModule.load(saved, trunk=BrightnessTrunk())
    for (name, wanted), found in zip(
        tester.lightning_module.state_dict().items(), loaded.state_dict().values(), strict=True
    ):
        assert torch.equal(wanted, found), name
    with pytest.raises(CheckpointError, match="uses the trunk 'BrightnessTrunk', which is none of"):
        VLAModule.load(saved)


def test_a_checkpoint_of_another_policy_is_refused(tmp_path: Path, stage1: Path) -> None:
    """Also where each name and shape fits: it would act otherwise than it was trained."""
    saved, runner = tmp_path / "saved.ckpt", trainer(tmp_path, 1, limit_val_batches=0)
    runner.fit(vla(stage1, history="off"), ToyVLA())
    runner.save_checkpoint(saved)
    differences = {
        "history is 'off' in the checkpoint and 'encoder' in the recipe": {},
        "heads is 2 in the checkpoint and 4 in the recipe": {"history": "off", "heads": 4},
        "prefix_steps is 0 in the checkpoint and 2 in the recipe": {
            "history": "off",
            "prefix_steps": 2,
        },
        "keyframe_weight is 0.0 in the checkpoint and 1.0 in the recipe": {
            "history": "off",
            "keyframe_weight": 1.0,
        },
    }
    for message, settings in differences.items():
        for verb in ("fit", "test"):
            with pytest.raises(CheckpointError, match=rf"saved\.ckpt is of another .*{message}"):
                getattr(trainer(tmp_path, 2), verb)(
                    vla(stage1, **settings), ToyVLA(), ckpt_path=saved
                )
    with pytest.raises(CheckpointError, match=r"prior\.ckpt is not of Stage 2; a prior is given"):
        trainer(tmp_path, 2).fit(vla(stage1), ToyVLA(), ckpt_path=stage1)
    with pytest.raises(
        CheckpointError, match=r"saved\.ckpt is of Stage 2, expected one of Stage 1"
    ):
        trainer(tmp_path, 2).fit(module(ToyTrajectories()), ToyTrajectories(), ckpt_path=saved)
    finer = vla(stage1, history="off", integration_steps=3)  # what no weight was trained for
    trainer(tmp_path, 1).test(finer, ToyVLA(), ckpt_path=saved, verbose=False)


def test_without_averaging_the_training_weights_are_resumed(tmp_path: Path, stage1: Path) -> None:
    saved, start = tmp_path / "saved.ckpt", Start()
    average = EMAWeightAveraging(decay=0.9, update_starting_at_step=0)
    options = {"limit_val_batches": 0}
    trainer(tmp_path, 6, callbacks=[average, StopAt(4, saved)], **options).fit(
        vla(stage1), ToyVLA()
    )
    with pytest.warns(UserWarning, match=r"saved\.ckpt has averaged and raw weights"):
        trainer(tmp_path, 6, callbacks=[start], **options).fit(
            vla(stage1), ToyVLA(), ckpt_path=saved, weights_only=True
        )
    held = torch.load(saved, weights_only=True)
    assert start.weights.keys() == held["state_dict"].keys()
    for name, found in start.weights.items():
        assert torch.equal(found, held["current_model_state"][name]), name
    decoder = "network.prior.decoder."
    assert any(
        not torch.equal(held["state_dict"][n], v)
        for n, v in held["current_model_state"].items()
        if n.startswith(decoder)
    )


def test_a_policy_that_cannot_learn_to_see_is_reported(tmp_path: Path, stage1: Path) -> None:
    policy = vla(stage1)
    policy.network.trunk.blind = True
    with pytest.warns(UserWarning, match="BrightnessTrunk is frozen with random weights"):
        run(tmp_path, policy, 1)
    assert SmallTrunk(freeze=True).blind
    assert not SmallTrunk().blind


def test_new_robots_join_only_when_asked_to(tmp_path: Path, stage1: Path) -> None:
    only_delta = tmp_path / "delta.ckpt"
    data, runner = ToyTrajectories(robots="delta"), trainer(tmp_path, 2)
    runner.fit(module(data), data)
    runner.save_checkpoint(only_delta)
    with pytest.raises(
        CheckpointError, match=r"trained on \['panda'\] and does not know .* 'kuka'"
    ):
        run(tmp_path, vla(only_delta), 1)
    policy = vla(only_delta, allow_new_embodiments=True)
    run(tmp_path, policy, 2)
    normalizer, old = policy.prior.normalizer, load_prior(only_delta).normalizer
    assert [e.name for e in policy.prior.embodiments] == ["panda", "kuka"]
    assert normalizer.missing == []
    torch.testing.assert_close(normalizer.action_scale[0], old.action_scale[0])


def test_rows_of_the_data_find_their_rows_in_the_prior(tmp_path: Path, stage1: Path) -> None:
    data = ToyVLA(robots="position")  # row 0 of the data, row 1 of the prior
    policy = vla(stage1, data)
    run(tmp_path, policy, 1, data)
    batch = next(iter(data.val_dataloader()))
    noise = torch.randn(len(batch.observation.task), 15, 37)
    chunk = policy.eval().predict_chunk(batch.observation, noise)
    used = chunk.abs().amax((0, 1)) > 0
    assert used.nonzero()[:, 0].tolist() == list(range(7, 13))


def test_bad_setups_are_rejected_in_one_sentence(tmp_path: Path, stage1: Path) -> None:
    other = delta_arm().to_dict() | {"control_hz": 50.0}
    message = r"'panda' differs: control_hz is 10(\.0)? in the checkpoint and 50\.0 in the recipe"
    with pytest.raises(CheckpointError, match=message):
        VLAModule([other], BrightnessTrunk(), str(stage1))
    with pytest.raises(UserError, match="history is 'long'"):
        vla(stage1, history="long")
    with pytest.raises(UserError, match=r"decay_fraction is 1\.5"):
        vla(stage1, decay_fraction=1.5)
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(UserError, match=rf"fusion\.state_dropout is {share}"):
            vla(stage1, state_dropout=share)
    for weight in (-1.0, float("inf"), float("nan")):
        with pytest.raises(UserError, match=rf"fusion\.keyframe_weight is {weight}"):
            vla(stage1, keyframe_weight=weight)
    with pytest.raises(UserError, match="no motion prior: give model"):
        vla("")


def test_a_policy_without_a_prior_checkpoint_is_warned_of() -> None:
    robots = [delta_arm().to_dict()]
    with pytest.warns(UserWarning, match=r"there is no prior_checkpoint, .* or use_prior=False"):
        VLAModule(robots, BrightnessTrunk(), architecture=SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VLAModule(robots, BrightnessTrunk(), architecture=SMALL, use_prior=False)


@pytest.mark.parametrize("use_prior", [True, False])
def test_another_architecture_than_the_priors_is_refused(stage1: Path, use_prior: bool) -> None:
    assert vla(stage1, architecture=SMALL, use_prior=use_prior).prior.architecture == SMALL
    wider = replace(SMALL, width=64)
    message = r"architecture\.width is 32 in the checkpoint and 64 .*`--model\.architecture null`"
    with pytest.raises(UserError, match=message):
        vla(stage1, architecture=wider, use_prior=use_prior)


def test_it_learns_from_what_it_sees(tmp_path: Path, stage1: Path) -> None:
    log = run(tmp_path, vla(stage1, decay_fraction=0.5, learning_rate=3e-3), 80)
    first = sum(r["train/loss_pred"] for r in log.rows[:5]) / 5
    last = sum(r["train/loss_pred"] for r in log.rows[-5:]) / 5
    assert last < 0.8 * first
    assert log.rows[35]["train/cosine"] > log.rows[0]["train/cosine"] + 0.2


@pytest.mark.slow
@pytest.mark.parametrize("history", ["off", "encoder"])
def test_ranks_cross_the_edge_where_the_encoder_loses_its_gradient(
    tmp_path: Path, stage1: Path, history: str
) -> None:
    words = [str(stage1), history, str(tmp_path), "ddp_fork", "4", "2", "1"]
    command = [sys.executable, "-m", "tests.helpers.ranks_vla", *words]
    subprocess.run(command, check=True, timeout=200, cwd=Path(__file__).parents[1])
    losses = {}
    for count in (4, 2, 1):
        ranks = [
            json.loads((tmp_path / f"rank{rank}of{count}.json").read_text())
            for rank in range(count)
        ]
        assert ranks[0]["lambda"] == pytest.approx([1, 2 / 3, 1 / 3, 0, 0, 0])
        assert len({rank["weights"] for rank in ranks}) == 1
        assert len({rank["held out"] for rank in ranks}) == 1  # of all ranks' windows
        losses[count] = np.mean([rank["loss"] for rank in ranks], axis=0)
    # The gradient is the global batch's, whoever has which part of it.
    np.testing.assert_allclose(losses[4], losses[1], rtol=2e-4)
    np.testing.assert_allclose(losses[2], losses[1], rtol=2e-4)
