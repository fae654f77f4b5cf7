"""What holds for every trunk."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from actionprior.networks.trunks.base import Trunk
from actionprior.networks.trunks.small import SmallTrunk
from tests.helpers.clip_models import TASKS

Build = Callable[..., Trunk]


@pytest.fixture(params=["small", "compact", "open_clip", "timm_vit", "timm_cnn"])
def build(request: pytest.FixtureRequest, tiny: str) -> Build:
    def make(freeze: bool = True, **kwargs: object) -> Trunk:
        torch.manual_seed(0)
        if request.param == "small":
            return SmallTrunk(freeze=freeze, image_size=32, **kwargs)
        if request.param == "compact":
            from actionprior.networks.trunks.compact import CompactTrunk

            return CompactTrunk("test_efficientnet", freeze=freeze, image_size=64, **kwargs)
        both = {"freeze_image": freeze, "freeze_text": freeze, **kwargs}
        if request.param == "open_clip":
            from actionprior.networks.trunks.open_clip import OpenClipTrunk

            return OpenClipTrunk.from_init_args({"model": tiny, **both})
        from actionprior.networks.trunks.timm import TimmTrunk

        models = {"timm_vit": "test_vit", "timm_cnn": "test_resnet"}
        both |= {"model": models[request.param], "text_model": tiny, "image_size": 64}
        return TimmTrunk.from_init_args(both)

    return make


def trained_at_their_own_rate(trunk: Trunk) -> list[torch.nn.Parameter]:
    return [p for parameters, factor in trunk.parameter_groups() if factor != 1 for p in parameters]


def cameras(*rows: list[int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.bool)


def test_tokens_of_all_cameras_then_of_the_text(build: Build, images: Tensor) -> None:
    trunk = build().eval()
    mask = cameras([1, 1], [1, 0])
    two = trunk(images, mask, TASKS)
    one = trunk(images[:, :1], mask[:, :1], TASKS)
    words = two.tokens_BNW.shape[1] - 2 * (two.tokens_BNW.shape[1] - one.tokens_BNW.shape[1])
    patches = one.tokens_BNW.shape[1] - words
    assert two.tokens_BNW.shape == (2, 2 * patches + words, trunk.width)
    assert two.mask_BN.shape == two.tokens_BNW.shape[:2]
    assert two.mask_BN.dtype == torch.bool
    assert two.mask_BN[0].all(), "the longest instruction has no padding"
    assert two.mask_BN[1, :patches].all()
    assert not two.mask_BN[1, patches : 2 * patches].any()
    assert 0 < two.mask_BN[1, 2 * patches :].sum() < words, "the short one has"
    torch.testing.assert_close(one.tokens_BNW[:, :patches], two.tokens_BNW[:, :patches])


def test_a_robot_may_have_no_camera(build: Build, images: Tensor) -> None:
    trunk = build().eval()
    none = trunk(images[:, :0], cameras([], []), TASKS)
    words = none.tokens_BNW.shape[1]
    torch.testing.assert_close(
        none.tokens_BNW, trunk(images, cameras([1, 1], [1, 1]), TASKS).tokens_BNW[:, -words:]
    )
    assert none.mask_BN.shape == (2, words)


def test_same_view_from_another_camera_or_place_differs(build: Build, images: Tensor) -> None:
    grey = torch.full_like(images, 100)
    tokens = build().eval()(grey, cameras([1, 1], [1, 1]), TASKS).tokens_BNW[0]
    assert len(tokens.unique(dim=0)) == len(tokens)


def test_a_missing_camera_changes_no_other_token(build: Build, images: Tensor) -> None:
    trunk = build(freeze=False).eval()
    mask = cameras([1, 1], [1, 0])
    other = images.clone()
    other[1, 1] = 255 - other[1, 1]
    a, b = trunk(images, mask, TASKS), trunk(other, mask, TASKS)
    torch.testing.assert_close(a.tokens_BNW[a.mask_BN], b.tokens_BNW[b.mask_BN])
    assert not torch.allclose(a.tokens_BNW[~a.mask_BN], b.tokens_BNW[~b.mask_BN])


def test_a_row_does_not_depend_on_its_batch(build: Build, images: Tensor) -> None:
    trunk = build().eval()
    mask = cameras([1, 1], [1, 1])
    both, single = trunk(images, mask, TASKS), trunk(images[1:], mask[1:], TASKS[1:])
    torch.testing.assert_close(
        both.tokens_BNW[1][both.mask_BN[1]], single.tokens_BNW[0][single.mask_BN[0]]
    )


def test_frozen_gets_no_gradient_and_unfrozen_gets_it_everywhere(
    build: Build, images: Tensor
) -> None:
    frozen = build(freeze=True)
    assert not trained_at_their_own_rate(frozen)
    assert frozen.lr_scale == 0
    trunk = build(freeze=False, lr_scale=0.25).eval()
    tokens, mask, *_ = trunk(images, cameras([1, 1], [1, 1]), TASKS)
    tokens[mask].square().mean().backward()
    trained = [n for n, p in trunk.named_parameters() if p.requires_grad]
    without = [n for n, p in trunk.named_parameters() if p.requires_grad and p.grad is None]
    assert trained
    assert not without, "data-parallel training refuses parameters without a gradient"
    assert trunk.lr_scale == 0.25
    assert trained_at_their_own_rate(trunk)


def test_a_learning_rate_of_nought_freezes(build: Build) -> None:
    assert not trained_at_their_own_rate(build(freeze=False, lr_scale=0.0))


@pytest.mark.parametrize("freeze", [True, False])
def test_every_parameter_that_trains_is_in_one_group(build: Build, freeze: bool) -> None:
    trunk = build(freeze=freeze, width=64)
    grouped = [p for parameters, _ in trunk.parameter_groups() for p in parameters]
    trained = [p for p in trunk.parameters() if p.requires_grad]
    assert {id(p) for p in grouped} == {id(p) for p in trained}
    assert len(grouped) == len(trained)


def test_rebuilt_from_plain_data_it_gives_the_same(build: Build, images: Tensor) -> None:
    trunk = build(freeze=False, width=64).eval()
    torch.manual_seed(1)
    again = type(trunk).from_init_args(copy.deepcopy(trunk.init_args())).eval()
    again.load_state_dict(trunk.state_dict())
    mask = cameras([1, 1], [1, 0])
    torch.testing.assert_close(trunk(images, mask, TASKS), again(images, mask, TASKS))
    assert again.init_args() == trunk.init_args()


def test_a_copy_has_weights_of_its_own(build: Build, images: Tensor) -> None:
    trunk = build(freeze=False).eval()
    averaged = copy.deepcopy(trunk)
    mask = cameras([1, 1], [1, 1])
    before = averaged(images, mask, TASKS).tokens_BNW
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.mul_(1.5)
    torch.testing.assert_close(averaged(images, mask, TASKS).tokens_BNW, before)


def test_validation_first_then_training(build: Build, images: Tensor) -> None:
    """Features kept in inference mode must not break the training steps that follow."""
    trunk = build(freeze=True, width=64)
    mask = cameras([1, 1], [1, 1])
    with torch.inference_mode():
        trunk(images, mask, TASKS)
    probe = torch.nn.Linear(trunk.width, 1)
    probe(trunk(images, mask, TASKS).tokens_BNW).sum().backward()
    assert probe.weight.grad is not None


def test_kept_text_follows_newly_loaded_weights(build: Build, images: Tensor) -> None:
    trunk = build(freeze=True).eval()
    mask = cameras([1, 1], [1, 1])
    first = trunk(images, mask, TASKS).tokens_BNW[:, -1]
    kept = trunk(images, mask, TASKS[::-1]).tokens_BNW[:, -1]
    torch.testing.assert_close(first[0], kept[1])
    trunk.load_state_dict({k: v * 1.5 + 0.1 for k, v in trunk.state_dict().items()})
    assert not torch.allclose(trunk(images, mask, TASKS).tokens_BNW[0, -1], first[0])


def test_wrong_inputs_are_refused(build: Build, images: Tensor) -> None:
    trunk = build()
    mask = cameras([1, 1], [1, 1])
    with pytest.raises(ValueError, match=r"images are torch\.float32"):
        trunk(images.float(), mask, TASKS)
    with pytest.raises(ValueError, match=r"camera mask has shape \(2, 1\)"):
        trunk(images, mask[:, :1], TASKS)
    with pytest.raises(ValueError, match="1 instructions came with 2"):
        trunk(images, mask, TASKS[:1])


def test_features_of_the_frozen_part_stand_for_the_images(build: Build, images: Tensor) -> None:
    trunk = build().train()
    part = trunk.frozen_part()
    if part is None:
        assert isinstance(trunk, SmallTrunk)
        return
    mask = cameras([1, 1], [1, 0])
    expected = trunk(images, mask, TASKS)
    features_BCF = part.features(images.flatten(0, 1)).unflatten(0, (2, 2))
    nothing = images[..., :0, :0]
    found = trunk(nothing, mask, TASKS, features_BCF)
    torch.testing.assert_close(found.tokens_BNW, expected.tokens_BNW, rtol=1e-5, atol=1e-6)
    assert torch.equal(found.mask_BN, expected.mask_BN)
    half = trunk(nothing, mask, TASKS, features_BCF.half())
    torch.testing.assert_close(half.tokens_BNW, expected.tokens_BNW, rtol=1e-2, atol=1e-2)
    none = trunk(nothing[:, :0], cameras([], []), TASKS, features_BCF[:, :0])
    assert none.tokens_BNW.shape[1] < found.tokens_BNW.shape[1]
    assert build(freeze=False).frozen_part() is None


def test_constant_buffers_stay_the_same_in_training(build: Build, images: Tensor) -> None:
    for trunk in (build().train(), build(freeze=False).train()):
        buffers = dict(trunk.named_buffers())
        constant = {name: buffers[name].clone() for name in trunk.constant_buffers()}
        trunk(images, cameras([1, 1], [1, 0]), TASKS)
        assert all(torch.equal(buffers[name], value) for name, value in constant.items())
        if (part := trunk.frozen_part()) is not None:
            assert len(constant) >= len(list(part.module.buffers()))


def test_sources_of_weights_in_a_record_are_never_followed(build: Build) -> None:
    trunk = build()
    hostile = {n: "hf-hub:stranger/model" for n in trunk.pretrained_args if n in trunk.init_args()}
    hostile = {n: v for n, v in hostile.items() if isinstance(trunk.init_args()[n], str)}
    assert hostile
    recorded = trunk.init_args() | hostile
    assert trunk.without_sources(recorded) == trunk.init_args()
    recipe = dict.fromkeys(hostile, "auto")
    assert not any(trunk.args_for_checkpoint(recipe, recorded)[name] for name in hostile), (
        "a resumed run would ask a network"
    )
