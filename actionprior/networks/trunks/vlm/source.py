"""Read a vision-language model in the hub's layout, or build one from its recorded description.

Nothing that a folder holds is run: weights are safetensors files, and code of repositories is
refused. Only files that the caller names are read, and a record never asks a network.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from actionprior.errors import UserError, missing_extra, near_matches, shorten
from actionprior.files.plain_json import read_json
from actionprior.networks.trunks.hub import hub_folder, without_network
from actionprior.networks.trunks.vlm.families import family_of
from actionprior.networks.trunks.vlm.prompt import Prompt, prompt_from_template

_NOT_RECORDED = {
    "_attn_implementation",
    "_attn_implementation_internal",
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "auto_map",
    "dtype",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
}
"""Keys of configurations that name code, kernels or files, or do not change the network."""

_PIL_BILINEAR = 2
"""Number of the bilinear filter in image processors' settings.

Other numbers, or none, mean bicubic: most families' default, and what transformers takes for
Lanczos on tensors.
"""


class VLMParts(NamedTuple):
    """A model, and what its folder says about its inputs."""

    model: nn.Module  # without the head that predicts words
    config: dict[str, Any]
    tokenizer: bytes | int  # content of tokenizer.json, or its length if a checkpoint has it
    prompt: Prompt
    mean: list[float]
    std: list[float]
    resample: str  # filter with which images are resized: bilinear or bicubic
    source: str

    def record(self, tokenizer_bytes: int) -> dict[str, Any]:
        """Return plain data from which :func:`recorded_parts` rebuilds the parts."""
        return {
            "config": self.config,
            "tokenizer_bytes": tokenizer_bytes,
            "prompt": asdict(self.prompt),
            "mean": self.mean,
            "std": self.std,
            "resample": self.resample,
            "source": self.source,
        }


def read_parts(pretrained: str, layers: int = 0, weights: bool = True) -> VLMParts:
    """Read a model from the hub, its cache or a folder.

    Args:
        pretrained: ``hf-hub:OWNER/NAME``, with an optional ``@REVISION``, or ``local-dir:FOLDER``;
            both also without the prefix.
        layers: Number of the language model's first layers to keep; 0: all.
        weights: False builds random weights of the same sizes.

    Raises:
        UserError: Files are missing or damaged, the model is unknown or does not fit.
    """
    folder = hub_folder(pretrained, "trunk.pretrained")
    config = model_config(folder, pretrained)
    _require_known(config.model_type, pretrained)
    _shorten(config, layers)
    transformers = import_transformers()
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise UserError(f"{pretrained}: the folder has no tokenizer.json")
    model = None
    if weights:
        model = load_model(transformers.AutoModelForImageTextToText, folder, config, pretrained)
    pixels = _pixels(folder)
    return VLMParts(
        _without_head(model or _build(config)),
        plain_config(config),
        tokenizer.read_bytes(),
        _prompt(folder, config, pretrained),
        list(pixels.get("image_mean") or [0.5] * 3),
        list(pixels.get("image_std") or [0.5] * 3),
        "bilinear" if pixels.get("resample") == _PIL_BILINEAR else "bicubic",
        pretrained if weights else "",
    )


def recorded_parts(record: dict[str, Any], layers: int = 0) -> VLMParts:
    """Build a model from what :meth:`VLMParts.record` returned; all its weights are zero.

    Drawing random weights would take a minute, and a checkpoint replaces them.

    Raises:
        UserError: The record describes no model that transformers knows.
    """
    transformers = import_transformers()
    plain = _cleaned(dict(record["config"]))
    kind = str(plain.pop("model_type", ""))
    _require_known(kind, "the record")
    config = transformers.AutoConfig.for_model(kind, **plain)
    _shorten(config, layers)
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model = _build(config)
    for parameter in model.parameters():
        parameter.data.zero_()
    return VLMParts(
        _without_head(model),
        dict(record["config"]),
        int(record["tokenizer_bytes"]),
        Prompt(**record["prompt"]),
        list(record["mean"]),
        list(record["std"]),
        str(record.get("resample", "bilinear")),  # older checkpoints knew no other
        str(record["source"]),
    )


def import_transformers() -> Any:  # noqa: ANN401  an untyped library
    """Import transformers.

    Raises:
        UserError: It is not installed; the message names the extra.
    """
    try:
        import transformers
    except ImportError as error:
        raise UserError(missing_extra(error.name or "transformers", "vlm")) from error
    return transformers


def model_config(folder: Path, source: str) -> Any:  # noqa: ANN401  an untyped library
    """Read a model's configuration, without the code of its repository.

    Raises:
        UserError: It is missing or damaged, or transformers does not know the model.
    """
    transformers = import_transformers()
    found = read_json(folder / "config.json")
    if not isinstance(found, dict):
        raise UserError(f"{source}: config.json holds no JSON object")
    kind = str(found.get("model_type", ""))
    if kind not in transformers.CONFIG_MAPPING:
        raise UserError(
            f"{source}: transformers {transformers.__version__} has no model {kind!r}"
            f"{near_matches(kind, list(transformers.CONFIG_MAPPING))}; code of repositories is "
            "never run"
        )
    try:
        return transformers.AutoConfig.for_model(**_cleaned(found))
    except Exception as error:  # values of a file may break any line of a configuration
        raise UserError(f"{source}: config.json is damaged ({shorten(error)})") from error


def load_model(kind: Any, folder: Path, config: Any, source: str) -> nn.Module:  # noqa: ANN401  transformers has no types
    """Load weights in 32 bits from safetensors files.

    Args:
        kind: Automatic class of transformers.
        folder: Folder in the hub's layout.
        config: The model's configuration.
        source: Name of the source, for messages.

    Raises:
        UserError: Weights are missing, damaged or of another model.
    """
    try:
        with without_network():
            model, report = kind.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                attn_implementation="sdpa",
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # files, keys, shapes: transformers raises many kinds
        raise UserError(f"{source}: weights cannot be loaded ({shorten(error)})") from error
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{source}: {len(missing)} weights are missing, such as {missing[0]}; the folder is "
            "incomplete or of another model"
        )
    loaded: nn.Module = model
    return loaded


def plain_config(config: Any) -> dict[str, Any]:  # noqa: ANN401  an untyped library
    """Return a configuration as plain data that a checkpoint records."""
    plain: dict[str, Any] = _cleaned(json.loads(json.dumps(config.to_dict())))
    return plain


def _cleaned(value: Any) -> Any:  # noqa: ANN401  any JSON
    if isinstance(value, dict):
        return {k: _cleaned(v) for k, v in value.items() if k not in _NOT_RECORDED}
    return [_cleaned(v) for v in value] if isinstance(value, list) else value


def _shorten(config: Any, layers: int) -> None:  # noqa: ANN401  transformers has no types
    text = config.get_text_config()
    if not 0 <= layers <= text.num_hidden_layers:
        raise UserError(
            f"layers is {layers}, but the language model has {text.num_hidden_layers} layers; "
            f"expected 1 to {text.num_hidden_layers}, or 0 for all"
        )
    if layers:
        text.num_hidden_layers = layers
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:layers]


def _require_known(kind: str, source: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    known = list(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    if kind not in known:
        raise UserError(
            f"{source}: {kind!r} is no model of images and text in transformers"
            f"{near_matches(kind, known)}"
        )


def _build(config: Any) -> nn.Module:  # noqa: ANN401  transformers has no types
    model: nn.Module = import_transformers().AutoModelForImageTextToText.from_config(
        config, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False
    )
    return model


def _without_head(model: Any) -> nn.Module:  # noqa: ANN401  transformers has no types
    inner: nn.Module = model.base_model
    family_of(model.config.model_type).prepare(inner)
    return inner


def _pixels(folder: Path) -> dict[str, Any]:
    """Return the image processor's settings, empty if there are none."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            found = read_json(folder / name)
            if isinstance(found, dict):
                inner = found.get("image_processor", found)
                return inner if isinstance(inner, dict) else {}
    return {}


