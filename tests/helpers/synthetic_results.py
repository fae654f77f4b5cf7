"""A study, and results tables made from known success rates and errors."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from actionprior.study.plan import Study
from actionprior.study.table import ResultRow

TASKS = ["suite/Reach-v0", "suite/Push-v0", "suite/Tap-v0"]


def plan(folder: Path) -> Study:
    off = {"model.history": "off"}
    arms = {
        "no_prior": {"prior": "base", "overrides": {"model.use_prior": False, **off}},
        "full": {"prior": "base", "overrides": off, "tuning": "three learning rates"},
        "full_history": {"prior": "base", "label": "full + history"},
        "history_mlp": {"prior": "base"},
        **{name: {"prior": "base"} for name in ("decay_10", "whole_run")},
        **{name: {"prior": name} for name in ("shuffled", "noise", "quarter")},
    }
    study = {
        "stage1": {"recipe": "recipes/pretrain.yaml"},
        "stage2": {"recipe": "recipes/finetune.yaml"},
        "priors": {"base": None, "shuffled": None, "noise": None, "quarter": None},
        "arms": arms,
        "cells": [
            {"arms": list(arms), "seeds": [0, 1, 2], "demonstrations": [5, 50], "steps": [100]}
        ],
        "roles": {"prior": "full", "history": "full_history"},
        "groups": {"tail": TASKS[1:2], "memory": TASKS[2:]},
        "sweeps": {"Stage-1 data": {"x": "share", "arms": {"quarter": "¼", "full": 1}}},
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study, sort_keys=False))
    return Study.read(str(file))


RATES = {
    "no_prior": 0.3,
    "full": 0.6,
    "full_history": 0.75,
    "history_mlp": 0.55,
    "decay_10": 0.62,
    "whole_run": 0.4,
    "shuffled": 0.3,
    "noise": 0.28,
    "quarter": 0.55,
}


def table(seeds: int = 3, rollouts: int = 60, demonstrations: tuple[int, ...] = (5, 50)) -> list:
    """Make a table in which success rises with steps and demonstrations.

    The arm ``full`` reaches each error in a quarter of the steps of ``no_prior``.
    """
    rows = []
    for index, (arm, rate) in enumerate(RATES.items()):
        for seed in range(seeds):
            for shown in demonstrations:
                rows += _cell(index, arm, rate * (0.5 + 0.01 * shown), seed, shown, rollouts)
    return rows


def _cell(
    index: int, arm: str, rate: float, seed: int, shown: int, rollouts: int
) -> list[ResultRow]:
    rng, rows = np.random.default_rng([index, seed, shown]), []
    speed = 1 if arm == "no_prior" else 4

    def row(step: int, task: str, outcomes: str) -> ResultRow:
        return ResultRow(
            cell=f"{arm}{seed}{shown}",
            arm=arm,
            part="",
            prior="base",
            prior_seed=0,
            seed=seed,
            demonstrations=shown,
            steps=100,
            step=step,
            task=task,
            robot="panda" if task else "",
            group="",
            unit="",
            rollouts=len(outcomes),
            successes=outcomes.count("1"),
            outcomes=outcomes,
            first_scene=1000 if task else 0,
            latency_ms=(10.1 if "history" in arm else 10.0) if task else float("nan"),
            val_mae=1 / (1 + speed * step),
            mae=float("nan"),
            bend=float("nan"),
            bend_recorded=float("nan"),
            initial_loss=8.0 if arm == "no_prior" else 0.8,
            initial_grad_norm=20.0 if arm == "no_prior" else 2.0,
            stage1_seconds=0.0 if arm == "no_prior" else 20.0,
            stage2_seconds=float(step),
            revision="abc",
            configuration="{}",
        )

    rows = [row(step, "", "") for step in range(5, 101, 5)]
    for step in range(10, 101, 10):
        share, count = 1 - np.exp(-speed * step / 40), rollouts if step == 100 else rollouts // 3
        for task in TASKS:
            rows.append(row(step, task, "".join("01"[x] for x in rng.random(count) < rate * share)))
    return rows


GROUPS = {"left_arm": "rad", "right_hand": ""}


def open_loop_table(seeds: int = 3) -> list[ResultRow]:
    """Make the table of a robot without a simulator.

    At the end, the error with the prior is 0.8 of that without. It falls below the final error
    without the prior at step 25. Without the prior, chunks bend twice as much as recorded ones.
    """
    rows = []
    for row in table(seeds, rollouts=3):
        if row.arm in ("no_prior", "full") and not row.task:
            rows += [row, *(_group_row(row, group, unit) for group, unit in GROUPS.items())]
    return rows


def _group_row(row: ResultRow, group: str, unit: str) -> ResultRow:
    error = (1 + 0.1 * row.seed) * 5 / row.demonstrations  # differs by seed, the same in both arms
    error *= 2 - row.step / 100 if row.arm == "no_prior" else 1.2 - 0.4 * min(1, row.step / 50)
    return row._replace(
        robot="g1",
        group=group,
        unit=unit,
        val_mae=float("nan"),
        mae=error,
        bend=0.02 if row.arm == "no_prior" else 0.011,
        bend_recorded=0.01,
    )


PROJECT = Path(__file__).parents[2]

PLAIN: dict[str, Any] = {
    "stage1": {"recipe": str(PROJECT / "recipes/pretrain.yaml")},
    "stage2": {"recipe": str(PROJECT / "recipes/finetune.yaml")},
    "ground": {"robots": ["panda"], "steps": 3},
    "priors": {"base": None, "shuffled": {"data.shuffle_time": True}},
    "arms": {
        "no_prior": {"prior": "base", "overrides": {"model.use_prior": False}},
        "full": {"prior": "base"},
        "shuffled": {"prior": "shuffled"},
    },
    "cells": [
        {"arms": ["no_prior", "full"], "seeds": [0, 1], "demonstrations": [5, 9], "steps": [60]},
        {"arms": ["full", "shuffled"], "seeds": [0], "demonstrations": [9], "steps": [60]},
    ],
}


def study(folder: Path, **parts: Any) -> Study:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(PLAIN | parts, sort_keys=False))
    return Study.read(str(file))
