"""Which of the towers' parameters train, and at what rate: blocks, layers, and refusals."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from actionprior.errors import UserError
from actionprior.networks.trunks.open_clip import OpenClipTrunk
from actionprior.networks.trunks.timm import TimmTrunk
from actionprior.networks.trunks.tuning import Tuning
from actionprior.networks.trunks.two_towers import Pixels, TwoTowerTrunk
from tests.helpers.clip_models import TASKS

BOTH = torch.ones(2, 2, dtype=torch.bool)


def unfrozen(tiny: str, **kwargs: object) -> OpenClipTrunk:
    tuning = Tuning(**{"freeze_image": False, "freeze_text": False} | kwargs)
    return OpenClipTrunk(tiny, tuning=tuning)


def timm_trunk(model: str, tiny: str, **kwargs: object) -> TimmTrunk:
    tuning = Tuning(freeze_image=False, **kwargs)
    return TimmTrunk(model, text_model=tiny, tuning=tuning, pixels=Pixels(image_size=64))


def vit(tiny: str, **kwargs: object) -> TimmTrunk:
    return timm_trunk("test_vit", tiny, **kwargs)


def cnn(tiny: str, **kwargs: object) -> TimmTrunk:
    return timm_trunk("test_resnet", tiny, **kwargs)


def trained(module: nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if p.requires_grad}


def test_only_the_last_blocks_of_each_tower_train(tiny: str, images: Tensor) -> None:
    trunk = unfrozen(tiny, train_image_blocks=1, train_text_blocks=2).train()
    image, text = trained(trunk.image.tower), trained(trunk.text.tower)
    assert {n for n in image if not n.startswith("transformer.resblocks.1.")} == {
        "ln_post.weight",
        "ln_post.bias",
    }
    assert {n.split(".")[2] for n in text if "resblocks" in n} == {"0", "1"}
    assert not {"token_embedding.weight", "positional_embedding"} & text
    trunk(images, BOTH, TASKS).tokens_BNW.square().mean().backward()
    assert all((p.grad is not None) == p.requires_grad for p in trunk.parameters())


@pytest.mark.parametrize("build", [vit, cnn])
def test_frozen_blocks_keep_nothing_for_the_backward_pass(
    build: Callable[..., TimmTrunk], tiny: str, images: Tensor
) -> None:
    def kept(trunk: TimmTrunk) -> int:
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            trunk.train().image(images.flatten(0, 1))
        return sum(sizes)

    assert kept(build(tiny, train_image_blocks=1)) < kept(build(tiny)) / 2


@pytest.mark.parametrize("fresh", [True, False])
def test_frozen_blocks_keep_their_batch_statistics(tiny: str, images: Tensor, fresh: bool) -> None:
    trunk = cnn(tiny, train_image_blocks=1)
    trunk = trunk if fresh else trunk.eval().train()
    before = {k: v.clone() for k, v in trunk.image.tower.state_dict().items()}
    trunk(images, BOTH, TASKS)
    changed = {k for k, v in trunk.image.tower.state_dict().items() if not v.equal(before[k])}
    assert changed
    assert all(name.startswith("layer4.") for name in changed)


def test_text_is_kept_while_only_image_blocks_train(tiny: str, images: Tensor) -> None:
    trunk = OpenClipTrunk(tiny, tuning=Tuning(freeze_image=False, train_image_blocks=1))
    calls: list[int] = []
    trunk.text.tower.ln_final.register_forward_hook(lambda _, a, out: calls.append(len(out)))
    for _ in range(2):
        trunk(images, BOTH, TASKS)
    assert calls == [2]


def test_a_blocks_rate_is_that_of_the_next_times_the_decay(tiny: str) -> None:
    trunk = unfrozen(tiny, lr_scale=0.5, layer_decay=0.1)
    rate = {id(p): factor for ps, factor in trunk.parameter_groups() for p in ps}
    for tower, first, last in (
        (trunk.image.tower, "conv1.weight", "ln_post.weight"),
        (trunk.text.tower, "token_embedding.weight", "ln_final.weight"),
    ):
        names = [first, "transformer.resblocks.0.ln_1.weight"]
        names += ["transformer.resblocks.1.ln_1.weight", last]
        rates = [rate[id(tower.get_parameter(name))] for name in names]
        assert rates == pytest.approx([0.005, 0.05, 0.5, 0.5])
    assert {rate[id(p)] for p in trunk.from_text.parameters()} == {1.0}
    trains = {id(p) for p in trunk.parameters() if p.requires_grad}
    assert rate.keys() == trains
    assert sum(len(ps) for ps, _ in trunk.parameter_groups()) == len(trains)


def test_rates_of_timms_layers(tiny: str) -> None:
    for build, blocks in ((vit, 6), (cnn, 4)):
        factors = [f for ps, f in build(tiny, layer_decay=0.5).parameter_groups() if ps][:-1]
        assert factors == [0.1 * 0.5**above for above in range(blocks + 1)]


def test_decay_of_low_rank_updates_in_the_last_blocks(tiny: str) -> None:
    trunk = unfrozen(
        tiny, train_image_blocks=1, lora_rank=2, lora_targets=["c_fc"], layer_decay=0.1
    )
    groups = [(len(ps), factor) for ps, factor in trunk.parameter_groups() if ps]
    assert groups == [(2, 0.1), (2, 0.1), (2, pytest.approx(0.01)), (2, 1.0)]


def test_open_clips_timm_towers_have_blocks(tiny_timm: str) -> None:
    trunk = unfrozen(tiny_timm, train_image_blocks=2)
    assert {n.split(".")[2] for n in trained(trunk.image.tower) if "blocks" in n} == {"4", "5"}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"train_image_blocks": 3}, "train_image_blocks is 3, but the image tower has 2 blocks"),
        ({"train_text_blocks": -1}, "train_text_blocks is -1, but the text tower has 2 blocks"),
        (
            {"train_text_blocks": 1, "freeze_text": True},
            "but the text tower is frozen; set freeze_text: false",
        ),
        ({"layer_decay": 0.0}, r"layer_decay is 0\.0; expected a factor above 0 and at most 1"),
        ({"layer_decay": 1.5}, r"layer_decay is 1\.5; expected"),
        ({"layer_decay": float("nan")}, "layer_decay is nan; expected"),
        ({"layer_decay": 0.5, "lr_scale": 0.0}, r"layer_decay is 0\.5, but both towers are frozen"),
        ({"lora_rank": -1}, "lora_rank is -1"),
        ({"lora_rank": 4, "lora_alpha": 0.0}, r"lora_alpha 0\.0; expected"),
        (
            {"lora_rank": 4, "freeze_image": True, "freeze_text": True},
            "lora_rank is 4, but both towers are frozen",
        ),
        ({"lora_targets": ["c_fc"]}, "but lora_rank is 0"),
        (
            {"lora_rank": 4, "lora_targets": ["c_fc", "out_porj"]},
            "no layer that trains is called 'out_porj'; near are out_proj",
        ),
        (
            {"lora_rank": 4, "lora_targets": ["conv1"]},
            "name no layer of the text tower; it has c_fc, c_proj, in_proj, out_proj",
        ),
    ],
)
def test_tuning_that_does_not_fit_the_towers_is_refused(
    tiny: str, kwargs: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        unfrozen(tiny, **kwargs)


@pytest.mark.parametrize("kwargs", [{"train_image_blocks": 1}, {"layer_decay": 0.5}])
def test_a_tower_without_blocks_is_refused(tiny_resnet: str, kwargs: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"image tower \(a ModifiedResNet\) has no known blocks"):
        OpenClipTrunk(tiny_resnet, tuning=Tuning(freeze_image=False, **kwargs))


def test_nothing_of_it_changes_the_output(tiny: str, images: Tensor) -> None:
    def tokens(**kwargs: object) -> Tensor:
        torch.manual_seed(0)
        trunk: TwoTowerTrunk = unfrozen(tiny, **kwargs).eval()
        trunk.load_state_dict(unfrozen(tiny).state_dict(), strict=False)
        return trunk(images, BOTH, TASKS).tokens_BNW

    tuned = tokens(train_image_blocks=1, train_text_blocks=1, layer_decay=0.5)
    torch.testing.assert_close(tuned, tokens())
