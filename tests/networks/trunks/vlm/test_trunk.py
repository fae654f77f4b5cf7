"""What trains of a vision-language model, how it is rebuilt, and how a policy acts with it."""

import copy
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Built
from tokenizers import models, pre_tokenizers
from torch import Tensor, nn
from torch.nn.utils import parametrize

from actionprior import Policy
from actionprior.batch import Observation
from actionprior.checkpoints.folder import load_policy_network
from actionprior.checkpoints.reading import CheckpointError, read_checkpoint
from actionprior.errors import UserError
from actionprior.networks.trunks import VLMTrunk
from actionprior.networks.trunks.instruction_signs import reading_faults
from actionprior.networks.trunks.two_towers import Pixels
from actionprior.networks.trunks.vlm.prompt import Tokenizer
from actionprior.training.settings import grouped_settings
from actionprior.vla import VLAModule
from tests.helpers.policies import observation, tiny_network, write_checkpoint
from tests.helpers.process_group import ROOT
from tests.helpers.robots import delta_arm, windows
from tests.helpers.serving_client import Client
from tests.helpers.serving_process import served
from tests.helpers.stage1_runs import SMALL, module, trainer
from tests.helpers.synthetic import ToyTrajectories, ToyVLA
from tests.helpers.vlm_models import write_vlm
from tests.networks.trunks.vlm.conftest import Build, Source

TASKS = ["push the red cube to the blue pad", "lift it"]
MASK = torch.tensor([[True, True], [True, False]])
QWEN = pytest.mark.parametrize("family", ["qwen3_vl"])


def latent(trunk: VLMTrunk, images: Tensor, fusion: Any = None) -> Tensor:
    torch.manual_seed(7)
    fusion = fusion or trunk.own_fusion(16, 8, 0.0)
    draw = torch.Generator().manual_seed(5)
    dataset, state, history = (
        torch.randn(*size, generator=draw) for size in ((2, 3, 16), (2, 74), (2, 8))
    )
    known = torch.tensor([True, True])
    z: Tensor = fusion(trunk(images, MASK, TASKS), dataset, state, history, None, known)
    return z


def trained(trunk: VLMTrunk) -> list[str]:
    return [name for name, p in trunk.named_parameters() if p.requires_grad]


