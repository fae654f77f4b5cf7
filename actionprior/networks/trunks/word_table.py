"""Pretrained embeddings of words, and a text encoder on top of them.

Words that training never had get an embedding of a language model's vocabulary, not an untrained
one. A table and its vocabulary are buffers: a checkpoint holds both and needs no other file.

Axes: V vocabulary, E embedding width, B batch, L words, P pieces of a word, W token width.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from actionprior.errors import UserError, missing_extra, shorten
from actionprior.files.plain_json import read_json
from actionprior.files.weights import load_weights
from actionprior.networks.device import to_device
from actionprior.networks.trunks.instruction_signs import InstructionSigns
from actionprior.networks.trunks.packaged_weights import AUTO, EXTRA, packaged_file
from actionprior.networks.trunks.word_encoder import MAX_WORDS, TextEncoder, split_words

_PACKAGE = "wordllama"
_PACKAGED_TABLE = "wordllama/weights/l2_supercat_256.safetensors"
_PACKAGED_VOCABULARY = "wordllama/tokenizers/l2_supercat_tokenizer_config.json"
_WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's sign for the space before a word
_SEPARATOR = "\0"
_MAX_CACHED = 65_536


class TableSize(NamedTuple):
    """Sizes of a word table's buffers."""

    rows: int
    width: int
    vocabulary_bytes: int


class WordTable(nn.Module):
    """Fixed embeddings of the pieces of a SentencePiece vocabulary.

    A word's embedding is the mean of those of its pieces.
    """

    table_VE: Tensor  # float16; the root of the mean square over the table is 1
    vocabulary: Tensor  # uint8: the pieces in UTF-8, in the order of the rows

    def __init__(self, size: TableSize) -> None:
        """Create an empty table, which a checkpoint or :func:`read_word_table` fills.

        Args:
            size: Sizes of the buffers.
        """
        super().__init__()
        self.size = size
        self.register_buffer("table_VE", torch.zeros(size.rows, size.width, dtype=torch.float16))
        self.register_buffer("vocabulary", torch.zeros(size.vocabulary_bytes, dtype=torch.uint8))
        self._row_of: dict[str, int] = {}
        self._cached: dict[str, list[int]] = {}

    def forward(self, words: Sequence[Sequence[str]]) -> Tensor:
        """Return the embeddings of the words of B texts, (B, L, E); missing words are 0."""
        padded_BLP = to_device(self._padded_rows(words), self.table_VE.device)
        known_BLP1 = (padded_BLP >= 0)[..., None]
        sum_BLE = (self.table_VE[padded_BLP.clamp(min=0)].float() * known_BLP1).sum(dim=2)
        mean_BLE: Tensor = sum_BLE / known_BLP1.sum(dim=2).clamp(min=1)
        return mean_BLE

    # Strings would be compiled again for each instruction.
    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no type for it
    def _padded_rows(self, words: Sequence[Sequence[str]]) -> Tensor:
        """Return the rows of the pieces of words, (B, L, P); -1 is padding."""
        rows_BL = [[self.rows(word) for word in text] for text in words]
        length = max((len(text) for text in rows_BL), default=0)
        pieces = max((len(rows) for text in rows_BL for rows in text), default=1)
        padded_BLP = torch.full((len(words), length, pieces), -1)
        for b, text in enumerate(rows_BL):
            for position, rows in enumerate(text):
                padded_BLP[b, position, : len(rows)] = torch.tensor(rows)
        return padded_BLP

    def rows(self, word: str) -> list[int]:
        """Return the rows of a word's pieces, at least one."""
        if not self._row_of:
            pieces = bytes(self.vocabulary.cpu().tolist()).decode().split(_SEPARATOR)
            self._row_of = {piece: row for row, piece in enumerate(pieces)}
        if word not in self._cached:
            if len(self._cached) >= _MAX_CACHED:
                self._cached.clear()
            self._cached[word] = self._split(word)
        return self._cached[word]

    def _split(self, word: str) -> list[int]:
        """Join neighbours as SentencePiece does: first the pair with the lowest row."""
        pieces = [_WORD_START, *word]
        never = len(self._row_of)
        while len(pieces) > 1:
            joined = [self._row_of.get(a + b, never) for a, b in pairwise(pieces)]
            best = min(joined)
            if best == never:
                break
            at = joined.index(best)
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        rows: list[int] = []
        for piece in pieces:
            # A character that is no piece is spelt by its bytes.
            spelt = [piece] if piece in self._row_of else [f"<0x{b:02X}>" for b in piece.encode()]
            rows += [self._row_of[p] for p in spelt if p in self._row_of]
        return rows or [0]

    def _load_from_state_dict(self, *args: Any) -> None:  # noqa: ANN401  torch's signature
        self._row_of, self._cached = {}, {}
        super()._load_from_state_dict(*args)


