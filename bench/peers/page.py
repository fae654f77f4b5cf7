"""Write the page that compares our policy with LeRobot's: ``python -m bench.peers.page``."""

from collections import defaultdict
from pathlib import Path

from actionprior.files.atomic import write_text
from bench.command_line import run
from bench.peers import recordings
from bench.peers.compare import RESULTS, Row, interval, read_rows
from bench.peers.contenders import CONTENDERS
from bench.peers.recordings import COPY, RecordedRow

PAGE = Path("docs/peers.md")
_HEAD = """\
# Peers at equal CPU time

How often does the robot do the task if our policy and LeRobot's get the same demonstrations and
the same CPU time? Each policy is trained by its own command, `lightning fit` or `lerobot-train`,
for the granted CPU minutes on one core, and rolled out in the same scenes. The row `actionprior`
pays for its features out of the same minutes. `make bench-peers` measures missing rows, and this
page is written from `bench/peers/results.jsonl` by `python -m bench.peers.page`.

- `actionprior` starts from ImageNet features of a public package. No package has weights that
  LeRobot's policies can start from, so their image networks start from random weights. Users with
  access to the hub can give ACT and Diffusion an ImageNet ResNet, which is not measured here.
- ACT and Diffusion read no instruction, so they are given it as a vector that says which pairs of
  neighbouring words it has.
- A policy of LeRobot trains its image network on every image, so that it makes few steps in such a
  time: see the column. With fewer cameras, or on a GPU, it makes more.
- `actionprior` holds out a tenth of the demonstrations of simulated tasks, as its recipe says.
  LeRobot's policies train on all.
- `actionprior_region` sees only the part of the first camera's image in which the robot works
  (`regions`). LeRobot's policies see whole images; some can crop an image's middle. `act_cut` is
  trained on a copy of the demonstrations whose images are cut to the same part.
- `actionprior_scratch` is the same policy from random weights: its image network trains on every
  image, as LeRobot's do, and it learns the instruction's words.
- `_batch8` marks LeRobot's default batch size, which allows more steps in the same time.
- A policy below that has no row was not measured.
- `_default` marks LeRobot's own sizes and rates. Other rows use the options below, which let a
  policy of LeRobot take many more steps in the granted time.
- The rows were measured on several days, beside other work on the machine, which makes a CPU minute
  worth fewer steps.
- Success is the mean over tasks, with the 95 % interval of Wilson over all rollouts of the row's
  seeds; it does not hold the spread between seeds.
"""


_RECORDINGS = """\
## A humanoid's recordings, open loop

No simulator of this robot is here, so nothing says how often it would succeed. Policies are
trained on 50 demonstrations of a Unitree G1 with one camera (`recipes/real/compact.yaml`), and
replay {count} held-out episodes at 10 Hz: every eighth step they see what was recorded and plan
eight actions. The table has the mean absolute error of these actions, with the 95 % interval over
episodes. `copying` holds the last recorded action before each plan. Of the other five robots, one
has images of five episodes and four have none. `python -m bench.peers.recordings` measures missing
rows.
"""


def peers_page(
    results: Path = RESULTS, recorded: Path = recordings.RESULTS, out: Path = PAGE
) -> None:
    """Write the page of two tables of results.

    Args:
        results: Table that `python -m bench.peers` writes.
        recorded: Table that `python -m bench.peers.recordings` writes.
        out: Markdown file to write; an existing one is replaced.
    """
    write_text(page_text(read_rows(results), recordings.read_rows(recorded)), out)


def page_text(rows: list[Row], recorded: list[RecordedRow]) -> str:
    """Return the page of two tables of results, one section for each set of tasks and cameras."""
    by_setting: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Row]] = defaultdict(list)
    for row in rows:
        by_setting[tuple(row.successes), row.cameras].append(row)
    sections = [_section(*setting, found) for setting, found in by_setting.items()]
    sections += [_recordings_section(recorded)] if recorded else []
    return "\n".join([_HEAD, *sections, _options()])


