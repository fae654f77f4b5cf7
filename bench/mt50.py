"""Keep the rollouts of MetaWorld's 50 tasks in a table, and print the tables of docs/metaworld.md.

`lightning test` writes each rollout's outcome to `results.json`. The table holds those of all
policies, and a test compares the page with what is printed here.
"""

import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from actionprior.benchmarks.metaworld_tasks import METAWORLD_DIFFICULTY, METAWORLD_MT10
from actionprior.errors import UserError
from actionprior.files.atomic import write_text
from actionprior.rollout.results import wilson_interval
from actionprior.study.statistics import Estimate, success_difference
from bench.command_line import run

TABLE = Path(__file__).parents[1] / "docs" / "metaworld_mt50.csv"
THREE_CAMERAS, QUARTER = ("prior", "no_prior"), ("prior_1500", "no_prior_1500")
"""Policies with three cameras: after all 6,000 steps, and of runs of 1,500 steps."""
ONE_CAMERA, ONE_CAMERA_LONG = ("one_camera",), ("one_camera_prior_20000",)
"""Policies with one camera: without a prior after 6,000 steps, and with one after 20,000."""
COLUMNS: tuple[tuple[str, ...], ...] = (THREE_CAMERAS, QUARTER, ONE_CAMERA_LONG, ONE_CAMERA)
"""Policies of each table by group."""
Outcomes = dict[str, dict[str, str]]  # policy → task → one 0 or 1 per scene


def read_outcomes(table: Path | None = None) -> Outcomes:
    """Read the table; empty if the file is missing."""
    found: Outcomes = {}
    table = table or TABLE
    if table.is_file():
        for row in csv.DictReader(table.read_text("utf-8").splitlines()):
            found.setdefault(row["policy"], {})[row["task"]] = row["outcomes"]
    return found


def add_rollouts(outcomes: Outcomes, policy: str, results: dict[str, Any]) -> None:
    """Add the rollouts of a ``results.json``, in the order of their seeds."""
    for env in results["environments"]:
        episodes = sorted(env["episodes"], key=lambda episode: int(episode["seed"]))
        task = env["env_id"].removeprefix("metaworld/").removesuffix("-v3")
        line = "".join(str(int(episode["success"])) for episode in episodes)
        outcomes.setdefault(policy, {})[task] = line


def tables(outcomes: Outcomes) -> str:
    """Return the tables in Markdown, of the policies that are complete: by group, and by task."""
    complete = [policies for policies in COLUMNS if set(policies) <= outcomes.keys()]
    found = [_by_group(outcomes, policies) for policies in complete]
    by_task = (THREE_CAMERAS, ONE_CAMERA_LONG, ONE_CAMERA)
    found += [_by_task(outcomes, policies) for policies in by_task if policies in complete]
    return "\n\n".join(found)


def _by_group(outcomes: Outcomes, policies: tuple[str, ...]) -> str:
    parts = {f"{name} ({len(g)} tasks)": g for name, g in _groups().items()}
    every = [task for group in parts.values() for task in group]
    means = [_mean_of_groups(outcomes[policy], list(parts.values())) for policy in policies]
    rows = {
        "medium to very hard": every[len(METAWORLD_DIFFICULTY["easy"]) :],
        "all tasks": every,
        "the ten tasks of MT10": _short(METAWORLD_MT10),
    }
    paired = len(policies) == 2
    difference = [f"{means[0].value - means[1].value:+.1f}"] if paired else []
    titles = [f"{_words(policy)} [%]" for policy in policies]
    lines = [
        _line(["group", *titles, *(["difference [points]"] if paired else [])]),
        _line(["---"] * (1 + len(policies) + paired)),
        *(_group_line(name, group, outcomes, policies) for name, group in parts.items()),
        _line(["**mean of groups**", *map(_bold, means), *difference]),
        *(_group_line(name, group, outcomes, policies) for name, group in rows.items()),
    ]
    return "\n".join(lines)


def _by_task(outcomes: Outcomes, policies: tuple[str, ...]) -> str:
    lines = [
        _line(["group", f"succeeded of 10 ({', '.join(map(_words, policies))})"]),
        _line(["---"] * 2),
    ]
    for name, tasks in _groups().items():
        found = (
            f"{task} {' · '.join(str(outcomes[policy][task].count('1')) for policy in policies)}"
            for task in tasks
        )
        lines.append(_line([name, ", ".join(found)]))
    return "\n".join(lines)


def _words(policy: str) -> str:
    for number, words in (("_1500", ", 1,500 steps"), ("_20000", ", 20,000 steps")):
        policy = policy.replace(number, words)
    return policy.replace("_", " ")


def _groups() -> dict[str, list[str]]:
    return {name.replace("_", " "): _short(g) for name, g in METAWORLD_DIFFICULTY.items()}


def _short(tasks: Iterable[str]) -> list[str]:
    return sorted(task.removesuffix("-v3") for task in tasks)


def _mean_of_groups(found: dict[str, str], groups: list[list[str]]) -> Estimate:
    """Return the mean of the groups' rates [%], with a normal interval over the rollouts."""
    rates, variances = [], []
    for tasks in groups:
        outcomes = "".join(found[task] for task in tasks)
        rate = outcomes.count("1") / len(outcomes)
        rates.append(rate)
        variances.append(rate * (1 - rate) / len(outcomes))
    mean = 100 * float(np.mean(rates))
    half = 100 * 1.96 * math.sqrt(sum(variances)) / len(groups)
    return Estimate(mean, mean - half, mean + half)


def _bold(mean: Estimate) -> str:
    return f"**{mean.value:.1f} ({mean.low:.1f} to {mean.high:.1f})**"


def _group_line(name: str, tasks: list[str], outcomes: Outcomes, policies: tuple[str, ...]) -> str:
    cells = [name]
    for policy in policies:
        all_N = "".join(outcomes[policy][task] for task in tasks)
        low, high = wilson_interval(all_N.count("1"), len(all_N))
        rate = f"{100 * all_N.count('1') / len(all_N):.1f}"
        cells.append(f"{rate} ({100 * low:.1f} to {100 * high:.1f})")
    if len(policies) == 1:
        return _line(cells)
    one, other = (
        np.array([[list(map(int, outcomes[policy][task])) for task in tasks]])
        for policy in policies
    )
    value, low, high = (100 * part for part in success_difference(one, other))
    return _line([*cells, f"{value:+.1f} ({low:+.1f} to {high:+.1f})"])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def mt50_tables(add: str = "", results: list[str] | None = None) -> None:
    """Print the tables of docs/metaworld.md, and add a policy's rollouts to their table first.

    Args:
        add: Policy whose rollouts are added, such as `prior` or `no_prior_1500`.
        results: Files `results.json` with its rollouts.

    Raises:
        UserError: The policy is unknown.
    """
    known = [policy for policies in COLUMNS for policy in policies]
    if results and add not in known:
        raise UserError(f"add is {add!r}; expected one of {', '.join(known)} with results")
    outcomes = read_outcomes()
    for file in results or []:
        add_rollouts(outcomes, add, json.loads(Path(file).read_text("utf-8")))
    if results:
        rows = [
            f"{policy},{task},{line}"
            for policy, found in outcomes.items()
            for task, line in sorted(found.items())
        ]
        write_text("\n".join(["policy,task,outcomes", *rows]) + "\n", TABLE)
    print(tables(outcomes))


def main(args: list[str] | None = None) -> None:
    """Run the command: see :func:`mt50_tables` for its options."""
    run(mt50_tables, "mt50", args)


if __name__ == "__main__":
    main()
