"""Cache of text features: a run has few distinct instructions.

Axes: B batch, U distinct instructions, L tokens, W width.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from actionprior.networks.device import to_device


class TextFeatures(NamedTuple):
    """Token features of instructions, with a mask of padding."""

    tokens_BLW: Tensor
    mask_BL: Tensor  # bool


Encode = Callable[[list[str]], TextFeatures]

MAX_ENTRIES = 4096
"""Largest number of cached instructions; the cache is cleared beyond it."""


class TextCache(nn.Module):
    """Encodes each distinct instruction once per batch, or once per run if frozen.

    It has no parameters. It is a module so that it is cleared when the network moves to another
    device or loads weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cached: dict[str, Tensor] = {}

    def forward(self, task: list[str], encode: Encode, frozen: bool) -> TextFeatures:
        """Return the features of B instructions.

        Args:
            task: B instructions.
            encode: Function from instructions to features. A row must not depend on other rows.
            frozen: True if the results of ``encode`` never change; they are cached then, without
                gradients.
        """
        distinct = list(dict.fromkeys(task))
        if not frozen:
            self._cached.clear()
            return self._rows(encode(distinct), distinct, task)
        if len(self._cached) + len(distinct) > MAX_ENTRIES:
            self._cached.clear()
        if missing := [t for t in distinct if t not in self._cached]:
            # Inference-mode tensors could not be used in a later training step. Without autocast,
            # cached features do not depend on the precision of the first caller.
            with torch.inference_mode(False), torch.no_grad(), _full_precision():
                tokens, mask = encode(missing)
            for text, row, valid in zip(missing, tokens, mask, strict=True):
                self._cached[text] = row[valid]
        rows = [self._cached[text] for text in distinct]
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        length = to_device(torch.tensor([len(row) for row in rows]), tokens.device)
        mask = torch.arange(tokens.shape[1], device=tokens.device) < length[:, None]
        return self._rows(TextFeatures(tokens, mask), distinct, task)

    @staticmethod
    def _rows(features: TextFeatures, distinct: list[str], task: list[str]) -> TextFeatures:
        if len(distinct) == len(task):
            return features
        row_of = {text: row for row, text in enumerate(distinct)}
        index_B = to_device(torch.tensor([row_of[t] for t in task]), features.mask_BL.device)
        return TextFeatures(features.tokens_BLW[index_B], features.mask_BL[index_B])

    def _load_from_state_dict(self, *args: Any) -> None:  # noqa: ANN401  torch's signature
        self._cached.clear()
        super()._load_from_state_dict(*args)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._cached.clear()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "TextCache":
        return TextCache()


def _full_precision() -> torch.autocast:
    device = "cuda" if torch.is_autocast_enabled("cuda") else "cpu"
    return torch.autocast(device, enabled=False)
