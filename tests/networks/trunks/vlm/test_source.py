"""Folders in the hub's layout: what is read of them, and what is refused."""

import json
import shutil
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch

from actionprior.errors import UserError
from actionprior.networks.trunks.vlm.source import plain_config, read_parts, recorded_parts
from tests.helpers.vlm_models import tiny_config, write_vlm
from tests.networks.trunks.vlm.conftest import Source


@pytest.fixture
def folder(source: Source, tmp_path: Path) -> Path:
    """A copy of a model's folder, to be damaged."""
    original = source("smolvlm").removeprefix("local-dir:")
    return Path(shutil.copytree(original, tmp_path / "model"))


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_folder_and_the_hubs_cache_give_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "hub" / "models--someone--smol"
    revision = "0123456789abcdef0123456789abcdef01234567"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(revision)
    shutil.copytree(folder, home / "snapshots" / revision)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    local, hub = read_parts(f"local-dir:{folder}"), read_parts("hf-hub:someone/smol")
    assert read_parts(str(folder)).config == read_parts("someone/smol").config == local.config
    assert (local.config, local.prompt, local.mean) == (hub.config, hub.prompt, hub.mean)
    assert local.mean == [0.5, 0.4, 0.3]
    for found, expected in zip(local.model.parameters(), hub.model.parameters(), strict=True):
        assert torch.equal(found, expected)
    with pytest.raises(UserError, match="hf-hub:someone/other cannot be downloaded"):
        read_parts("hf-hub:someone/other")
    with pytest.raises(UserError, match="someone/other is not a folder and cannot be downloaded"):
        read_parts("someone/other")


def test_recorded_parts_have_the_same_shapes(source: Source, family: str) -> None:
    parts = read_parts(source(family))
    again = recorded_parts(json.loads(json.dumps(parts.record(100))))
    shapes = [{k: v.shape for k, v in p.model.state_dict().items()} for p in (parts, again)]
    assert shapes[0] == shapes[1]
    assert again.prompt == parts.prompt
    assert not any(parameter.any() for parameter in again.model.parameters())
    own = dict(again.model.named_buffers())
    for name, value in parts.model.named_buffers():
        torch.testing.assert_close(own[name], value)
    assert again.model.config.to_dict().keys() == parts.model.config.to_dict().keys()
    assert again.resample == parts.resample == "bicubic"
    older = {key: value for key, value in parts.record(100).items() if key != "resample"}
    assert recorded_parts(older).resample == "bilinear"


def test_weights_in_several_files(source: Source, folder: Path) -> None:
    import transformers

    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    model.save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    expected = read_parts(source("smolvlm")).model.state_dict()
    for name, value in read_parts(f"local-dir:{folder}").model.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_files_are_named(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(UserError, match=missing.replace(".", r"\.")) as found:
        read_parts(f"local-dir:{folder}")
    assert "\n" not in str(found.value)


def test_code_of_a_folder_is_never_run(folder: Path) -> None:
    (folder / "modeling_own.py").write_text("import sys\nsys.modules['ran'] = sys\n")
    code = {name: "modeling_own.Own" for name in ("AutoConfig", "AutoModelForImageTextToText")}
    change(folder / "config.json", auto_map=code)
    read_parts(f"local-dir:{folder}")
    change(folder / "config.json", model_type="own")
    with pytest.raises(UserError, match=r"has no model 'own'.*code of repositories is never run"):
        read_parts(f"local-dir:{folder}")
    change(folder / "config.json", model_type="llama")
    with pytest.raises(UserError, match="'llama' is no model of images and text"):
        read_parts(f"local-dir:{folder}")
    assert "ran" not in sys.modules


def test_pickled_weights_are_refused(folder: Path) -> None:
    (weights,) = folder.glob("*.safetensors")
    weights.unlink()
    torch.save({"lm_head.weight": torch.zeros(2)}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="weights cannot be loaded"):
        read_parts(f"local-dir:{folder}")


def test_weights_of_another_model_are_refused(folder: Path, source: Source) -> None:
    other = Path(source("paligemma").removeprefix("local-dir:"))
    shutil.copy(other / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(UserError, match="weights are missing, such as"):
        read_parts(f"local-dir:{folder}")


def test_a_misspelt_source_is_explained() -> None:
    for wrong in ("Qwen3-VL-2B-Instruct", "a/b/c", "../Qwen/other", "hf-hub:Qwen"):
        with pytest.raises(UserError, match=r"trunk\.pretrained is .* expected hf-hub:OWNER/NAME"):
            read_parts(wrong)
    with pytest.raises(UserError, match="pretrained is local-dir:nowhere, but there is no such"):
        read_parts("local-dir:nowhere")


def test_what_would_choose_code_or_kernels_is_not_recorded() -> None:
    config = tiny_config("smolvlm")
    config._attn_implementation = "eager"
    config.auto_map = {"AutoConfig": "own.Own"}
    text = json.dumps(plain_config(config))
    assert "auto_map" not in text
    assert "attn_implementation" not in text


def test_a_processors_settings_may_stand_in_its_own_file(tmp_path: Path) -> None:
    folder = write_vlm("smolvlm", tmp_path)
    (folder / "preprocessor_config.json").unlink()
    settings = {"image_processor": {"image_mean": [0.1, 0.2, 0.3]}}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    parts = read_parts(f"local-dir:{folder}")
    assert (parts.mean, parts.std) == ([0.1, 0.2, 0.3], [0.5, 0.5, 0.5])
