"""The small trunk: its words, its places, its file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from actionprior.errors import UserError
from actionprior.networks.places import PLACE_FEATURES, place_features
from actionprior.networks.trunks.film_cnn import VisionOutput
from actionprior.networks.trunks.small import SmallTrunk
from actionprior.networks.trunks.word_encoder import MAX_WORDS, tokenize

ONE = torch.ones(2, 1, dtype=torch.bool)


def test_the_order_of_words_changes_what_is_seen(images: Tensor) -> None:
    trunk = SmallTrunk(image_size=32).eval()
    twice = images[:1, :1].expand(2, -1, -1, -1, -1)
    tasks = ["push the red cube to the blue pad", "push the blue cube to the red pad"]
    a, b = trunk(twice, ONE, tasks).tokens_BNW
    assert (a - b).abs().amax(dim=-1).min() > 1e-4, "in image and word tokens"


def test_images_of_a_batch_do_not_mix_in_training(images: Tensor) -> None:
    trunk = SmallTrunk(image_size=32).train()
    other = images[:, :1].clone()
    other[1] = 255 - other[1]
    a, b = (trunk(i, ONE, ["lift it", "lift it"]).tokens_BNW for i in (images[:, :1], other))
    torch.testing.assert_close(a[0], b[0])
    assert not torch.allclose(a[1], b[1])


def test_any_text_is_read(images: Tensor) -> None:
    trunk = SmallTrunk(image_size=32).eval()
    odd = ["", "zyxq!! Käse 把红色方块 " + "very " * 100]
    tokens, mask, *_ = trunk(images[:, :1], ONE, odd)
    assert tokens.isfinite().all()
    assert mask[0].sum() == mask[1].sum() - MAX_WORDS, "the start token is always there"


def test_words_differ_and_are_the_same_in_every_process() -> None:
    words = "push lift reach place the red green blue yellow purple cube cylinder disc pad to on"
    ids = tokenize([words], 4096)[0]
    assert len(ids.unique()) == len(ids)
    assert ids[:4].tolist() == [1, 3876, 3966, 88]
    assert tokenize(["Push, the"], 4096).tolist() == tokenize(["push , THE"], 4096).tolist()


def test_the_place_is_read_from_its_token_to_a_tenth_of_a_millimetre(images: Tensor) -> None:
    trunk = SmallTrunk(image_size=32, freeze=True).eval()
    text = trunk.read(["a", "b"])
    seen = trunk.look(images[:, 0], text)
    tokens = trunk(images[:, :1], ONE, ["a", "b"]).tokens_BNW
    places = (tokens[:, :2] - trunk.role_RW)[..., :3] * 0.2
    torch.testing.assert_close(places, seen.place_IR3, atol=1e-4, rtol=0)


def test_places_keep_their_millimetres_under_autocast() -> None:
    torch.manual_seed(0)
    seen = VisionOutput(
        torch.zeros(2, 8, 4, 4), torch.randn(2, 2, 16), 0.5 + 0.1 * torch.randn(2, 2, 16, 3)
    )
    with torch.autocast("cpu", torch.bfloat16):
        found = seen.place_IR3
    torch.testing.assert_close(found, seen.place_IR3)


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "trunk.safetensors"
    trunk = SmallTrunk()
    save_file(trunk.state_dict(), file)
    loaded = SmallTrunk(weights=str(file), freeze=True)
    torch.testing.assert_close(loaded.state_dict(), trunk.state_dict())
    assert loaded.init_args()["weights"] == ""


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "trunk.safetensors"
    with pytest.raises(UserError, match=r"trunk\.safetensors do not exist"):
        SmallTrunk(weights=str(file))
    save_file(SmallTrunk().state_dict(), file)
    with pytest.raises(UserError, match="another architecture: from_map"):
        SmallTrunk(width=160, weights=str(file))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        SmallTrunk(weights=str(file))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 60}, "image_size is 60, expected a multiple of 8"),
        ({"grid": 17}, "grid is 17, expected 1 to 16"),
        ({"width": 32}, "width is 32, expected 37 or more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SmallTrunk(**arguments)


def test_target_goal_and_instruction_are_summarised_for_each_camera(images: Tensor) -> None:
    assert SmallTrunk(image_size=32).summary_width == SmallTrunk(image_size=32).things == 0
    trunk = SmallTrunk(image_size=32, summary=True).eval()
    seen = torch.tensor([[True, True], [True, False]])
    found = trunk(images[:, :2], seen, ["lift it", "push it"])
    tokens, summary = found.tokens_BNW, found.summary_BCF
    assert summary is not None
    assert summary.shape == (2, 2, trunk.summary_width)
    torch.testing.assert_close(summary[0, 1, : 2 * trunk.width], tokens[0, 18:20].flatten())
    assert summary[1, 1].abs().max() == 0, "no camera, no summary"
    words = trunk.from_word(trunk.read(["lift it", "push it"]).tokens_BLW)
    torch.testing.assert_close(summary[:, 0, 2 * trunk.width :], words[:, 0])
    assert found.thing_BCR3 is not None
    assert found.thing_BCR3.shape == (2, 2, trunk.things, 3)
    features = place_features(found.thing_BCR3) + trunk.role_RW[:, :PLACE_FEATURES]
    in_tokens = summary[0, :, : 2 * trunk.width].unflatten(-1, (2, -1))[..., :PLACE_FEATURES]
    torch.testing.assert_close(features[0], in_tokens)
