"""Pretrained embeddings of words, and the encoder on top of them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from actionprior.errors import UserError
from actionprior.networks.trunks.word_encoder import MAX_WORDS
from actionprior.networks.trunks.word_table import (
    PretrainedTextEncoder,
    TableSize,
    WordTable,
    load_word_table,
    read_word_table,
)
from tests.helpers.word_tables import PIECES, write_word_table


@pytest.fixture
def table(tmp_path: Path) -> WordTable:
    loaded = load_word_table(str(write_word_table(tmp_path)))
    assert loaded.table is not None
    return loaded.table


def test_words_become_pieces_as_sentencepiece_joins_them(table: WordTable) -> None:
    def pieces(word: str) -> list[str]:
        return [PIECES[row] for row in table.rows(word)]

    assert pieces("push") == ["\u2581push"]
    assert pieces("reds") == ["\u2581red", "s"]
    assert pieces("zx") == ["\u2581", "<0x7A>", "x"], "a letter that is no piece is spelt"
    assert pieces("红") == ["\u2581", "<0xE7>", "<0xBA>", "<0xA2>"]
    assert table.rows("") == [PIECES.index("\u2581")]


def test_a_words_embedding_is_the_mean_of_its_pieces(table: WordTable) -> None:
    found = table([["reds", "push"], ["push"]])
    rows = table.table_VE.float()
    torch.testing.assert_close(found[0, 0], rows[table.rows("reds")].mean(dim=0))
    torch.testing.assert_close(found[0, 1], found[1, 0])
    assert not found[1, 1].any()
    torch.testing.assert_close(rows.square().mean(), torch.tensor(1.0), rtol=1e-3, atol=0)


def test_an_unseen_word_is_read_as_its_neighbour(table: WordTable) -> None:
    torch.manual_seed(0)
    encoder = PretrainedTextEncoder(16, table).eval()
    push, shove, red = encoder(["push the red", "shove the red", "red the red"]).tokens_BLW[:, 0]
    assert (push - shove).norm() < 0.05 * (push - red).norm()


def test_the_order_of_words_and_only_own_words_matter(table: WordTable) -> None:
    torch.manual_seed(0)
    encoder = PretrainedTextEncoder(16, table).eval()
    tasks = ["push the red blue", "push the blue red", "push"]
    tokens, mask = encoder(tasks)
    assert mask.sum(dim=1).tolist() == [5, 5, 2]
    assert (tokens[0, 0] - tokens[1, 0]).abs().max() > 1e-3
    torch.testing.assert_close(tokens[2, :2], encoder(["push"]).tokens_BLW[0])
    odd = encoder(["", "zyxq!! " + "very " * 100])
    assert odd.tokens_BLW.isfinite().all()
    assert odd.mask_BL.sum(dim=1).tolist() == [1, 1 + MAX_WORDS]


def test_the_table_does_not_train(table: WordTable) -> None:
    encoder = PretrainedTextEncoder(16, table)
    encoder(["push the red"]).tokens_BLW.sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    assert not list(table.parameters())


def test_loaded_weights_bring_their_own_vocabulary(table: WordTable) -> None:
    other = WordTable(TableSize(*table.size))
    other.rows("x")
    other.load_state_dict(table.state_dict())
    assert other.rows("push") == table.rows("push")
    torch.testing.assert_close(other([["push"]]), table([["push"]]))


def test_the_package_serves_without_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "wordllama" / "weights"
    write_word_table(weights, name="l2_supercat_256")
    (tmp_path / "wordllama" / "tokenizers").mkdir()
    (weights / "tokenizer.json").rename(
        weights.parent / "tokenizers" / "l2_supercat_tokenizer_config.json"
    )
    (weights.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    info = tmp_path / "wordllama-0.4.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wordllama\nVersion: 0.4.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    loaded = load_word_table("auto")
    assert loaded.source == "package wordllama 0.4.0"
    assert loaded.table is not None
    assert loaded.table.rows("push") == [PIECES.index("\u2581push")]


def test_files_that_do_not_fit_are_reported(tmp_path: Path) -> None:
    file = write_word_table(tmp_path)
    vocabulary = tmp_path / "tokenizer.json"
    save_file({"a": torch.zeros(2, 2), "b": torch.zeros(2)}, tmp_path / "two.safetensors")
    with pytest.raises(UserError, match=r"two\.safetensors holds .*; expected one matrix"):
        read_word_table(tmp_path / "two.safetensors", vocabulary)
    save_file({"a": torch.zeros(7, 2)}, tmp_path / "short.safetensors")
    with pytest.raises(UserError, match=rf"{len(PIECES)} pieces, but .*short.* has 7 rows"):
        read_word_table(tmp_path / "short.safetensors", vocabulary)
    for content, message in (
        ("{", "cannot be read"),
        (json.dumps({"model": {"vocab": {"\u2581a": 0, "b": 2}}}), "without gaps"),
        (json.dumps({"model": {"vocab": {"a": 0, "b": 1}}}), "no piece starts a word"),
    ):
        vocabulary.write_text(content)
        with pytest.raises(UserError, match=message):
            read_word_table(file, vocabulary)
