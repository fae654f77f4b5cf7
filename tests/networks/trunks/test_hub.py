"""Weights in the hub's layout, in a folder or in the hub's cache; nothing is downloaded."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from actionprior.errors import UserError
from actionprior.networks.trunks.open_clip import OpenClipTrunk
from actionprior.networks.trunks.timm import TimmTrunk
from tests.helpers.clip_models import MEAN, STD, TASKS, save_clip

BOTH = torch.ones(2, 2, dtype=torch.bool)
WORDS = ["<pad>", "</s>", "<unk>", "push", "the", "red", "cube", "to", "blue", "pad", "lift", "it"]


def save_timm(model: str, folder: Path) -> nn.Module:
    """A classifier of random weights, as timm pushes one to the hub."""
    torch.manual_seed(3)
    built = timm.create_model(model, num_classes=7)
    built.pretrained_cfg |= {"mean": MEAN, "std": STD}
    timm.models.save_for_hf(built, folder, safe_serialization=True)
    return built


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a repository's folder in a cache of this test, laid out as the hub's client does."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert huggingface_hub.constants.HF_HUB_OFFLINE

    def make(repository: str) -> Path:
        home = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        revision = "0123456789abcdef0123456789abcdef01234567"
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text(revision)
        return home / "snapshots" / revision

    return make


def same(found: nn.Module, saved: nn.Module) -> bool:
    wanted = saved.state_dict()
    return all(v.equal(wanted[k]) for k, v in found.state_dict().items())


@pytest.mark.parametrize("kind", ["folder", "hub", "tag"])
def test_open_clip(
    tiny: str,
    tmp_path: Path,
    images: Tensor,
    cached: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    own = tmp_path / "own"
    folder = own if kind == "folder" else cached("someone/clip")
    clip = save_clip(tiny, folder, quick_gelu=True)
    tag = {"hf_hub": "someone/clip/", "quick_gelu": True, "mean": MEAN, "std": STD}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, tiny, {"made_here": tag})
    names = {"folder": f"local-dir:{own}", "hub": "hf-hub:someone/clip", "tag": "made_here"}
    torch.manual_seed(4)
    trunk = OpenClipTrunk(tiny, pretrained=names[kind])
    assert same(trunk.image.tower, clip.visual)
    assert same(trunk.text.tower, clip.text)
    args = trunk.init_args()
    assert args["quick_gelu"] is True
    assert (args["pretrained"], args["mean"], args["std"]) == ("", MEAN, STD)
    for file in folder.iterdir():
        file.unlink()
    again = OpenClipTrunk.from_init_args(args)
    again.load_state_dict(trunk.state_dict())
    torch.testing.assert_close(again(images, BOTH, TASKS), trunk(images, BOTH, TASKS))


@pytest.mark.parametrize("model", ["test_vit", "test_resnet"])
@pytest.mark.parametrize("kind", ["folder", "hub", "tag"])
def test_timm(
    tiny: str, tmp_path: Path, cached: Callable[[str], Path], kind: str, model: str
) -> None:
    folder, source, tag = tmp_path / "own", f"local-dir:{tmp_path / 'own'}", "r160_in1k"
    if kind == "hub":
        folder, source = cached("someone/model"), "hf-hub:someone/model"
    elif kind == "tag":
        folder, source = cached(f"timm/{model}.{tag}"), tag
    saved = save_timm(model, folder)
    torch.manual_seed(4)
    trunk = TimmTrunk(model, pretrained=source, text_model=tiny)
    assert same(trunk.image.tower, saved)
    args = trunk.init_args()
    assert args["pretrained"] == ""
    if kind != "tag":  # timm describes its own tags itself
        assert (args["mean"], args["std"]) == (MEAN, STD)
    assert args["image_size"] == 160
    again = TimmTrunk.from_init_args(args)
    again.load_state_dict(trunk.state_dict())
    assert "state_dict" not in trunk.image.tower.pretrained_cfg


def test_text_weights_beside_timm(tiny: str, tmp_path: Path) -> None:
    clip = save_clip(tiny, tmp_path)
    trunk = TimmTrunk("test_vit", text_model=tiny, text_pretrained=f"local-dir:{tmp_path}")
    assert same(trunk.text.tower, clip.text)


def test_a_timm_file_of_another_model_is_refused(tiny: str, tmp_path: Path) -> None:
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "resnet.safetensors")
    with pytest.raises(UserError, match=r"weights .*cannot be loaded: .*[Mm]issing key.*cls_token"):
        TimmTrunk("test_vit", pretrained=str(tmp_path / "resnet.safetensors"), text_model=tiny)


def test_a_timm_file_with_a_classifier_serves(tiny: str, tmp_path: Path) -> None:
    saved = timm.create_model("test_vit", num_classes=1000)
    save_file(saved.state_dict(), tmp_path / "vit.safetensors")
    trunk = TimmTrunk("test_vit", str(tmp_path / "vit.safetensors"), text_model=tiny)
    assert same(trunk.image.tower, saved)


def test_sources_without_the_model_are_refused(
    tiny: str, tmp_path: Path, cached: Callable[[str], Path]
) -> None:
    def bad(build: Callable[..., object], pretrained: str, sentence: str, **kwargs: Any) -> None:
        with pytest.raises(UserError, match=sentence):
            build(pretrained=pretrained, **kwargs)

    clip: dict[str, Any] = {"build": OpenClipTrunk, "model": tiny}
    bad(**clip, pretrained="local-dir:nowhere", sentence="local-dir:nowhere: there is no such")
    empty = f"local-dir:{tmp_path}"
    bad(**clip, pretrained=empty, sentence=r"the folder has no open_clip_config\.json")
    (tmp_path / "open_clip_config.json").write_text("[]")
    bad(**clip, pretrained=empty, sentence=r"open_clip_config\.json holds a list, expected a JSON")
    (tmp_path / "open_clip_config.json").write_text("{")
    bad(**clip, pretrained=empty, sentence=r"open_clip_config\.json cannot be read as JSON")
    (tmp_path / "open_clip_config.json").write_text("{}")
    bad(**clip, pretrained=empty, sentence=r"the folder has no open_clip_model\.safetensors or ")
    bad(
        **clip,
        pretrained="hf-hub:a/b",
        sentence=r"a/b: open_clip_config\.json cannot be downloaded",
    )
    save_timm("test_resnet", tmp_path)
    bad(
        TimmTrunk,
        empty,
        "holds a test_resnet, but model is 'test_vit'",
        model="test_vit",
        text_model=tiny,
    )
    bad(OpenClipTrunk, "", "expected open_clip's name of its archi", model="hf-hub:a/b")
    bad(TimmTrunk, "", "expected timm's name of its architecture", model="local-dir:a")


@pytest.fixture
def with_tokenizer(tiny_siglip: str, tmp_path: Path) -> Path:
    """The hub's layout of a model with a tokeniser of ``transformers`` in it."""
    save_clip(tiny_siglip, tmp_path, tokenizer_kwargs={"trust_remote_code": True})
    return tmp_path


