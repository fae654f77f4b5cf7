"""What the doctor found, as a table, and what a recording looks like, as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from actionprior.checkup import Finding
from actionprior.embodiment import Embodiment
from actionprior.trajectories import Recording

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
DRAWN = 3  # episodes


def print_table(findings: Sequence[Finding]) -> None:
    """One row a finding, errors first in each recording, and a line that counts them."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_lines=False)
    for name in ("level", "robot", "where", "check", "what"):
        table.add_column(name, overflow="fold")
    for f in findings:
        place = [Path(f.dataset).name] if f.dataset else []
        place += [f"episode {f.episode}"] if f.episode >= 0 else []
        place += [f"frame {f.frame}"] if f.frame >= 0 else []
        said = f"{f.feature}: {f.message}" if f.feature else f.message
        style = STYLES[f.level]
        table.add_row(f.level, f.robot, ", ".join(place), f.check, said, style=style)
    console = Console(width=140)
    console.print(table)
    counts = {level: sum(f.level == level for f in findings) for level in STYLES}
    console.print(", ".join(f"{n} {level}{'s' * (n != 1)}" for level, n in counts.items()))


def draw(robot: Embodiment, recording: Recording, path: Path) -> None:
    """The longest episodes' actions over time, and the values' histogram, a row a group."""
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
