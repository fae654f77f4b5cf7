"""Tiny vision-language models of random weights, in folders of the hub's layout."""

import json
from pathlib import Path
from typing import Any

import torch

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><image><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOLVLM_CHAT = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
SPECIAL = ["<pad>", "<unk>", "<bos>", "<image>", "<|im_start|>", "<|im_end|>", "<|vision_start|>"]
SPECIAL += ["<|vision_end|>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
VOCABULARY = 300
FAMILIES = ("qwen3_vl", "smolvlm", "paligemma")


def write_tokenizer(folder: Path, template: str) -> None:
    """Write a byte-level tokeniser that knows the special tokens of every family."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["push the red cube to the blue pad", "lift it up"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {"bos_token": {"content": "<bos>"}, "eos_token": "<|im_end|>"}
    if template:
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def tiny_config(family: str) -> Any:
    import transformers

    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 5,
    }
    vision: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24}
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
    if family == "qwen3_vl":
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
        return transformers.Qwen3VLConfig(
            text_config=text | {"rope_parameters": rope},
            vision_config=vision
            | {"depth": 3, "num_heads": 2, "patch_size": 8, "spatial_merge_size": 2}
            | {"out_hidden_size": 32, "num_position_embeddings": 16}
            | {"deepstack_visual_indexes": [0, 1]},
            image_token_id=3,
            video_token_id=1,
            vision_start_token_id=6,
            vision_end_token_id=7,
        )
    if family == "smolvlm":
        return transformers.SmolVLMConfig(
            text_config=text | {"model_type": "llama"},
            vision_config=vision | sizes | {"image_size": 32},
            image_token_id=3,
            scale_factor=2,
            pad_token_id=0,
        )
    return transformers.PaliGemmaConfig(
        text_config=text | {"model_type": "gemma", "num_key_value_heads": 1},
        vision_config=vision
        | sizes
        | {"model_type": "siglip_vision_model", "image_size": 32, "projection_dim": 32}
        | {"vision_use_head": False},
        image_token_id=3,
        vocab_size=VOCABULARY,
        projection_dim=32,
        hidden_size=32,
    )


def write_vlm(family: str, folder: Path, weights: bool = True) -> Path:
    """Write a model of random weights as its makers upload it."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_config(family)
    if weights:
        torch.manual_seed(3)
        model = transformers.AutoModelForImageTextToText.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():  # so that every part shows in the output
                if parameter.dim() > 1:
                    parameter.normal_(std=0.15)
        model.save_pretrained(folder)
    else:
        config.save_pretrained(folder)
    template = {"qwen3_vl": CHAT, "smolvlm": SMOLVLM_CHAT, "paligemma": ""}[family]
    write_tokenizer(folder, template)
    pixels = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return folder