def test_siglips_tokeniser_names_missing_transformers(
    tiny_siglip: str, with_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for pretrained in ("", f"local-dir:{with_tokenizer}"):
        with pytest.raises(UserError, match=r"needs transformers; .* install -e '\.\[siglip\]'"):
            OpenClipTrunk(tiny_siglip, pretrained)


def test_siglips_tokeniser_from_the_folder_or_the_cache(
    tiny_siglip: str, with_tokenizer: Path, images: Tensor, cached: Callable[[str], Path]
) -> None:
    transformers = pytest.importorskip("transformers")
    with pytest.raises(UserError, match=r"the tokeniser of open_clip model .* cannot be loaded"):
        OpenClipTrunk(tiny_siglip)
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: index for index, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(with_tokenizer)
    trunk = OpenClipTrunk(tiny_siglip, f"local-dir:{with_tokenizer}")
    features = trunk.text(TASKS)
    assert features.mask_BL.sum(dim=1).tolist() == [9, 3], "words, and the end"
    folder = cached("actionprior/siglip")
    fast.save_pretrained(folder)
    (folder / "config.json").write_text("{}")  # versions of transformers differ without one
    again = OpenClipTrunk.from_init_args(trunk.init_args())
    again.load_state_dict(trunk.state_dict())
    torch.testing.assert_close(again(images, BOTH, TASKS), trunk(images, BOTH, TASKS))