def _prompt(folder: Path, config: Any, source: str) -> Prompt:  # noqa: ANN401  transformers has no types
    settings = folder / "tokenizer_config.json"
    tokenizer = read_json(settings) if settings.is_file() else {}
    template = tokenizer.get("chat_template")
    if (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text("utf-8")
    elif (folder / "chat_template.json").is_file():
        template = read_json(folder / "chat_template.json").get("chat_template")
    family = family_of(config.model_type)
    if not isinstance(template, str):
        return family.default_prompt
    names = {
        key: value.get("content", "") if isinstance(value, dict) else value
        for key, value in tokenizer.items()
        if key.endswith("_token") and isinstance(value, str | dict)
    }
    try:
        prompt = prompt_from_template(template, _image_text(folder, config), names)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    before, after = family.around_image
    return Prompt(
        prompt.start,
        prompt.before_image + before,
        after + prompt.after_image,
        prompt.before_task,
        prompt.end,
    )


def _image_text(folder: Path, config: Any) -> str:  # noqa: ANN401  transformers has no types
    """Return the text of the token that stands for an image."""
    number = getattr(config, "image_token_id", None)
    if number is None:
        number = getattr(config, "image_token_index", None)
    for token in read_json(folder / "tokenizer.json").get("added_tokens", []):
        if token.get("id") == number:
            return str(token["content"])
    return "<image>"
