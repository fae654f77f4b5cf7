"""Tiny decoder-only language models of random weights, in folders of the hub's layout."""

from pathlib import Path
from typing import Any

import torch

MODELS = ("qwen3", "qwen2", "llama")


def write_language_model(kind: str, folder: Path, **changes: Any) -> Any:
    """Write a model as its makers upload it, and return it without its head."""
    import transformers

    sizes = {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16 if kind == "qwen3" else 8,
        "max_position_embeddings": 64,
    }
    config = transformers.AutoConfig.for_model(kind, **sizes | changes)
    torch.manual_seed(2)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.15)
    model.save_pretrained(folder, **({"max_shard_size": "8KB"} if kind == "llama" else {}))
    return model.model.eval()