class LoadedTable(NamedTuple):
    """A word table, and its source in words; without a table: None and an empty source."""

    table: WordTable | None
    source: str


def load_word_table(pretrained: str) -> LoadedTable:
    """Find and read a word table.

    Args:
        pretrained: A safetensors file with ``tokenizer.json`` beside it, ``auto`` for that of the
            package ``wordllama``, or empty for no table.

    Raises:
        UserError: A file is missing, or holds no table or no vocabulary that fits it.
    """
    if not pretrained:
        return LoadedTable(None, "")
    if pretrained != AUTO:
        file = Path(pretrained)
        return LoadedTable(read_word_table(file, file.with_name("tokenizer.json")), f"file {file}")
    table = packaged_file(_PACKAGE, _PACKAGED_TABLE)
    vocabulary = packaged_file(_PACKAGE, _PACKAGED_VOCABULARY)
    if table is None or vocabulary is None:
        raise UserError(
            f"text_pretrained is {AUTO!r}, but {missing_extra(_PACKAGE, EXTRA)}, "
            "give a file, or an empty string for words learnt from scratch"
        )
    return LoadedTable(read_word_table(table.path, vocabulary.path), f"package {table.package}")


def read_word_table(table_file: Path, vocabulary_file: Path) -> WordTable:
    """Read a table of embeddings, and the vocabulary of its rows.

    Args:
        table_file: Safetensors file with one matrix.
        vocabulary_file: JSON file of the library ``tokenizers``, of a SentencePiece vocabulary.

    Raises:
        UserError: A file is missing, or holds no table or no vocabulary that fits it.
    """
    weights = load_weights(table_file)
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    if len(weights) != 1 or len(next(iter(shapes.values()))) != 2:
        raise UserError(f"word table {table_file} holds {shapes}; expected one matrix")
    (matrix_VE,) = weights.values()
    pieces = _read_pieces(vocabulary_file)
    if len(pieces) != len(matrix_VE):
        raise UserError(
            f"vocabulary {vocabulary_file} has {len(pieces)} pieces, but {table_file} has "
            f"{len(matrix_VE)} rows; give files that belong together"
        )
    content = _SEPARATOR.join(pieces).encode()
    rows, width = matrix_VE.shape
    table = WordTable(TableSize(rows, width, len(content)))
    scale = matrix_VE.float().square().mean().sqrt()
    table.table_VE.copy_(matrix_VE.float() / scale)
    table.vocabulary.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    return table


def _read_pieces(file: Path) -> list[str]:
    try:
        model = read_json(file)["model"]
        row_of = {str(piece): int(row) for piece, row in model["vocab"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"vocabulary {file} cannot be read ({shorten(error)}); "
            "expected a JSON file of the library tokenizers"
        ) from None
    pieces = sorted(row_of, key=row_of.__getitem__)
    if [row_of[piece] for piece in pieces] != list(range(len(pieces))):
        raise UserError(f"vocabulary {file} does not number its pieces from 0 without gaps")
    if not any(piece.startswith(_WORD_START) for piece in pieces):
        raise UserError(f"vocabulary {file} is not SentencePiece's: no piece starts a word")
    return pieces


class PretrainedTextEncoder(TextEncoder):
    """Pretrained embeddings of words, and positions, through a few transformer blocks.

    The table stays fixed; the blocks train, and keep the order of the words.
    """

    def __init__(self, width: int, table: WordTable) -> None:
        """Create the encoder.

        Args:
            width: Width W of a token.
            table: Embeddings of words.
        """
        super().__init__(width, buckets=2)  # padding and start
        self.table = table
        self.from_table = nn.Linear(table.size.width, width)

    def signs(self, task: list[str]) -> list[InstructionSigns]:
        """See :class:`TextEncoder`."""
        return [
            InstructionSigns(
                tuple(row for word in words[:MAX_WORDS] for row in (*self.table.rows(word), -1)),
                len(words) <= MAX_WORDS,
            )
            for words in map(split_words, task)
        ]

    def embed(self, tasks: list[str]) -> tuple[Tensor, Tensor]:
        """See :class:`TextEncoder`."""
        words = [split_words(task)[:MAX_WORDS] for task in tasks]
        device = self.position.device
        count_B = to_device(torch.tensor([1 + len(text) for text in words]), device)
        words_BLW = self.from_table(self.table(words).to(self.from_table.weight.dtype))
        start_B1W = self.embedding.weight[1].expand(len(tasks), 1, -1)
        x_BLW = torch.cat([start_B1W.to(words_BLW.dtype), words_BLW], dim=1)
        mask_BL = torch.arange(x_BLW.shape[1], device=device) < count_B[:, None]
        return x_BLW, mask_BL
