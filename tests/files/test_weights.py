"""Weights files are written atomically, and changes in them are detected."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from actionprior.files.weights import WeightsError, load_weights, save_weights, wrong_shape
from tests.helpers.damage import damaged

WEIGHTS = {
    "a.weight": torch.randn(7, 5),
    "a.scale": torch.tensor(2.5),
    "b": torch.arange(9),
    "c": torch.ones(3, dtype=torch.bfloat16),
    "none": torch.zeros(0, 4),
}


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == WEIGHTS.keys() and all(
        found[k].dtype == v.dtype and torch.equal(found[k], v) for k, v in WEIGHTS.items()
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "w.safetensors"
    save_weights(WEIGHTS | {"b": torch.arange(18)[::2] // 2}, path)
    assert same(load_weights(path))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    save_file(WEIGHTS, tmp_path / "foreign.safetensors")  # another program's has no digest
    assert same(load_weights(tmp_path / "foreign.safetensors"))


def test_flipped_bits_and_truncations_are_detected(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(WEIGHTS, path)
    whole = path.read_bytes()
    detected = 0
    for content in damaged(whole):
        path.write_bytes(content)
        try:
            assert same(load_weights(path))  # a bit that says nothing, such as a space
        except WeightsError as error:
            detected += str(path) in str(error)
    assert detected > 340


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.safetensors do not exist"):
        load_weights(tmp_path / "gone.safetensors")


def test_the_first_name_of_another_shape_is_found() -> None:
    own = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    assert wrong_shape({name: value + 1 for name, value in own.items()}, own) is None
    assert wrong_shape({**own, "b": torch.zeros(5)}, own) == ("b", (5,), (4,))
    assert wrong_shape({"b": own["b"]}, own) == ("a", None, (2, 3))
    assert wrong_shape({**own, "c": torch.zeros(1)}, own) == ("c", (1,), None)
