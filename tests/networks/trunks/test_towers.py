"""open_clip's and timm's towers: weights, pixels, names; nothing is downloaded."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from actionprior.errors import UserError
from actionprior.networks.trunks.open_clip import OpenClipTrunk
from actionprior.networks.trunks.timm import TimmTrunk
from actionprior.networks.trunks.tuning import Tuning
from actionprior.networks.trunks.two_towers import Pixels
from tests.helpers.clip_models import TASKS

BOTH = torch.ones(2, 2, dtype=torch.bool)
Save = Callable[[dict[str, Tensor], Path], None]


@pytest.mark.parametrize(("suffix", "save"), [("pt", torch.save), ("safetensors", save_file)])
def test_open_clip_weights_from_a_local_file(
    tiny: str, tmp_path: Path, images: Tensor, suffix: str, save: Save
) -> None:
    import open_clip

    torch.manual_seed(3)
    clip = open_clip.create_model(tiny)
    file = tmp_path / f"weights.{suffix}"
    save({k: v.contiguous() for k, v in clip.state_dict().items()}, file)
    torch.manual_seed(4)
    trunk = OpenClipTrunk(tiny, pretrained=str(file), width=64)
    torch.testing.assert_close(
        trunk.image.tower.state_dict()["conv1.weight"], clip.visual.conv1.weight.detach()
    )
    reference = clip.eval().forward_intermediates(
        text=open_clip.get_tokenizer(tiny)(TASKS),
        text_indices=1,
        normalize_intermediates=True,
        intermediates_only=True,
    )["text_intermediates"][-1]
    found = trunk.text(TASKS)
    for row in range(2):
        mask = found.mask_BL[row]
        torch.testing.assert_close(found.tokens_BLW[row][mask], reference[row][: mask.sum()])
    file.unlink()
    again = OpenClipTrunk.from_init_args(trunk.init_args())
    again.load_state_dict(trunk.state_dict())
    torch.testing.assert_close(again(images, BOTH, TASKS), trunk(images, BOTH, TASKS))


def test_timm_weights_from_a_local_file(tiny: str, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(3)
    model = timm.create_model("test_vit", num_classes=0)
    file = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), file)
    trunk = TimmTrunk("test_vit", pretrained=str(file), text_model=tiny)
    torch.testing.assert_close(trunk.image.tower.state_dict(), model.state_dict())
    assert trunk.init_args()["pretrained"] == ""


def test_pickled_code_in_a_file_of_weights_does_not_run(tiny: str, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return Path.touch, (tmp_path / "ran",)

    file = tmp_path / "weights.pt"
    torch.save({"state_dict": Payload()}, file)
    for build in (
        lambda: OpenClipTrunk(tiny, pretrained=str(file)),
        lambda: TimmTrunk("test_vit", pretrained=str(file), text_model=tiny),
    ):
        with pytest.raises(UserError, match="cannot be loaded"):
            build()
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_model_are_refused(tiny: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"logit_scale": torch.zeros(())}, file)
    with pytest.raises(UserError, match=r"weights\.pt' of open_clip model .* cannot be loaded"):
        OpenClipTrunk(tiny, pretrained=str(file))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OpenClipTrunk("ViT-B16"), r"no model 'ViT-B16'; near are .*ViT-B-16"),
        (
            lambda: OpenClipTrunk("ViT-B-16", "datacomp_xl"),
            r"no weights 'datacomp_xl' for ViT-B-16, .*datacomp_xl_s13b_b90k",
        ),
        (lambda: TimmTrunk("resnet_18"), r"timm has no model 'resnet_18'; near are .*resnet18"),
        (
            lambda: TimmTrunk("resnet18", "a1_in1"),
            r"no weights 'a1_in1' for resnet18, .*a1_in1k",
        ),
    ],
)
def test_unknown_names_are_refused_with_similar_ones(
    build: Callable[[], object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build()


def test_pixels_are_normalised_as_the_family_wants_without_weights(tiny: str) -> None:
    from actionprior.networks.trunks.towers import clip_parts

    assert clip_parts("MobileCLIP2-S0").mean == (0.0, 0.0, 0.0)
    assert TimmTrunk("test_vit", text_model=tiny).init_args()["mean"] == [0.5, 0.5, 0.5]


def test_resized_and_normalised_pixels_reach_the_tower(tiny: str) -> None:
    trunk = OpenClipTrunk(tiny, pixels=Pixels(mean=[0.5] * 3, std=[0.25] * 3)).eval()
    seen: list[Tensor] = []
    trunk.image.tower.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    trunk(torch.full((1, 1, 3, 80, 50), 255, dtype=torch.uint8), BOTH[:1, :1], ["a"])
    torch.testing.assert_close(seen[0], torch.full((1, 3, 32, 32), 2.0))


@pytest.mark.parametrize("image", [True, False])
def test_towers_freeze_independently(tiny: str, images: Tensor, image: bool) -> None:
    tuning = Tuning(freeze_image=image, freeze_text=not image, lr_scale=0.1)
    trunk = OpenClipTrunk(tiny, tuning=tuning).train()
    trunk(images, BOTH, TASKS).tokens_BNW.square().mean().backward()
    trains = {n.split(".")[0] for n, p in trunk.named_parameters() if p.grad is not None}
    assert trains == {"text" if image else "image", "from_text"}
    assert trunk.lr_scale == 0.1
    (towers, rate), (projections, full_rate) = trunk.parameter_groups()
    assert {id(p) for p in projections} == {id(p) for p in trunk.from_text.parameters()}
    assert (rate, full_rate) == (0.1, 1.0)
    assert 0 < len(towers) < sum(1 for _ in trunk.parameters())


def test_a_frozen_tower_keeps_its_batch_statistics(tiny: str, images: Tensor) -> None:
    trunk = TimmTrunk("test_resnet", text_model=tiny, pixels=Pixels(image_size=64)).train()
    before = {k: v.clone() for k, v in trunk.state_dict().items()}
    trunk(images, BOTH, TASKS)
    torch.testing.assert_close(trunk.state_dict(), before)


def test_each_instruction_passes_a_frozen_text_tower_once(tiny: str, images: Tensor) -> None:
    calls: list[int] = []

    def count(trunk: OpenClipTrunk) -> list[int]:
        calls.clear()
        trunk.text.tower.ln_final.register_forward_hook(lambda _, a, out: calls.append(len(out)))
        for tasks in (["a", "b"], ["b", "a"], ["a", "a"], ["c", "a"]):
            trunk(images, BOTH, tasks)
        return calls

    assert count(OpenClipTrunk(tiny)) == [2, 1]
    assert count(OpenClipTrunk(tiny, tuning=Tuning(freeze_text=False))) == [2, 2, 1, 2]


def test_a_size_that_the_tower_does_not_take_is_refused(tiny: str) -> None:
    with pytest.raises(UserError, match="does not take images of 40 by 40 pixels"):
        TimmTrunk("test_vit", text_model=tiny, pixels=Pixels(image_size=40))
