"""Read-outs, shifts, distances and the report, on numbers whose answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from actionprior.diagnosis.closed_loop import leaves, nearest
from actionprior.diagnosis.deployment import Seen, compare_cameras, compare_states
from actionprior.diagnosis.grippers import best_shift
from actionprior.diagnosis.instructions import exchange
from actionprior.diagnosis.measurement import Diagnosis, MeasuredValue, finding
from actionprior.diagnosis.readout import ridge
from actionprior.diagnosis.report import measured_lines, write_report
from actionprior.diagnosis.windows import other_episodes
from tests.helpers.signal_task import signal_robot


def test_ridge_finds_a_linear_law_with_more_features_than_rows() -> None:
    draw = torch.Generator().manual_seed(0)
    hidden_NF = torch.randn(120, 3, generator=draw)
    x_NF = hidden_NF @ torch.randn(3, 200, generator=draw)
    y_ND = hidden_NF @ torch.randn(3, 2, generator=draw) + 5
    found_MD = ridge(x_NF[:80], y_ND[:80], x_NF[80:])
    assert (found_MD - y_ND[80:]).abs().mean() < 0.02


def test_ridge_of_noise_is_the_mean() -> None:
    draw = torch.Generator().manual_seed(0)
    x_NF, y_ND = torch.randn(200, 40, generator=draw), torch.randn(200, 1, generator=draw)
    assert (ridge(x_NF[:100], y_ND[:100], x_NF[100:])).abs().mean() < 0.4


@pytest.mark.parametrize("shift", [-3, 0, 2])
def test_the_shift_of_switches_is_found(shift: int) -> None:
    steps_N1 = np.arange(12) - np.array([[4], [5], [6], [7]])
    assert best_shift(steps_N1 >= shift, steps_N1 >= 0, 8) == shift


def test_equal_series_that_never_switch_have_no_shift() -> None:
    still = np.zeros((3, 8), dtype=bool)
    assert best_shift(still, still, 8) == 0


@pytest.mark.parametrize(
    ("course", "chunk"),
    [
        ([9, 1, 1, 1, 1], 0),  # a start far from all others
        ([1, 1, 9, 1, 9, 1], 0),
        ([1, 1, 9, 9, 9, 9], 2),
    ],
)
def test_an_episode_leaves_for_good(course: list[float], chunk: int) -> None:
    assert leaves(np.array(course, np.float32)) == chunk


def test_the_nearest_state_counts() -> None:
    known = np.array([[0, 0], [3, 4]], np.float32)
    assert nearest(np.array([[3, 0], [3, 5]], np.float32), known).tolist() == [3, 1]


def test_other_instructions_and_other_episodes_differ() -> None:
    given = ["a", "b", "a", "c"]
    assert all(own != new for own, new in zip(given, exchange(given, ["a", "b", "c"]), strict=True))
    episode_N = np.array([0, 0, 1, 2])
    chosen = other_episodes(episode_N)
    assert chosen is not None
    assert (episode_N[chosen.numpy()] != episode_N).all()
    assert other_episodes(np.array([3, 3])) is None


def seen(images: np.ndarray, states: np.ndarray) -> Seen:
    return Seen(torch.from_numpy(images).float(), states.astype(np.float32))


def test_equal_deployments_are_not_accused_and_others_are() -> None:
    rng, robot = np.random.default_rng(0), signal_robot()
    base = rng.uniform(0, 255, (1, 2, 3, 8, 8))
    states = rng.uniform(-1, 1, (12, 5))
    trained, same = (seen(base + rng.normal(0, 4, (12, 2, 3, 8, 8)), states) for _ in range(2))
    assert not [*compare_cameras(robot, "env", trained, same)]
    assert not [*compare_states(robot, "env", trained, same)]
    colours = same._replace(small_NCKYX=same.small_NCKYX.flip(2))
    messages = [f.message for f in compare_cameras(robot, "env", trained, colours)]
    assert len(messages) == 2
    assert "with red and blue exchanged" in messages[0]
    dark = same._replace(small_NCKYX=0.4 * same.small_NCKYX)
    assert "compare light" in next(compare_cameras(robot, "env", trained, dark)).message
    millimetres = same._replace(state_Ns=1000 * states.astype(np.float32) + 900)
    assert len([*compare_states(robot, "env", trained, millimetres)]) == 5


def test_the_report_joins_numbers_of_one_quantity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        MeasuredValue("arm", "latent", "error", "joints", 0.01234, "rad"),
        MeasuredValue("arm", "latent", "cosine", "", 1e-17, ""),
        MeasuredValue("arm", "latent", "error", "gripper", float("nan"), "1"),
    ]
    assert measured_lines(rows) == [
        ("arm", "latent", "error", "joints 0.0123 rad, gripper unknown"),
        ("arm", "latent", "cosine", "0"),
    ]
    write_report(
        Diagnosis(rows, [finding("error", "blind", "arm", "<top>", "sees nothing")]), tmp_path
    )
    assert "1 error, 0 warnings, 0 notes" in capsys.readouterr().out
    assert "&lt;top&gt;: sees nothing" in (tmp_path / "report.html").read_text()
    plain = json.loads((tmp_path / "diagnosis.json").read_text())
    assert plain["measurements"][2]["value"] is None
    assert plain["findings"][0]["check"] == "blind"
    write_report(Diagnosis(rows, []), tmp_path)
    assert "no cause of error was found" in capsys.readouterr().out


def test_names_are_printed_without_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "push\x1b[31m \u202ecube<script>"
    results = Diagnosis([MeasuredValue("arm", hostile, hostile, hostile, 0.5, "1")], [])
    write_report(results, tmp_path)
    page = (tmp_path / "report.html").read_text()
    for text in (capsys.readouterr().out, page):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "<script>" not in page
    assert "push\\x1b[31m" in page
