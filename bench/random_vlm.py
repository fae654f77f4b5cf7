"""Vision-language models of random weights and of any size, for the benchmarks.

The sizes are those of the published configurations. Nothing is downloaded.
"""

import json
from pathlib import Path
from typing import Any

QWEN3_VL_2B: dict[str, Any] = {
    "text_config": {
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5e6,
            "mrope_section": [24, 20, 20],
        },
    },
    "vision_config": {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "out_hidden_size": 2048,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [5, 11, 17],
    },
}
"""Sizes of Qwen3-VL-2B, the paper's model."""
TINY: dict[str, Any] = {
    "text_config": {
        "vocab_size": 400,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
    },
    "vision_config": {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    },
}
"""Sizes with which the same code runs on a CPU in a second."""
_IMAGE, _START, _END = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"
_TEMPLATE = (
    "<|im_start|>user\n{% for part in messages[0].content %}{% if part.type == 'image' %}"
    + f"{_START}{_IMAGE}{_END}"
    + "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n<|im_start|>assistant\n"
)
_TEXTS = ["user\n", "\n", "assistant\n", *(f"move the cube to pad {n}" for n in range(10))]


def write_random_vlm(sizes: dict[str, Any], folder: Path) -> str:
    """Write configuration and tokeniser of a Qwen3-VL, and return its source for ``VLMTrunk``.

    Args:
        sizes: Arguments of transformers' ``Qwen3VLConfig``.
        folder: Folder to write to.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen3VLConfig

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", _START, _END, _IMAGE, "<|video_pad|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_TEXTS, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": _TEMPLATE}))
    ids = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 3}
    Qwen3VLConfig(**sizes, **ids, vision_end_token_id=4).save_pretrained(folder)
    return f"local-dir:{folder}"
