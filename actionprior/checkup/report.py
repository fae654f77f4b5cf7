"""Report of findings: a table in the terminal, an HTML page, and pictures of the recordings."""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from actionprior.checkup import LEVELS, Finding
from actionprior.data.store import Recording
from actionprior.embodiment import Embodiment
from actionprior.errors import printable
from actionprior.files.atomic import write_text

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
DRAWN = 3  # number of episodes in a picture
COLUMNS = ("level", "robot", "where", "check", "what")
CSS = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; color: #222; }
table { border-collapse: collapse; margin: 1.5rem 0; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; }
tr { border-bottom: 1px solid #ddd; }
td { overflow-wrap: anywhere; }
tr[class] td:first-child { white-space: nowrap; }
.error { color: #b00020; font-weight: 600; } .warning { color: #8a5a00; } .note { color: #666; }
img { max-width: 100%; margin: 1.5rem 0; display: block; }
code { background: #f3f3f3; padding: 0 .2rem; user-select: all; }
figure { display: inline-block; margin: 0 1rem 0 0; } figure img { margin: 0; }
figcaption { font-size: 12px; color: #666; }
.features td:nth-child(n+4) { white-space: nowrap; }
"""


def print_table(findings: Sequence[Finding]) -> None:
    """Print a row per finding, in their order, and a line with the number of each level."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=False)
    for name in COLUMNS:
        table.add_column(name, overflow="fold")
    for f in findings:
        # `Text` keeps rich from reading names in the data as markup.
        *cells, message, advice = _cells(f)
        cells.append(f"{message}\n→ {advice}" if advice else message)
        table.add_row(*map(Text, cells), style=STYLES[f.level])
    console = Console(width=140)
    console.print(table)
    console.print(_counts(findings))


def write_html(
    findings: Sequence[Finding],
    pictures: Sequence[Path],
    path: Path,
    title: str = "lightning doctor",
    more: str = "",
    first: str = "",
) -> None:
    """Write a page that needs no other file: counts, table and pictures.

    Args:
        findings: Findings of the table.
        pictures: Images below the table.
        path: File to write.
        title: Title of the page.
        more: HTML between table and pictures.
        first: HTML before the table.
    """
    rows = [_row(f) for f in sorted(findings, key=lambda f: LEVELS.index(f.level))]
    drawn = [
        f'<img alt="{html.escape(printable(picture.stem))}" src="data:image/png;base64,'
        f'{base64.b64encode(picture.read_bytes()).decode()}">'
        for picture in pictures
    ]
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    page = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>' + f"{title}</title>",
        f"<style>{CSS}</style><h1>{title}</h1>",
        first,
        f"<p>{_counts(findings)}</p>",
        f"<table><thead><tr>{head}</thead><tbody>",
        *rows,
        "</tbody></table>",
        more,
        *drawn,
        "</html>",
    ]
    write_text("\n".join(page) + "\n", path)


def _row(f: Finding) -> str:
    """Return a row of the page's table, with options and lines to paste as code."""
    *cells, message, advice = map(html.escape, _cells(f))
    advice = re.sub("`([^`]*)`", r"<code>\1</code>", advice)
    cells.append(f"{message}<br>→ {advice}" if advice else message)
    return f'<tr class="{f.level}">' + "".join(f"<td>{cell}</td>" for cell in cells)


def _cells(f: Finding) -> tuple[str, ...]:
    place = [Path(f.dataset).name] if f.dataset else []
    place += [f"episode {f.episode}"] if f.episode >= 0 else []
    place += [f"frame {f.frame}"] if f.frame >= 0 else []
    message = f"{f.feature}: {f.message}" if f.feature else f.message
    cells = f.level, f.robot, ", ".join(place), f.check, message, f.advice
    return tuple(map(printable, cells))  # names of a dataset may hold control characters


def _counts(findings: Sequence[Finding]) -> str:
    counts = {level: sum(f.level == level for f in findings) for level in LEVELS}
    return ", ".join(f"{n} {level}{'s' * (n != 1)}" for level, n in counts.items())


def draw(robot: Embodiment, recording: Recording, path: Path) -> None:
    """Draw the longest episodes' actions over time and their histograms, one row per group."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    stop_E = np.cumsum(recording.lengths_E)
    longest = np.argsort(recording.lengths_E)[::-1][:DRAWN]
    action_ND = recording.action_Na[:]
    rows = len(robot.action)
    figure, axes = plt.subplots(
        rows, 2, figsize=(11, 2.6 * rows), squeeze=False, width_ratios=(3, 1), layout="constrained"
    )
    first = 0
    for (left, right), group in zip(axes, robot.action, strict=True):
        columns = slice(first, first + len(group.features))
        first = columns.stop
        begin = 0.0
        for episode in longest:
            stop, length = int(stop_E[episode]), int(recording.lengths_E[episode])
            seconds = begin + np.arange(length) / robot.control_hz
            left.set_prop_cycle(None)
            left.plot(seconds, action_ND[stop - length : stop, columns], linewidth=1)
            left.axvline(begin, color="0.8", linewidth=0.8)
            begin = float(seconds[-1]) + 1 / robot.control_hz
        unit = f" [{group.unit}]" if group.unit else ""
        left.set(ylabel=f"{group.name}{unit}", xlabel="s")
        for entry, feature in enumerate(group.features):
            values = action_ND[:, columns][:, entry]
            right.hist(values, bins=60, histtype="step", orientation="horizontal", label=feature)
        right.set(xscale="log", xlabel="frames")
        right.legend(fontsize=6, frameon=False)
        for axis in (left, right):
            axis.spines[["top", "right"]].set_visible(False)
    numbers = ", ".join(str(int(e)) for e in longest)
    figure.suptitle(f"{robot.name}: actions of episodes {numbers} of {len(stop_E)}")
    figure.savefig(path, dpi=110)
    plt.close(figure)
