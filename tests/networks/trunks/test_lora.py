"""Low-rank updates start at zero, are all that trains, rebuild from plain data, and merge."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from actionprior.checkpoints.folder import load_policy_network
from actionprior.networks.trunks.lora import LowRank
from actionprior.networks.trunks.open_clip import OpenClipTrunk
from actionprior.networks.trunks.timm import TimmTrunk
from actionprior.networks.trunks.tuning import Tuning
from actionprior.networks.trunks.two_towers import Pixels, TwoTowerTrunk
from actionprior.training.settings import grouped_settings
from actionprior.vla import VLAModule
from tests.helpers.clip_models import TASKS
from tests.helpers.stage1_runs import SMALL, trainer
from tests.helpers.synthetic import ToyVLA

BOTH = torch.ones(2, 2, dtype=torch.bool)
TOWERS = ["open_clip", "timm_vit", "timm_cnn"]


def build(kind: str, tiny: str, **kwargs: object) -> TwoTowerTrunk:
    torch.manual_seed(0)
    both = {"freeze_image": False, "freeze_text": False, **kwargs}
    if kind == "open_clip":
        return OpenClipTrunk.from_init_args({"model": tiny, **both})
    model = {"timm_vit": "test_vit", "timm_cnn": "test_convnext"}[kind]
    both |= {"model": model, "text_model": tiny, "image_size": 64, "width": 64}
    return TimmTrunk.from_init_args(both)


def trained(trunk: TwoTowerTrunk, images: Tensor) -> TwoTowerTrunk:
    """After two steps, so that both factors have moved."""
    optimizer = torch.optim.SGD([p for p in trunk.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        trunk.train()(images, BOTH, TASKS).tokens_BNW[..., :7].square().mean().backward()
        optimizer.step()
    return trunk.eval()


def test_the_update_is_the_product_of_its_factors() -> None:
    weight = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    update = LowRank(weight, rank=2, alpha=3.0)
    assert update(weight).equal(weight)
    nn.init.normal_(update.up_OR)
    change = (update(weight) - weight).flatten(1)
    torch.testing.assert_close(change, 1.5 * update.up_OR @ update.down_RI)
    assert torch.linalg.matrix_rank(change) == 2


@pytest.mark.parametrize("kind", TOWERS)
def test_it_starts_from_the_pretrained_towers(kind: str, tiny: str, images: Tensor) -> None:
    trunk, plain = build(kind, tiny, lora_rank=4).eval(), build(kind, tiny).eval()
    for name in ("image", "text", "from_text"):
        part = getattr(trunk, name).state_dict()
        own = {
            k.replace("parametrizations.", "").replace(".original", ""): v for k, v in part.items()
        }
        plain_part = getattr(plain, name)
        plain_part.load_state_dict({k: own[k] for k in plain_part.state_dict()})
    assert trunk(images, BOTH, TASKS).tokens_BNW.equal(plain(images, BOTH, TASKS).tokens_BNW)


@pytest.mark.parametrize("kind", TOWERS)
def test_only_updates_train_in_both_towers(kind: str, tiny: str, images: Tensor) -> None:
    trunk = build(kind, tiny, lora_rank=4, lr_scale=1.0)
    before = copy.deepcopy(trunk.state_dict())
    trained(trunk, images)
    updates = {n: p for n, p in trunk.named_parameters() if n.endswith(("up_OR", "down_RI"))}
    assert {name.split(".")[0] for name in updates} == {"image", "text"}
    for name, parameter in updates.items():
        assert parameter.grad.any(), f"{name} takes no part"  # nn.MultiheadAttention's do as well
    changed = {k for k, v in trunk.state_dict().items() if not v.equal(before[k])}
    assert all(k.startswith(("from_text", "from_image")) for k in changed - updates.keys())


@pytest.mark.parametrize("kind", TOWERS)
def test_merged_it_gives_the_same_from_plain_layers(kind: str, tiny: str, images: Tensor) -> None:
    trunk = trained(build(kind, tiny, lora_rank=4, lr_scale=1.0), images)
    before, mask, *_ = trunk(images, BOTH, TASKS)
    start = build(kind, tiny, lora_rank=4).eval()(images, BOTH, TASKS).tokens_BNW
    assert (before - start)[mask].abs().max() > 1e-3, "training has moved it"
    trunk.merge()
    after = trunk(images, BOTH, TASKS).tokens_BNW
    torch.testing.assert_close(after[mask], before[mask], atol=1e-4, rtol=1e-4)
    frozen = build(kind, tiny, freeze_image=True, freeze_text=True)
    assert [type(m) for m in trunk.modules()] == [type(m) for m in frozen.modules()]
    assert trunk.state_dict().keys() == frozen.state_dict().keys()
    assert trunk.text.frozen, "so that instructions are encoded once"
    again = type(trunk).from_init_args(trunk.init_args()).eval()
    again.load_state_dict(trunk.state_dict())
    assert again(images, BOTH, TASKS).tokens_BNW.equal(trunk(images, BOTH, TASKS).tokens_BNW)
    trunk.merge()  # again: nothing is to do


@pytest.mark.parametrize("kind", TOWERS)
def test_rebuilt_from_plain_data_and_copied(kind: str, tiny: str, images: Tensor) -> None:
    targets = {"open_clip": ["in_proj", "mlp.c_fc"], "timm_vit": ["qkv", "in_proj"]}
    trunk = build(kind, tiny, lora_rank=2, lora_targets=targets.get(kind), train_image_blocks=1)
    trained(trunk, images)
    tokens = trunk(images, BOTH, TASKS).tokens_BNW
    again = type(trunk).from_init_args(copy.deepcopy(trunk.init_args())).eval()
    again.load_state_dict(trunk.state_dict())
    assert again(images, BOTH, TASKS).tokens_BNW.equal(tokens)
    averaged = copy.deepcopy(trunk)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.mul_(1.5)
    assert averaged(images, BOTH, TASKS).tokens_BNW.equal(tokens)


def test_only_named_layers_of_the_blocks_that_train(tiny: str) -> None:
    trunk = build(
        "open_clip", tiny, lora_rank=2, lora_targets=["in_proj", "c_proj"], train_image_blocks=1
    )
    names = {n.rpartition(".0.")[0] for n, p in trunk.image.named_parameters() if p.requires_grad}
    block = "tower.transformer.resblocks.1"
    assert names == {
        f"{block}.attn.parametrizations.in_proj_weight",
        f"{block}.mlp.c_proj.parametrizations.weight",
    }


def test_convolutions_can_be_named(tiny: str, images: Tensor) -> None:
    trunk = TimmTrunk(
        "test_resnet",
        text_model=tiny,
        tuning=Tuning(freeze_image=False, lora_rank=2, lora_targets=["conv2"]),
        pixels=Pixels(image_size=64),
    )
    trained(trunk, images)
    assert sum(p.requires_grad for p in trunk.image.parameters()) == 2 * 4


def test_a_loaded_policy_acts_with_plain_layers(tmp_path: Path, tiny: str) -> None:
    data = ToyVLA()
    trunk = build("open_clip", tiny, lora_rank=2, lr_scale=1.0, layer_decay=0.5)
    robots = [e.to_dict() for e in data.embodiments]
    sizes = {"width": 32, "heads": 2, "warmup_steps": 1}
    policy = VLAModule(robots, trunk, architecture=SMALL, **grouped_settings(sizes))
    runner = trainer(tmp_path, 3, limit_val_batches=0)
    runner.fit(policy, data)
    rates = {group["initial_lr"] for group in policy.optimizers().param_groups}
    assert rates == {1e-3, 0.5e-3}, "two blocks are updated, and nothing before them"
    runner.save_checkpoint(tmp_path / "policy.ckpt")
    observation = next(iter(data.val_dataloader())).observation
    noise = torch.randn(len(observation.task), SMALL.chunk_length, 64)
    noise = noise[..., : policy.network.prior.normalizer.action_range_EA.shape[-1]]
    expected = policy.eval().network.predict_chunk(observation, noise)
    for network in (
        VLAModule.load(tmp_path / "policy.ckpt").network,
        load_policy_network(tmp_path / "policy.ckpt")[0],
    ):
        assert not any(parametrize.is_parametrized(m) for m in network.modules())
        torch.testing.assert_close(
            network.predict_chunk(observation, noise), expected, atol=1e-4, rtol=1e-4
        )
