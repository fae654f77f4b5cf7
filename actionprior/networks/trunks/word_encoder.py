"""A word-level tokeniser without a vocabulary file, and a small text encoder.

Axes: B batch, L words, W width.
"""

import re
import zlib

import torch
from torch import Tensor, nn

from actionprior.networks.device import to_device
from actionprior.networks.transformer import TransformerBlock
from actionprior.networks.trunks.instruction_signs import InstructionSigns
from actionprior.networks.trunks.text_cache import TextFeatures

MAX_WORDS = 31
"""Number of words of an instruction that are read; further words are ignored."""
_PAD, _START, _FIRST = 0, 1, 2


def split_words(task: str) -> list[str]:
    """Split an instruction into lower-cased words and punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", task.lower())


def tokenize(tasks: list[str], buckets: int) -> Tensor:
    """Hash lower-cased words and punctuation marks to ids (B, L); 0 is padding, 1 the start.

    CRC-32 is used because ``hash`` differs between Python processes. A word that training never
    had gets a valid, untrained embedding.
    """
    rows = []
    for task in tasks:
        words = split_words(task)[:MAX_WORDS]
        ids = [_FIRST + zlib.crc32(word.encode()) % (buckets - _FIRST) for word in words]
        rows.append([_START, *ids])
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [_PAD] * (longest - len(row)) for row in rows])


def word_signs(task: list[str], buckets: int = 4096) -> list[InstructionSigns]:
    """Return what hashed words keep of instructions.

    Args:
        task: Instructions.
        buckets: Rows of the embedding table.
    """
    return [
        InstructionSigns(
            tuple(tokenize([text], buckets)[0].tolist()), len(split_words(text)) <= MAX_WORDS
        )
        for text in task
    ]


class TextEncoder(nn.Module):
    """Hashed word embeddings and positions through a few transformer blocks."""

    def __init__(
        self, width: int = 64, layers: int = 2, heads: int = 4, buckets: int = 4096
    ) -> None:
        """Create the encoder.

        Args:
            width: Width W of a token.
            layers: Number of transformer blocks.
            heads: Number of attention heads.
            buckets: Rows of the embedding table, to which words are hashed.
        """
        super().__init__()
        self.buckets = buckets
        self.embedding = nn.Embedding(buckets, width)
        self.position = nn.Parameter(torch.randn(1 + MAX_WORDS, width) * 0.5)
        self.blocks = nn.ModuleList([TransformerBlock(width, heads) for _ in range(layers)])
        self.norm = nn.RMSNorm(width)

    def forward(self, tasks: list[str]) -> TextFeatures:
        """Encode B instructions; position 0 summarises each, and padding changes no token."""
        x_BLW, mask_BL = self.embed(tasks)
        x_BLW = x_BLW + self.position[: x_BLW.shape[1]]
        for block in self.blocks:
            x_BLW = block(x_BLW, mask_BL)
        return TextFeatures(self.norm(x_BLW), mask_BL)

    def signs(self, task: list[str]) -> list[InstructionSigns]:
        """Return what is read of instructions."""
        return word_signs(task, self.buckets)

    def embed(self, tasks: list[str]) -> tuple[Tensor, Tensor]:
        """Return the embeddings of B instructions (B, L, W) and the mask of their words (B, L)."""
        ids_BL = to_device(tokenize(tasks, self.buckets), self.position.device)
        return self.embedding(ids_BL), ids_BL != _PAD
