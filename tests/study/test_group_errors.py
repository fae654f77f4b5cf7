"""Errors by feature group, where nothing was played: numbers, targets, figures and page."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

from actionprior.commands.study import write_report
from actionprior.study.error_figures import draw_errors
from actionprior.study.grid import Grid
from actionprior.study.group_errors import FeatureGroup, as_json, feature_groups, group_errors
from actionprior.study.results import Budget, Results
from actionprior.study.table import read_table, select
from actionprior.study.targets import measure_targets
from tests.helpers import synthetic_results as made_up


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(made_up.plan(tmp_path), made_up.open_loop_table())


def test_each_group_is_compared_as_the_table_was_made(results: Results) -> None:
    assert feature_groups(results) == [
        FeatureGroup("g1", "left_arm", "rad"),
        FeatureGroup("g1", "right_hand", ""),
    ]
    found = {(f.group.name, f.budget): f for f in group_errors(results)}
    assert len(found) == 4
    for (_, budget), f in found.items():
        scale = 1.1 * 5 / budget.demonstrations
        assert f.no_prior.value == pytest.approx(scale)
        assert f.prior.value == pytest.approx(0.8 * scale)
        assert f.no_prior.low < f.no_prior.value < f.no_prior.high
        assert f.ratio == pytest.approx((0.8, 0.8, 0.8))  # paired: seeds differ, the ratio does not
        bends = (f.bend_prior, f.bend_no_prior, f.bend_recorded)
        assert bends == pytest.approx((0.011, 0.02, 0.01))
        assert f.steps_to_match.value == 25
        assert (f.never, f.seeds) == (0, 3)


def test_only_shared_seeds_count_and_never_is_the_whole_run(results: Results) -> None:
    rows = [r for r in results.table if (r.arm, r.seed) != ("full", 1)]
    worse = [r._replace(mae=9.0) if (r.arm, r.seed) == ("full", 2) else r for r in rows]
    for f in group_errors(Results(results.study, worse)):
        assert f.seeds == 2
        assert f.never == 1
        assert f.steps_to_match.value == pytest.approx((25 + 100) / 2)
    assert group_errors(Results(results.study, select(rows, arm="full"))) == []


def test_an_error_of_nothing_has_no_ratio(results: Results) -> None:
    still = [r._replace(mae=0.0) if r.group == "left_arm" else r for r in results.table]
    found = group_errors(Results(results.study, still))
    assert [f.ratio is None for f in found] == [True, True, False, False]
    assert as_json(found[0])["ratio"] is None


def test_group_rows_do_not_disturb_the_error_of_all_together(results: Results) -> None:
    budget = Budget(50, 100)
    ungrouped = Results(results.study, [r for r in results.table if not r.group])
    assert results.errors("prior", budget) == ungrouped.errors("prior", budget)
    for with_groups, without in zip(
        measure_targets(results.study, results.table),
        measure_targets(ungrouped.study, ungrouped.table),
        strict=True,
    ):
        assert with_groups.value == pytest.approx(without.value)
        assert with_groups[-2:] == without[-2:]


def test_targets_that_need_rollouts_are_left_out(results: Results) -> None:
    found = {f.key: f for f in measure_targets(results.study, results.table)}
    assert list(found) == ["initial_loss", "initial_grad_norm", "steps_to_error"]
    assert found["initial_loss"].value == pytest.approx(10)
    assert "first validation" not in found["steps_to_error"].note
    late = [r for r in results.table if r.step >= 30]
    found = {f.key: f for f in measure_targets(results.study, late)}
    assert "3 seed(s) had reached it at the first validation" in found["steps_to_error"].note


def test_the_report_of_a_robot_without_simulator(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    write_report(results.study, Grid([], ""), list(results.table), page, "study.yaml")
    text = page.read_text()
    names = ("error_by_demonstrations", "error_by_steps", "smoothness")
    assert text.count("](page/") == len(names) + 2  # and the table, twice
    for name in names:
        assert f"(page/{name}.svg)" in text
        ET.parse(tmp_path / "page" / f"{name}.svg")
        with Image.open(tmp_path / "page" / f"{name}.png") as picture:
            assert picture.size[0] >= 800
    assert "The project has no simulator of this robot" in text
    assert "not measured" not in text
    for absent in ("## Every arm", "## By task", "success_by"):
        assert absent not in text
    assert "| g1: left arm | rad | 5 | 100 | 1.1 (1 to 1.2) | 0.88 (0.8 to 0.96) | -20.0 (" in text
    assert "| 0.02 | 0.011 | 0.01 | 25 (25 to 25) | 3 |" in text
    assert "| 50 | 100 | no prior | 8 | 20 | 0.0099 |" in text
    printed = json.loads(capsys.readouterr().out.strip().splitlines()[-1].removeprefix("RESULT "))
    assert "rich" not in printed
    first = printed["errors"][0]
    assert (first["robot"], first["group"], first["unit"]) == ("g1", "left_arm", "rad")
    assert (first["demonstrations"], first["steps"], first["seeds"]) == (5, 100, 3)
    assert first["ratio"]["value"] == pytest.approx(0.8)
    assert len(printed["errors"]) == 4
    again = read_table(tmp_path / "page" / "results.csv")
    assert {(r.group, r.unit) for r in again} == {("", ""), *made_up.GROUPS.items()}


def test_figures_over_one_number_of_demonstrations_are_left_out(
    results: Results, tmp_path: Path
) -> None:
    rows = select(results.table, demonstrations=50, group=["", "left_arm"])
    figures = draw_errors(Results(results.study, rows), tmp_path)
    assert [f.name for f in figures] == ["error_by_steps"]
    assert draw_errors(Results(results.study, select(rows, group="")), tmp_path) == []
