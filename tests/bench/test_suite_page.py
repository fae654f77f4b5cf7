"""The suite's page describes and shows every task."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actionprior.envs import SUITE
from actionprior.envs.env import RENDER_SIZE
from bench import suite_page


def test_every_task_is_described_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite_page, "SUITE", {"panda": ["push"], "kuka": ["recall"]})
    page = tmp_path / "suite.md"
    suite_page.main([f"--out={page}", "--seeds=1"])
    text = page.read_text()
    for name, picture in (("PandaPush", "panda_push"), ("KukaRecall", "kuka_recall")):
        assert f"## `actionprior/{name}-v0`" in text
        assert f"(suite/{picture}.png)" in text
        pixels = np.asarray(Image.open(tmp_path / "suite" / f"{picture}.png"))
        assert pixels.shape == (RENDER_SIZE, 3 * RENDER_SIZE, 3)
        start, middle, end = np.split(pixels.astype(int), 3, axis=1)
        assert abs(middle - start).max() > 50  # the arm moves
        assert abs(end - middle).max() > 50
    assert "joint targets of 7 joints, vacuum, 10 Hz, at most 8 s" in text
    result = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("RESULT "))
    successes = {"actionprior/PandaPush-v0": 1, "actionprior/KukaRecall-v0": 1}
    assert result == {"seeds": 1, "successes": successes}


def test_the_committed_page_is_of_the_suite() -> None:
    page = Path(__file__).parents[2] / "docs" / "suite.md"
    shown = {f"{robot}_{task}.png" for robot, tasks in SUITE.items() for task in tasks}
    assert {p.name for p in page.with_suffix("").iterdir()} == shown
    assert all(f"(suite/{picture})" in page.read_text() for picture in shown)
