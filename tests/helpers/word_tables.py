"""Tiny word tables in the layout of the package `wordllama`."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
PIECES += [
    "\u2581p",
    "us",
    "\u2581pus",
    "\u2581push",
    "\u2581shove",
    "\u2581r",
    "\u2581re",
    "\u2581red",
]
PIECES += ["\u2581the", "\u2581blue", "\u2581", *"acdefhlnoprstuvbx", "\u2581s", "ho", "\u2581sho"]
PIECES += ["ve", "\u2581t", "he", "\u2581b", "lu", "\u2581blu"]


def write_word_table(folder: Path, rows: int = len(PIECES), name: str = "table") -> Path:
    """Write a table in which ``shove`` means almost what ``push`` does; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    table: Tensor = torch.randn(rows, 16, generator=torch.Generator().manual_seed(5))
    push, shove = (PIECES.index(f"\u2581{word}") for word in ("push", "shove"))
    table[shove] = table[push] + 0.01 * table[shove]
    file = folder / f"{name}.safetensors"
    save_file({"embedding.weight": table.half()}, file)
    vocabulary = {piece: row for row, piece in enumerate(PIECES)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    return file
