"""Targets, tables, figures and page, from a table whose truth is known."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actionprior.study.arm_summaries import seconds_of, summaries
from actionprior.study.figures import draw_all
from actionprior.study.page import value_and_interval, write_page
from actionprior.study.recipe import StudyError
from actionprior.study.results import Budget, Results
from actionprior.study.table import by_seed, paired, read_table, select, write_table
from actionprior.study.targets import measure_targets
from tests.helpers import synthetic_results as made_up


def test_each_target_is_what_the_table_was_made_with(tmp_path: Path) -> None:
    found = {f.key: f for f in measure_targets(made_up.plan(tmp_path), made_up.table())}
    assert found["initial_loss"].value == pytest.approx(10)
    assert found["initial_grad_norm"].value == pytest.approx(10)
    assert found["steps_to_error"].value == pytest.approx(3)  # 30 against 7.5: validated at 10
    assert found["latency"].value == pytest.approx(1)
    for key, truth in {
        "early_success": 100 * (0.6 * 0.632 - 0.3 * 0.221),
        "tail": 30,
        "rich": 30,
        "history": 15,
        "whole_run": -22,
    }.items():
        assert abs(found[key].value - truth) < 10, key
        assert found[key].low < found[key].value < found[key].high
        assert found[key].seeds == 3
    assert found["demonstrations"].value == 5  # 0.55 × 0.6 is more than 0.3
    # Its worst time is the first: 0.6 (1 - exp(-4 · 13 / 40)) against 0.3 (1 - exp(-33 / 40)).
    assert found["equal_compute"].value == pytest.approx(27, abs=10)
    assert not found["initial_grad_norm"].met
    for key in ("initial_loss", "steps_to_error", "early_success", "rich", "controls"):
        assert found[key].met, key
    for key in ("demonstrations", "latency", "whole_run"):
        assert found[key].met, key
    assert found["tail"].rollouts == 2 * 3 * 60
    assert all(isinstance(f.met, bool) for f in found.values())  # JSON knows no other kind


def test_parts_of_a_study_count_as_one_run(tmp_path: Path) -> None:
    study = replace(made_up.plan(tmp_path), parts={"first": {}, "second": {}})
    rows = [
        row._replace(part=part, val_mae=row.val_mae * (1 if part == "first" else 3))
        for part, tasks in (("first", ["", made_up.TASKS[0]]), ("second", ["", *made_up.TASKS[1:]]))
        for row in select(made_up.table(), task=tasks)
    ]
    whole, parted = Results(made_up.plan(tmp_path), made_up.table()), Results(study, rows)
    budget = Budget(50, 100)
    assert parted.errors("prior", budget)[0][100] == pytest.approx(
        2 * whole.errors("prior", budget)[0][100]
    )
    assert seconds_of(parted, "full", budget) == (20, 200)
    assert seconds_of(whole, "full", budget) == (20, 100)
    keys = ("rich", "tail", "history", "whole_run")
    one, other = (
        {f.key: f.value for f in measure_targets(r.study, r.table)} for r in (whole, parted)
    )
    assert {k: one[k] for k in keys} == {k: other[k] for k in keys}
    # A seed of which a part is not finished does not count.
    begun = [r for r in rows if (r.seed, r.part) != (2, "second")]
    assert {r.seed for r in Results(study, begun).final("prior", budget)} == {0, 1}
    assert set(Results(study, begun).errors("prior", budget)) == {0, 1}
    of_both = Results(study, [r for r in rows if r.seed < 2])
    whole_seeds = measure_targets(study, of_both.table)
    assert measure_targets(study, begun) == whole_seeds
    # Every part is a cell: 9 arms, 2 numbers of demonstrations, 5 finished parts of 3 seeds.
    write_page(Results(study, begun), [], [], tmp_path / "page.md", "study.yaml", 108)
    text = (tmp_path / "page.md").read_text()
    assert "| finished cells | 90 of 108, " in text
    assert "other parts of their runs are not finished | 18 |" in text
    write_page(of_both, [], [], tmp_path / "both.md", "study.yaml", 108)
    tables = [
        (tmp_path / f"{name}.md").read_text().partition("## ")[2] for name in ("page", "both")
    ]
    assert tables[0] == tables[1]


def test_parts_have_equal_weight_whatever_their_number_of_tasks(tmp_path: Path) -> None:
    study = replace(made_up.plan(tmp_path), parts={"first": {}, "second": {}})
    rows = [
        row._replace(part=part, initial_loss=loss)
        for part, tasks, loss in (
            ("first", ["", made_up.TASKS[0]], 1.0),
            ("second", ["", *made_up.TASKS[1:]], 3.0),
        )
        for row in select(made_up.table(), task=tasks)
    ]
    assert by_seed(select(rows, arm="full"), "initial_loss") == {0: 2.0, 1: 2.0, 2: 2.0}
    (found,) = (f for f in measure_targets(study, rows) if f.key == "initial_loss")
    assert found.value == pytest.approx(1)


def test_a_seed_without_a_curve_takes_no_lead_from_the_others(tmp_path: Path) -> None:
    study, rows = made_up.plan(tmp_path), made_up.table()
    kept = [r for r in rows if r.seed != 2 or not r.task or r.step == r.steps]
    some, none = (
        {f.key: f for f in measure_targets(study, found)}["equal_compute"]
        for found in (kept, [r for r in rows if not r.task or r.step == r.steps])
    )
    assert some.seeds == 2
    assert some.rollouts == 2 * 2 * 3 * (9 * 20 + 60)  # arms, seeds, tasks
    assert some.value is not None
    assert "success was not measured along the runs" in none.note


def test_one_seed_has_no_interval_over_seeds(tmp_path: Path) -> None:
    found = {f.key: f for f in measure_targets(made_up.plan(tmp_path), made_up.table(seeds=1))}
    for key in ("initial_loss", "equal_compute", "demonstrations", "latency"):
        assert value_and_interval(found[key])[1] == "one seed", key
    assert " to " in value_and_interval(found["rich"])[1]  # of its rollouts


def test_what_is_missing_is_said_and_not_made_up(tmp_path: Path) -> None:
    study = made_up.plan(tmp_path)
    rows = select(made_up.table(), arm=["full"])
    for finding in measure_targets(study, rows):
        assert (finding.value, finding.met, finding.seeds) == (None, None, 0)
        assert finding.note.startswith("not measured: ")
    found = {
        f.key: f for f in measure_targets(study, select(made_up.table(), arm=["full", "no_prior"]))
    }
    assert found["rich"].met
    assert "have no finished cell in common" in found["history"].note
    assert found["controls"].note == "not measured: no control is finished"


def test_a_control_that_gains_is_reported(tmp_path: Path) -> None:
    rows = made_up.table()
    rows = [r._replace(arm="noise") for r in select(rows, arm="full")] + [
        r for r in rows if r.arm != "noise"
    ]
    found = {f.key: f for f in measure_targets(made_up.plan(tmp_path), rows)}
    assert found["controls"].met is False
    assert found["controls"].value == pytest.approx(30, abs=8)


def test_arms_pair_where_both_have_seed_and_task() -> None:
    rows = [r for r in made_up.table(demonstrations=(50,)) if r.task and r.step == r.steps]
    full, none = (select(rows, arm=arm) for arm in ("full", "no_prior"))
    pair = paired([full, [r for r in none if r.seed != 1]])
    assert pair is not None
    assert (pair.seeds, pair.tasks) == ([0, 2], sorted(made_up.TASKS))
    assert [o.shape for o in pair.outcome_STN] == [(2, 3, 60)] * 2
    # A seed without one of its tasks does not count: means would not be comparable.
    pair = paired([full, [r for r in none if (r.seed, r.task) != (1, made_up.TASKS[0])]])
    assert pair is not None
    assert pair.seeds == [0, 2]
    assert paired([full, []]) is None
    with pytest.raises(StudyError, match="several rows"):
        paired([full + full[:1]])
    with pytest.raises(StudyError, match="nothing pairs"):
        paired([full, [r._replace(first_scene=7) for r in none]])


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_table_is_read_back_as_written(tmp_path: Path, suffix: str) -> None:
    rows = made_up.table(seeds=1, rollouts=6)
    write_table(rows, tmp_path / "deep" / "results")
    again = read_table(tmp_path / "deep" / f"results{suffix}")
    assert len(again) == len(rows)
    for before, after in zip(rows, again, strict=True):
        for name, x, y in zip(before._fields, before, after, strict=True):
            assert x == y or (x != x and y != y), name
    assert {p.name for p in (tmp_path / "deep").iterdir()} == {"results.csv", "results.parquet"}


def test_a_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(StudyError, match="it lacks the columns"):
        read_table(tmp_path / "x.csv")


def test_a_long_name_of_an_arm_leaves_the_figure_whole(tmp_path: Path) -> None:
    study = made_up.plan(tmp_path)
    name = "prior, aligned for half of the run, at a fifth of the rate"
    named = replace(study, arms=study.arms | {"full": replace(study.arms["full"], label=name)})
    draw_all(Results(named, made_up.table()), tmp_path)
    with Image.open(tmp_path / "arms.png") as picture:
        edge = np.asarray(picture.convert("L"))[:, -3:]
    assert (edge == 255).all(), "the title reaches the edge"


def test_figures_and_page_need_only_the_table(tmp_path: Path) -> None:
    study, rows = made_up.plan(tmp_path), made_up.table()
    results = Results(study, rows)
    figures = draw_all(results, tmp_path / "page")
    names = {figure.name for figure in figures}
    assert names == {
        "success_by_steps",
        "success_by_demonstrations",
        "error_by_steps",
        "arms",
        "sweep_stage_1_data",
    }
    for name in names:
        with Image.open(tmp_path / "page" / f"{name}.png") as picture:
            assert picture.size[0] >= 800
        ET.parse(tmp_path / "page" / f"{name}.svg")
    page = tmp_path / "page.md"
    write_page(results, measure_targets(study, rows), figures, page, "study.yaml", 60)
    text = page.read_text()
    assert "| finished cells | 54 of 60, of 54 different runs |\n| seeds | [0, 1, 2] (" in text
    for figure in figures:
        assert f"(page/{figure.name}.svg)" in text
    for arm in study.arms:
        assert f"| {study.label(arm)} |" in text
    assert '| full | `model.history: "off"` | base: no change | three learning rates |' in text


def test_an_arm_is_summed_up_at_each_budget(tmp_path: Path) -> None:
    results = Results(made_up.plan(tmp_path), made_up.table())
    found = {(s.arm, s.budget): s for s in summaries(results)}
    full = found["full", Budget(50, 100)]
    assert full.success.low < 0.6 < full.success.high
    assert full.improvement is not None
    assert full.improvement.value > 0.9
    assert found["no_prior", Budget(50, 100)].difference is None
    against_none = full.difference
    assert against_none is not None
    assert against_none.value == pytest.approx(0.3, abs=0.08)
    assert len(found) == 2 * len(made_up.RATES)


def test_arms_are_held_against_the_reference_that_the_study_names(tmp_path: Path) -> None:
    study = replace(made_up.plan(tmp_path), roles={"reference": "full"}, title="Who is best?")
    study.arms["full"] = replace(study.arms["full"], label="the best")
    rows = made_up.table()
    results = Results(study, rows)
    found = {(s.arm, s.budget): s for s in summaries(results)}
    assert found["full", Budget(50, 100)].difference is None
    none = found["no_prior", Budget(50, 100)].difference
    assert none is not None
    assert none.high < 0
    page = tmp_path / "page.md"
    unmeasured = [f._replace(value=None) for f in measure_targets(study, rows)]
    write_page(results, unmeasured, [], page, "study.yaml", 60)
    text = page.read_text()
    assert text.startswith("# Who is best?\n")
    assert "| over the best [points] |" in text
    assert "## Targets" not in text  # there is nothing to report
