"""Print the README's table of what the prior gives, from the tables of the committed studies.

A test compares it with the README, so that no figure there is typed by hand.
"""

from pathlib import Path
from typing import NamedTuple

from actionprior.errors import UserError
from actionprior.rollout.results import wilson_interval
from actionprior.study.arm_summaries import summary_at
from actionprior.study.plan import Study
from actionprior.study.results import Budget, Results
from actionprior.study.statistics import Estimate
from actionprior.study.table import read_table
from bench.command_line import run
from bench.mt50 import QUARTER, THREE_CAMERAS, read_outcomes

ROOT = Path(__file__).parents[1]
HEAD = "| setting | with the prior | without |\n|---|---|---|"


class ReadmeRow(NamedTuple):
    """A comparison of two arms of a study at one budget."""

    setting: str  # may name the number of rollouts per arm, {rollouts}
    study: str
    budget: Budget
    arm: str = "full"
    bold: bool = False  # the headline


ROWS = (
    ReadmeRow(
        "[`make study`](docs/study_small.md), {rollouts} rollouts each",
        "small",
        Budget(50, 600),
        bold=True,
    ),
    ReadmeRow(
        "[a robot that Stage 1 never saw](docs/study_ablation.md)",
        "ablation",
        Budget(50, 600),
        "without_target",
    ),
    ReadmeRow(
        "[thirteen tasks, five robots](docs/study.md), {rollouts} rollouts each",
        "study",
        Budget(50, 1500),
    ),
    ReadmeRow(
        "[six MetaWorld tasks](docs/results.md#metaworld), pretrained eyes, 500 steps",
        "metaworld_compact",
        Budget(50, 500),
    ),
    ReadmeRow("the same, 2,500 steps", "metaworld_compact", Budget(50, 2500)),
)


def readme_table() -> str:
    """Return the table in Markdown.

    Raises:
        UserError: A study or its table is missing or damaged.
    """
    return "\n".join([HEAD, *map(_line, ROWS), *_mt50_lines()])


def _line(row: ReadmeRow) -> str:
    page = "study" if row.study == "study" else f"study_{row.study}"
    study = Study.read(str(ROOT / "recipes" / "study" / f"{row.study}.yaml"))
    results = Results(study, read_table(ROOT / "docs" / page / "results.csv"))
    found = [summary_at(results, arm, row.budget) for arm in (row.arm, "no_prior")]
    one, other = found
    if one is None or other is None:
        raise UserError(f"docs/{page}/results.csv has no rollouts of {row.arm} at {row.budget}")
    setting = row.setting.format(rollouts=f"{one.rollouts:,}")
    cells = (_shown(summary.success, row.bold) for summary in (one, other))
    return "| " + " | ".join([setting, *cells]) + " |"


def _mt50_lines() -> list[str]:
    page = "docs/metaworld.md#ten-demonstrations-three-cameras"
    short = f"[MetaWorld's 50 tasks]({page}), ten demonstrations, one seed, 1,500 steps"
    outcomes, lines = read_outcomes(), []
    for setting, pair in ((short, QUARTER), ("the same, 6,000 steps", THREE_CAMERAS)):
        cells = [setting]
        for policy in pair:
            all_N = "".join(outcomes[policy].values())
            interval = wilson_interval(all_N.count("1"), len(all_N))
            cells.append(_shown(Estimate(all_N.count("1") / len(all_N), *interval), bold=False))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _shown(rate: Estimate, bold: bool) -> str:
    value = f"{100 * rate.value:.1f} %"
    return f"{f'**{value}**' if bold else value} ({100 * rate.low:.1f} to {100 * rate.high:.1f})"


def print_table() -> None:
    """Print the table."""
    print(readme_table())


def main(args: list[str] | None = None) -> None:
    """Run the command; it has no options."""
    run(print_table, "readme_results", args)


if __name__ == "__main__":
    main()
