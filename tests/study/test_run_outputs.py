"""What a run wrote is read back, and becomes rows."""

import json
import math
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from actionprior.errors import UserError
from actionprior.study.finished_cells import FinishedCell, assemble, finished_file, rows_from_run
from actionprior.study.grid import make_grid
from actionprior.study.recipe import StudyError
from actionprior.study.run_outputs import LoggedCurve, measure, seconds_per_step, stage1_seconds
from tests.helpers.synthetic_results import study

RECIPE = {
    "model": {},
    "trainer": {
        "callbacks": [
            {
                "class_path": "callbacks.RolloutEvaluation",
                "init_args": {"embodiment": {"a/Reach": "panda", "a/Lift": "kuka"}},
            }
        ]
    },
}


def fake_run(folder: Path) -> None:
    """A log folder as a run of 20 steps leaves it: a step takes 2 s, a pause 100 s."""
    log_dir, clock = folder / "lightning_logs" / "version_0", 0.0
    with SummaryWriter(str(log_dir)) as writer:
        for k in range(20):
            clock += 100 if k == 10 else 2
            writer.add_scalar("train/loss", 1.0, k, walltime=clock)
            writer.add_scalar("train/loss_pred", 4.0 if k < 10 else 1.0, k, walltime=clock)
            writer.add_scalar("train/grad_norm", 8.0, k, walltime=clock)
            if k in (9, 19):
                writer.add_scalar("val/mae_normalized", 0.5 - 0.01 * k, k, walltime=clock)
                for group in ("left_arm_rad", "gripper", "left_tool"):
                    writer.add_scalar(f"val/kuka/mae_{group}", 0.25 * (k == 9) + 0.5, k)
                    writer.add_scalar(f"val/kuka/bend_predicted_{group}", 0.125, k)
                    writer.add_scalar(f"val/kuka/bend_recorded_{group}", 0.0625, k)
    for tag, step, outcomes in (
        ("curves", 10, "01"),
        ("curves", 20, "11"),
        ("rollouts", 20, "1101"),
    ):
        episodes = [
            {"seed": 7 + k, "success": c == "1", "latency_ms": 3.0 + k}
            for k, c in enumerate(outcomes)
        ]
        target = log_dir / tag / f"step_{step:08d}"
        target.mkdir(parents=True)
        names = ("a/Reach", "a/Lift")
        environments = [{"env_id": name, "episodes": episodes} for name in names]
        content = {"step": step, "environments": environments}
        (target / "results.json").write_text(json.dumps(content))


def test_a_run_is_read_back(tmp_path: Path) -> None:
    fake_run(tmp_path)
    found = measure(tmp_path, RECIPE)
    assert (found.initial_loss, found.initial_grad_norm) == (4, 8)
    assert found.seconds_per_step == pytest.approx(2)
    assert stage1_seconds(tmp_path, 30) == pytest.approx(60)
    kinds = [(m.step, m.task, m.robot, m.outcomes) for m in found.measurements if not m.group]
    assert kinds == [
        (10, "", "", ""),
        (20, "", "", ""),
        (10, "a/Reach", "panda", "01"),
        (10, "a/Lift", "kuka", "01"),
        # At the end the final rollouts count, which are more than the curve's.
        (20, "a/Reach", "panda", "1101"),
        (20, "a/Lift", "kuka", "1101"),
    ]
    known = [m.val_mae for m in found.measurements if not m.group]
    assert known[:3] == pytest.approx([0.41, 0.31, 0.41])
    assert found.measurements[-1].first_scene == 7
    assert found.measurements[-1].latency_ms == 4.5


def test_errors_by_group_are_read_at_the_end_and_without_rollouts_all_along(
    tmp_path: Path,
) -> None:
    fake_run(tmp_path)
    groups = [m for m in measure(tmp_path, RECIPE).measurements if m.group]
    # Of a unit a tag does not say where it begins: left_tool has none, as the recipe knows.
    assert {(m.step, m.group, m.unit) for m in groups} == {
        (20, "left_arm", "rad"),
        (20, "gripper", ""),
        (20, "left", "tool"),
    }
    action = [{"name": "left_arm"}, {"name": "gripper"}, {"name": "left_tool"}]
    recipe = {"data": {"init_args": {"embodiments": [{"action": action}]}}}
    open_loop = measure(tmp_path, recipe).measurements
    groups = [m for m in open_loop if m.group == "left_tool"]
    assert [(m.step, m.robot, m.unit, m.mae) for m in groups] == [
        (10, "kuka", "", 0.75),
        (20, "kuka", "", 0.5),
    ]
    assert {(m.bend, m.bend_recorded, m.task) for m in groups} == {(0.125, 0.0625, "")}
    assert all(math.isnan(m.val_mae) for m in groups)
    assert [m.step for m in open_loop if not m.task and not m.group] == [10, 20]


def test_a_run_without_its_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="expected the logs of a fit"):
        measure(tmp_path, RECIPE)
    with SummaryWriter(str(tmp_path / "lightning_logs" / "version_0")) as writer:
        writer.add_scalar("train/loss_pred", 1.0, 0)
    with pytest.raises(StudyError, match="holds no rollouts"):
        measure(tmp_path, RECIPE)
    assert math.isnan(seconds_per_step(LoggedCurve([1], [1.0], [0.0])))


def test_a_finished_cell_becomes_rows_here_or_from_an_earlier_table(tmp_path: Path) -> None:
    fake_run(tmp_path / "run")
    plan = study(tmp_path)
    grid = make_grid(plan)
    none, full = grid.cells[0], grid.cells[1]
    assert (none.arm, full.arm) == ("no_prior", "full")
    finished = FinishedCell(measure(tmp_path / "run", RECIPE), 30.0, "abc")
    for cell in (none, full):
        finished_file(tmp_path, cell).parent.mkdir(parents=True)
        finished.write(finished_file(tmp_path, cell))
    rows = assemble(plan, grid, tmp_path, [])
    again = assemble(plan, grid, tmp_path / "elsewhere", rows)
    assert list(map(str, again)) == list(map(str, rows))  # NaN equals nothing
    assert [r.group for r in rows if r.arm == "full" and r.group]
    assert {r.cell for r in rows} == {none.id, full.id}
    assert {r.stage1_seconds for r in rows if r.arm == "full"} == {30}
    assert {r.stage1_seconds for r in rows if r.arm == "no_prior"} == {0}  # it starts from nothing
    last = rows_from_run(plan, full, finished)[-1]
    assert (last.rollouts, last.successes, last.stage2_seconds) == (4, 3, pytest.approx(40))
    assert json.loads(last.configuration) == {"arm": {}, "prior": {}}


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"measured": {"seconds_a_step": 1}}'])
def test_a_damaged_result_of_a_cell_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "finished.json").write_text(content)
    with pytest.raises(UserError, match=r"finished\.json (cannot be read|is no result of a cell)"):
        FinishedCell.read(tmp_path / "finished.json")