def _section(tasks: tuple[str, ...], cameras: tuple[str, ...], rows: list[Row]) -> str:
    groups: dict[tuple[float, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.minutes, row.policy].append(row)
    names = [task.rpartition("/")[2].removesuffix("-v3") for task in tasks]
    lines = [
        f"## {_number(tasks, 'task')}, {_number(cameras, 'camera')}\n",
        f"Tasks: {', '.join(names)}. Cameras: {', '.join(map(_short, cameras))}.\n",
        f"| granted [CPU min] | policy | spent | steps | parameters | {' | '.join(names)} | "
        "success [%] |",
        "|---" * (6 + len(tasks)) + "|",
    ]
    for (minutes, policy), found in sorted(groups.items()):
        episodes = sum(row.episodes for row in found)
        counts = [f"{sum(row.successes[task] for row in found)} of {episodes}" for task in tasks]
        low, high = interval(found)
        mean = sum(sum(row.successes.values()) for row in found) / (episodes * len(tasks))
        spent = "/".join(f"{row.spent:.0f}" for row in found)
        size = f"{found[0].parameters / 1e6:.1f} M"
        lines.append(
            f"| {minutes:g} | {policy} | {spent} | {found[0].steps} | {size} | "
            f"{' | '.join(counts)} | {100 * mean:.0f} ({100 * low:.0f} to {100 * high:.0f}) |"
        )
    return "\n".join(lines) + "\n"


def _recordings_section(rows: list[RecordedRow]) -> str:
    units = rows[0].units
    groups = [f"{name.replace('_', ' ')} [{unit}]" for name, unit in units.items()]
    lines = [
        _RECORDINGS.format(count=len(rows[0].errors[next(iter(units))])),
        f"| granted [CPU min] | policy | spent | steps | {' | '.join(groups)} |",
        "|---" * (4 + len(units)) + "|",
    ]
    for row in sorted(rows, key=lambda row: (row.minutes, row.policy, row.seed)):
        found = [
            f"{value:.4f} ({low:.4f} to {high:.4f})"
            for value, low, high in recordings.means(row).values()
        ]
        trained = ["", "", ""] if row.policy == COPY else [row.minutes, row.spent, row.steps]
        granted, spent, steps = (f"{number:g}" if number else "" for number in trained)
        lines.append(f"| {granted} | {row.policy} | {spent} | {steps} | {' | '.join(found)} |")
    return "\n".join([*lines, "", *_above_copying(rows)]) + "\n"


def _above_copying(rows: list[RecordedRow]) -> list[str]:
    """Return a line for each policy whose mean error of some group is above copying's."""
    (copied,) = (recordings.means(row) for row in rows if row.policy == COPY)
    lines = []
    for row in rows:
        found = recordings.means(row)
        above = [name for name in copied if found[name].value > copied[name].value]
        if above:
            groups = ", ".join(name.replace("_", " ") for name in above)
            lines.append(
                f"- {row.policy}, {row.minutes:g} minutes: worse than copying in {groups}."
            )
    return lines


def _number(things: tuple[str, ...], name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) > 1)}"


def _short(camera: str) -> str:
    return camera.removeprefix("observation.images.")


def _options() -> str:
    lines = [
        "## Options\n",
        "| policy | options of `lightning fit` or `lerobot-train` |",
        "|---|---|",
    ]
    for name, contender in CONTENDERS.items():
        words = " ".join(f"--{key}={value}" for key, value in contender.options.items())
        cut = f", first camera cut to {list(contender.cut)}" if contender.cut else ""
        lines.append(f"| {name} | `{words}`{cut} |")
    return "\n".join(lines) + "\n"


def main(args: list[str] | None = None) -> None:
    """Write the page."""
    run(peers_page, "peers.page", args)


if __name__ == "__main__":
    main()
