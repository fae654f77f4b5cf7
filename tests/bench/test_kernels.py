"""Kernels and waits of a step are counted, and the package's own steps never wait."""

from pathlib import Path

import pytest
import torch

from bench.kernels import KernelCounter, bench_kernels


def test_waits_are_found() -> None:
    x = torch.randn(4, 4)
    with KernelCounter() as counter:
        y = (x @ x).view(16)
        float(y.sum())
        y[y > 0]
    assert counter.kernels >= 4
    assert counter.waits == {"_local_scalar_dense": 1, "index": 1}


@pytest.mark.slow
def test_no_step_waits_and_images_are_seen_together(tmp_path: Path) -> None:
    few, many = (bench_kernels(rows, str(tmp_path / "k.json")) for rows in (2, 6))
    for result in (few, many):
        for step in ("stage2_to_z", "stage2_step", "stage1", "stage1_language"):
            assert result[step]["waits"] == {}, step
            assert result[step]["kernels"] > 100, step
    for step in ("stage2_to_z", "stage2_step"):
        assert few[step]["kernels"] == many[step]["kernels"], step
    own = many["images_of_transformers"]["kernels"] - few["images_of_transformers"]["kernels"]
    assert own > 100, "the loop of transformers starts kernels for each image"
