"""The prepared script for a GPU runs at a tiny size on the CPU."""

import json
import subprocess
from pathlib import Path

import pytest

from bench.random_vlm import QWEN3_VL_2B
from bench.vlm import bench_vlm, paper_sizes

PROJECT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_part_runs_at_a_tiny_size(tmp_path: Path) -> None:
    command = ["bash", str(PROJECT / "bench/gpu.sh"), "--tiny=true", f"--out={tmp_path}/gpu.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.strip().splitlines()[-1].removeprefix("RESULT "))
    for part in ("stage1", "stage2_full", "stage2_lora"):
        assert result[part]["eager"]["samples_per_s"] > 0
    lora, whole = result["stage2_lora"], result["stage2_full"]
    assert lora["million_trained"] < whole["million_trained"]
    assert whole["chunk_milliseconds"] > 0
    assert json.loads((tmp_path / "gpu.json").read_text()) == result


def test_no_part_begins_after_the_limit(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_vlm(tiny=True, minutes=0.0)["stage1"] == "left out: no time"


def test_the_papers_sizes() -> None:
    sizes = paper_sizes()
    blocks = 28 * (1024 * 128 * (16 * 2 + 8 * 2) + 3 * 1024 * 3072)
    assert 0.43e9 < blocks < 0.45e9, "Qwen3-0.6B without its embeddings"
    assert (sizes.depth, sizes.width) == (28, 1024)
    assert QWEN3_VL_2B["text_config"]["hidden_size"] == 2048
