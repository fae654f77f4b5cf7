"""Text features of the few distinct instructions of a run, computed once while frozen.

Axes: B batch, U distinct instructions, L tokens, W width.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from actionprior.networks.device import to_device


class TextFeatures(NamedTuple):
    """Token features of instructions; padding is masked."""

    tokens_BLW: Tensor
    mask_BL: Tensor  # bool


Encode = Callable[[list[str]], TextFeatures]

MAX_ENTRIES = 4096
"""Instructions kept; beyond that the cache starts afresh."""


class TextCache(nn.Module):
    """Encodes each distinct instruction of a batch once, and of a run once if frozen.

    It holds no parameters. Being a module, it hears of moves to another device and of weights
    being loaded, and forgets what it knew.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[str, Tensor] = {}

    def forward(self, task: list[str], encode: Encode, frozen: bool) -> TextFeatures:
        """Features of B instructions.

        Args:
            task: B instructions.
            encode: from instructions to features; each row must not depend on the others.
            frozen: whether what ``encode`` gives will never change: keep it, without gradients.
        """
        distinct = list(dict.fromkeys(task))
        if not frozen:
            self._kept.clear()
            return self._rows(encode(distinct), distinct, task)
        if len(self._kept) + len(distinct) > MAX_ENTRIES:
            self._kept.clear()
        if missing := [t for t in distinct if t not in self._kept]:
            # Not in inference mode, whose tensors could not serve a training step later, and
            # not under autocast, so that what is kept does not depend on who asked first.
            with torch.inference_mode(False), torch.no_grad(), _full_precision():
                tokens, mask = encode(missing)
            for text, row, valid in zip(missing, tokens, mask, strict=True):
                self._kept[text] = row[valid]
        rows = [self._kept[text] for text in distinct]
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

    def _load_from_state_dict(self, *args: Any) -> None:  # noqa: ANN401  as torch has it
        self._kept.clear()
        super()._load_from_state_dict(*args)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._kept.clear()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "TextCache":
        return TextCache()


def _full_precision() -> torch.autocast:
    device = "cuda" if torch.is_autocast_enabled("cuda") else "cpu"
    return torch.autocast(device, enabled=False)
