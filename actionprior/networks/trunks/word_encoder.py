"""A word-level tokeniser without a vocabulary file, and a small text encoder that keeps order.

Axes: B batch, L words, W width.
"""

import re
import zlib

import torch
from torch import Tensor, nn

from actionprior.networks.device import to_device
from actionprior.networks.transformer import Block
from actionprior.networks.trunks.text_cache import TextFeatures

MAX_WORDS = 31
"""Words of an instruction that are read; what follows is left out."""
_PAD, _START, _FIRST = 0, 1, 2


def tokenize(tasks: list[str], buckets: int) -> Tensor:
    """Hash lower-cased words and punctuation marks to (B, L) ids; 0 is padding, 1 starts.

    CRC-32 rather than ``hash``, which differs from one Python process to the next. A word never
    seen in training gets a valid, untrained embedding.
    """
    rows = []
    for task in tasks:
        words = re.findall(r"\w+|[^\w\s]", task.lower())[:MAX_WORDS]
        ids = [_FIRST + zlib.crc32(word.encode()) % (buckets - _FIRST) for word in words]
        rows.append([_START, *ids])
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [_PAD] * (longest - len(row)) for row in rows])


class TextEncoder(nn.Module):
    """Hashed word embeddings and positions through a few transformer blocks."""

    def __init__(
        self, width: int = 64, layers: int = 2, heads: int = 4, buckets: int = 4096
    ) -> None:
        """Create the encoder.

        Args:
            width: W.
            layers: transformer blocks.
            heads: attention heads.
            buckets: rows of the embedding table that words are hashed to.
        """
        super().__init__()
        self.buckets = buckets
        self.embedding = nn.Embedding(buckets, width)
        self.position = nn.Parameter(torch.randn(1 + MAX_WORDS, width) * 0.5)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.norm = nn.RMSNorm(width)

    def forward(self, tasks: list[str]) -> TextFeatures:
        """Encode B instructions; position 0 sums each up, and padding changes no other token."""
        ids_BL = to_device(tokenize(tasks, self.buckets), self.position.device)
        mask_BL = ids_BL != _PAD
        x_BLW = self.embedding(ids_BL) + self.position[: ids_BL.shape[1]]
        for block in self.blocks:
            x_BLW = block(x_BLW, mask_BL)
        return TextFeatures(self.norm(x_BLW), mask_BL)