@QWEN
def test_instructions_that_are_the_same_tokens_are_named(build: Build) -> None:
    trunk = build()
    assert reading_faults(TASKS, trunk.instruction_signs(TASKS), "T") == []
    words = Built(models.WordLevel({"<unk>": 0, "lift": 1, "the": 2}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trunk.tokenizer = Tokenizer(words.to_str().encode())
    tasks = ["lift the cube", "lift the can", "cube the lift"]
    found = reading_faults(tasks, trunk.instruction_signs(tasks), "T")
    assert len(found) == 1
    assert "it takes 'lift the cube' for 'lift the can'" in found[0]


# ---- what trains ------------------------------------------------------------------------------


def test_by_default_everything_trains(build: Build, images: Tensor) -> None:
    trunk = build()
    latent(trunk, images).square().mul(torch.arange(8)).sum().backward()
    assert trained(trunk)
    without = [name for name, p in trunk.named_parameters() if p.grad is None]
    assert not without, "data-parallel training refuses parameters without a gradient"
    assert trunk.frozen_part() is None
    assert not trunk.blind


def test_frozen_towers_get_no_gradient_but_let_it_pass(build: Build, images: Tensor) -> None:
    trunk = build(freeze_image=True, freeze_text=True)
    fusion = trunk.own_fusion(16, 8, 0.0)
    latent(trunk, images, fusion).square().mul(torch.arange(8)).sum().backward()
    assert not trained(trunk)
    assert trunk.lr_scale == 0
    assert all(p.grad is not None for p in fusion.parameters())
    assert fusion.query.grad is not None
    assert not any(m.training for m in trunk.model.modules() if list(m.parameters()))


def test_only_the_last_layers_train(build: Build, images: Tensor) -> None:
    trunk = build(train_text_blocks=1, freeze_image=True)
    names = trained(trunk)
    assert names
    assert all("layers.2." in name or ".norm." in name for name in names)
    both = build(train_text_blocks=2, train_image_blocks=1)
    assert any("layers.1." in name for name in trained(both))
    assert not any("embed" in name or ".0." in name.split("layers")[-1][:3] for name in names)
    latent(both, images).square().mul(torch.arange(8)).sum().backward()
    assert all(p.grad is not None for p in both.parameters() if p.requires_grad)


def test_layer_rates_fall_with_the_depth(build: Build) -> None:
    trunk = build(layer_decay=0.5, lr_scale=0.5, freeze_image=True)
    groups = list(trunk.parameter_groups())
    assert [factor for _, factor in groups] == [0.5, 0.25, 0.125, 0.0625]
    grouped = [p for parameters, _ in groups for p in parameters]
    assert {id(p) for p in grouped} == {id(p) for p in trunk.parameters() if p.requires_grad}


def test_low_rank_updates_merge_into_plain_layers(
    build: Build, images: Tensor, family: str
) -> None:
    names = ["q_proj", "v_proj"] + ["qkv"] * (family == "qwen3_vl")
    trunk = build(lora_rank=2, lora_targets=names)
    updates = trained(trunk)
    assert updates
    assert all(".parametrizations." in name for name in updates)
    with torch.no_grad():
        for name, parameter in trunk.named_parameters():
            if name in updates:
                parameter.add_(0.05 * torch.randn_like(parameter))
    fusion = trunk.own_fusion(16, 8, 0.0)
    before = latent(trunk.eval(), images, fusion)
    trunk.merge()
    assert not any(parametrize.is_parametrized(m) for m in trunk.modules())
    torch.testing.assert_close(latent(trunk, images, fusion), before, atol=1e-4, rtol=1e-3)
    again = VLMTrunk.from_init_args(trunk.init_args())
    again.load_state_dict(trunk.state_dict())
    assert not trained(again)


def test_fewer_layers(build: Build, images: Tensor) -> None:
    trunk = build(layers=2).eval()
    decoder = trunk.model.get_decoder()
    assert len(decoder.layers) == 2
    whole = build().eval()
    whole.model.get_decoder().layers = whole.model.get_decoder().layers[:2]
    whole.model.get_decoder().config.num_hidden_layers = 2
    torch.testing.assert_close(latent(trunk, images), latent(whole, images))
    again = VLMTrunk.from_init_args(trunk.init_args()).eval()
    again.load_state_dict(trunk.state_dict())
    torch.testing.assert_close(latent(again, images), latent(trunk, images))
    with pytest.raises(UserError, match="layers is 9, but the language model has 3 layers"):
        build(layers=9)


def test_layers_that_images_enter_are_kept(source: Source) -> None:
    with pytest.raises(UserError, match="layers is 1, but images enter the first 2 layers"):
        VLMTrunk(source("qwen3_vl"), layers=1, pixels=Pixels(image_size=32))
    whole = VLMTrunk(source("qwen3_vl"), pixels=Pixels(image_size=32))
    older = VLMTrunk.from_init_args({**whole.init_args(), "layers": 1})  # of a checkpoint
    assert len(older.model.get_decoder().layers) == 1


@pytest.mark.parametrize("layers", [0, 2])
def test_every_weight_that_trains_gets_a_gradient(
    build: Build, images: Tensor, layers: int
) -> None:
    trunk = build(layers=layers)
    latent(trunk, images).square().mul(torch.arange(8)).sum().backward()
    unused = {name for name, p in trunk.named_parameters() if p.requires_grad and p.grad is None}
    assert not unused, unused


def test_recomputed_layers_give_the_same_gradient(build: Build, images: Tensor) -> None:
    from callbacks import CheckpointActivations

    gradients = []
    for recompute in (False, True):
        trunk = build()
        if recompute:
            CheckpointActivations().setup(None, trunk, "fit")  # type: ignore[arg-type]
        latent(trunk, images).square().mul(torch.arange(8)).sum().backward()
        gradients.append([p.grad for p in trunk.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


@QWEN
def test_compiled_layers_give_the_same(build: Build, images: Tensor) -> None:
    from callbacks import CompileLayers

    trunk = build().eval()
    expected = latent(trunk, images)
    CompileLayers(backend="eager").setup(None, trunk, "fit")  # type: ignore[arg-type]
    torch.testing.assert_close(latent(trunk, images), expected)


def test_half_precision_is_close(build: Build, images: Tensor) -> None:
    trunk = build().eval()
    expected = latent(trunk, images)
    with torch.autocast("cpu", torch.bfloat16):
        found = latent(trunk, images)
    assert torch.nn.functional.cosine_similarity(found.float(), expected).min() > 0.98


# ---- rebuilt ----------------------------------------------------------------------------------


def test_rebuilt_from_plain_data_it_gives_the_same(build: Build, images: Tensor) -> None:
    trunk = build().eval()
    recorded = json.loads(json.dumps(trunk.init_args()))
    trunk.require_rebuildable()
    again = VLMTrunk.from_init_args(recorded).eval()
    assert again.init_args() == trunk.init_args()
    again.load_state_dict(trunk.state_dict())
    torch.testing.assert_close(latent(again, images), latent(trunk, images))
    assert not trunk.differing_args(recorded)


def test_a_copy_has_weights_of_its_own(images: Tensor, build: Build) -> None:
    network = nn.ModuleDict({"trunk": build()})
    network["fusion"] = network["trunk"].own_fusion(16, 8, 0.0)
    copied = copy.deepcopy(network)
    expected = latent(copied["trunk"], images, copied["fusion"])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    torch.testing.assert_close(latent(copied["trunk"], images, copied["fusion"]), expected)
    assert (latent(network["trunk"], images, network["fusion"]) - expected).abs().max() > 1e-3


def test_features_of_the_frozen_part_stand_for_the_images(build: Build, images: Tensor) -> None:
    trunk = build(freeze_image=True)
    part = trunk.frozen_part()
    assert part is not None
    features = part.features(images.flatten(0, 1))
    assert features.shape == (4, part.width)
    found = trunk(images[..., :0, :0], MASK, TASKS, features.unflatten(0, (2, 2)))
    expected = trunk(images, MASK, TASKS)
    torch.testing.assert_close(found.tokens_BNW, expected.tokens_BNW)
    assert part.identity() == build(freeze_image=True).frozen_part().identity()  # type: ignore[union-attr]


@QWEN
def test_random_weights_of_the_sources_sizes(source: Source, family: str) -> None:
    torch.manual_seed(1)
    trunk = VLMTrunk(source(family), random_weights=True, pixels=Pixels(image_size=32))
    loaded = VLMTrunk(source(family), pixels=Pixels(image_size=32))
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(trunk.state_dict()[name], loaded.state_dict()[name])
    assert trunk.init_args()["found"]["source"] == ""


@QWEN
def test_an_image_size_that_does_not_fit_is_refused(source: Source, family: str) -> None:
    with pytest.raises(UserError, match="does not take images of 24 by 24 pixels"):
        VLMTrunk(source(family), pixels=Pixels(image_size=24))


# ---- in a policy ------------------------------------------------------------------------------


def test_a_policy_trains_resumes_and_acts_without_any_other_file(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ToyVLA()
    robots = [e.to_dict() for e in data.embodiments]
    settings = grouped_settings({"warmup_steps": 1, "decay_fraction": 0.5})
    policy = VLAModule(robots, build(), architecture=SMALL, **settings)
    runner = trainer(tmp_path, 3, limit_val_batches=1)
    runner.fit(policy, data)
    path = tmp_path / "policy.ckpt"
    runner.save_checkpoint(path)

    torch.manual_seed(9)
    again = VLAModule(robots, build(), architecture=SMALL, **settings)
    resumed = trainer(tmp_path, 4, limit_val_batches=0)
    resumed.fit(again, data, ckpt_path=path, weights_only=True)
    assert resumed.global_step == 4

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("loading a policy asks a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    seen = next(iter(data.val_dataloader())).observation
    noise = torch.randn(len(seen.task), SMALL.chunk_length, 37)
    expected = policy.eval().network.predict_chunk(seen, noise)
    for network in (VLAModule.load(path).network, load_policy_network(path)[0]):
        torch.testing.assert_close(network.predict_chunk(seen, noise), expected)


@QWEN
@pytest.mark.parametrize("history", ["off", "encoder", "mlp"])
def test_acting_and_training_see_the_same(build: Build, history: str) -> None:
    robot = delta_arm()
    network = tiny_network([robot], trunk=build(), history=history)
    now, past = windows([robot], 4, 12, seed=5), windows([robot], 4, 4, seed=6)
    pixels = torch.randint(256, (4, len(robot.cameras), 3, 32, 32), dtype=torch.uint8)
    seen = Observation(
        pixels,
        torch.ones(pixels.shape[:2], dtype=torch.bool),
        ["push the cube"] * 4,
        now.state_BHS[:, 0],
        now.reference_BA,
        past,
        now.embodiment_B,
    )
    both = network.latents(seen)
    torch.testing.assert_close(network.latent(seen), both.with_history_BZ, atol=1e-5, rtol=1e-4)
    assert both.with_history_BZ.equal(both.without_history_BZ) == (history == "off")
    torch.cat(both).square().mul(torch.arange(both[0].shape[1])).sum().backward()
    without = [name for name, p in network.fusion.named_parameters() if p.grad is None]
    assert not without, "data-parallel training refuses parameters without a gradient"


@QWEN
def test_exported_policies_act_the_same(build: Build, tmp_path: Path) -> None:
    from actionprior.cli import main

    robot = delta_arm()
    network = tiny_network([robot], trunk=build())
    path = write_checkpoint(network, tmp_path / "policy.ckpt")
    main(["export", f"--ckpt_path={path}", f"--out={tmp_path / 'exported'}"])
    seen = observation(robot)
    expected = Policy.load(path).predict_chunk(seen)
    np.testing.assert_allclose(
        Policy.load(tmp_path / "exported").predict_chunk(seen), expected, atol=1e-6
    )
    from actionprior.lerobot.modeling_actionprior import ActionPriorPolicy
    from tests.helpers.policies import lerobot_batch

    torch.manual_seed(0)  # decides the flow noise, as the seed of ``Policy.reset`` does
    plugin = ActionPriorPolicy.from_pretrained(tmp_path / "exported")
    action = plugin.select_action(lerobot_batch([seen]))
    # LeRobot's batches hold images as fractions, which are rounded.
    np.testing.assert_allclose(action[0].numpy(), expected[0], atol=1e-3)
    assert np.abs(expected[0] - expected[1]).max() > 1e-2, "the comparison sees a wrong step"


@QWEN
def test_a_graph_that_cannot_be_written_is_refused_in_a_sentence(
    build: Build, tmp_path: Path
) -> None:
    from actionprior.export.onnx import OnnxError, export_onnx

    network = tiny_network([delta_arm()], trunk=build())
    with pytest.raises(OnnxError, match=r"see\.onnx cannot be written: .* with VLMTrunk .*without"):
        export_onnx(network, tmp_path, 0, "push the cube", (32, 32))


@QWEN
def test_a_checkpoint_that_names_a_source_is_not_followed(build: Build, tmp_path: Path) -> None:
    path = write_checkpoint(tiny_network([delta_arm()], trunk=build()), tmp_path / "policy.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    recorded = checkpoint["vla"]["trunk"]["init_args"]
    recorded["pretrained"] = "hf-hub:stranger/model"
    torch.save(checkpoint, path)
    Policy.load(path)
    for change in ({"model_type": "of_a_stranger"}, {"model_type": "llama"}, {"text_config": 3}):
        spoilt = copy.deepcopy(checkpoint)
        spoilt["vla"]["trunk"]["init_args"]["found"]["config"] |= change
        torch.save(spoilt, path)
        with pytest.raises(CheckpointError):
            Policy.load(path)


@pytest.mark.slow
@QWEN
def test_a_policy_is_served(build: Build, tmp_path: Path) -> None:
    robot = delta_arm()
    path = write_checkpoint(tiny_network([robot], trunk=build()), tmp_path / "policy.ckpt")
    seen = observation(robot)
    with served(path) as server:
        answer = Client(server.host, server.port).actions(seen)
    np.testing.assert_allclose(answer, Policy.load(path).predict_chunk(seen), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "strategy", "lora_rank"),
    [
        ("qwen3_vl", "ddp_fork", 0),
        ("qwen3_vl", "sharded", 0),
        ("qwen3_vl", "sharded", 4),
        ("smolvlm", "ddp_fork", 0),
        ("paligemma", "sharded", 0),
    ],
)
def test_two_ranks_learn_what_one_process_learns(
    tmp_path: Path, source: Source, family: str, strategy: str, lora_rank: int
) -> None:
    """Train across the step at which λ reaches zero."""
    data, runner = ToyTrajectories(), trainer(tmp_path, 2, limit_val_batches=0)
    runner.fit(module(data), data)
    runner.save_checkpoint(tmp_path / "prior.ckpt")
    for name, ranks in ((strategy, "2"), ("auto", "1")):
        words = [str(tmp_path / "prior.ckpt"), source(family), str(tmp_path), name]
        words += [str(lora_rank), ranks]
        command = [sys.executable, "-m", "tests.helpers.ranks_vlm", *words]
        subprocess.run(command, check=True, timeout=250, cwd=ROOT)
    reports = [json.loads((tmp_path / f"rank{r}of2.json").read_text()) for r in range(2)]
    single = json.loads((tmp_path / "rank0of1.json").read_text())
    assert reports[0]["weights"] == reports[1]["weights"]
    losses = np.mean([rank["loss"] for rank in reports], axis=0)
    np.testing.assert_allclose(losses, single["loss"], rtol=5e-4)
    assert single["lambda"][0] == 1.0
    assert single["lambda"][-1] == 0.0
    saved, expected = (read_checkpoint(tmp_path / f"of{n}.ckpt") for n in (2, 1))
    assert saved["state_dict"].keys() == expected["state_dict"].keys()
    VLAModule.load(tmp_path / "of2.ckpt")


def test_a_source_is_needed() -> None:
    with pytest.raises(UserError, match="VLMTrunk needs a model: set pretrained to hf-hub:"):
        VLMTrunk()


def test_sizes_of_a_recipe_without_weights(tmp_path: Path) -> None:
    folder = write_vlm("qwen3_vl", tmp_path, weights=False)
    with pytest.raises(UserError, match="weights cannot be loaded"):
        VLMTrunk(f"local-dir:{folder}", pixels=Pixels(image_size=32))
    VLMTrunk(f"local-dir:{folder}", random_weights=True, pixels=Pixels(image_size=32))
