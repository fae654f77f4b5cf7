"""First part of the report: what a dataset holds, its features, and what its cameras see.

Axes: N frames, E episodes, T frames of the drawn episode.
"""

import base64
import html
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actionprior.checkup.images import Camera
from actionprior.checkup.subject import Subject
from actionprior.embodiment import FloatArray
from actionprior.errors import UserError, printable

POINTS, WIDTH, HEIGHT = 120, 160, 28  # of a sparkline
SHOWN, EDGE = 3, 160  # thumbnails per camera, and their longest edge [pixels]
NUMBERS = ("lowest", "1 %", "median", "99 %", "highest")


class Overview(NamedTuple):
    """Numbers about one dataset.

    Attributes:
        robot: Name of the robot.
        dataset: Name of the dataset.
        episodes: Number of episodes that are examined.
        excluded: Number of episodes that the recipe excludes.
        frames: Number of frames.
        hours: Duration by the frame rate.
        hz: Frame rate that the checks assume.
        measured_hz: Median frame rate by the timestamps; None without them.
        lengths: Lowest, median and highest number of frames of an episode.
        instructions: Number of different instructions.
        section: HTML of the features and cameras.
    """

    robot: str
    dataset: str
    episodes: int
    excluded: int
    frames: int
    hours: float
    hz: float
    measured_hz: float | None
    lengths: tuple[int, int, int]
    instructions: int
    section: str

    def html(self) -> str:
        """Return the dataset's section of the page."""
        return f"<h2>{cell(self.robot)}: {cell(self.dataset)}</h2>\n{self.section}"

    def line(self) -> str:
        """Return the numbers as a line for the terminal."""
        measured = "" if self.measured_hz is None else f" ({self.measured_hz:.4g} by timestamps)"
        return printable(
            f"{self.robot} {self.dataset}: {self.episodes} episodes"
            f"{f' of {self.episodes + self.excluded}' * (self.excluded > 0)}, {self.frames:,} "
            f"frames, {self.hours:.2f} h at {self.hz:g} Hz{measured}"
        )


def overview(subject: Subject, cameras: Sequence[Camera]) -> Overview:
    """Summarise a dataset and draw its features and cameras."""
    frames, hz = len(subject.action_ND), subject.robot.control_hz
    lengths = np.sort(subject.lengths_E)
    tasks = subject.contents.task_N
    return Overview(
        subject.robot.name,
        subject.dataset,
        len(lengths),
        len(subject.contents.excluded),
        frames,
        frames / hz / 3600,
        hz,
        _measured_hz(subject),
        (int(lengths[0]), int(np.median(lengths)), int(lengths[-1])),
        0 if tasks is None else len(np.unique(tasks[:])),
        _features(subject) + _thumbnails(subject, cameras),
    )


def _measured_hz(subject: Subject) -> float | None:
    if subject.contents.timestamp_N is None or len(subject.action_ND) < 2:
        return None
    step_N = np.diff(subject.contents.timestamp_N[:])
    inside_N = np.ones(len(step_N), dtype=np.bool_)
    inside_N[subject.stop_E[:-1] - 1] = False
    usual = float(np.median(step_N[inside_N])) if inside_N.any() else 0.0
    return 1 / usual if usual > 0 else None


def overview_html(overviews: Sequence[Overview]) -> str:
    """Return a table with a row per dataset."""
    heads = (
        "robot",
        "dataset",
        "episodes",
        "frames",
        "hours",
        "rate [Hz]",
        "by timestamps [Hz]",
        "frames per episode",
        "instructions",
    )
    rows = []
    for o in overviews:
        episodes = f"{o.episodes}" + f" (and {o.excluded} excluded)" * (o.excluded > 0)
        measured = "" if o.measured_hz is None else f"{o.measured_hz:.4g}"
        lengths = f"{o.lengths[0]} to {o.lengths[2]}, median {o.lengths[1]}"
        numbers = (f"{o.frames:,}", f"{o.hours:.2f}", f"{o.hz:g}", measured)
        rows.append((o.robot, o.dataset, episodes, *numbers, lengths, str(o.instructions)))
    return _table("overview", heads, [[cell(c) for c in row] for row in rows])


def cell(text: str) -> str:
    """Return a text for HTML, without control characters."""
    return html.escape(printable(text))


def _table(kind: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>\n" for row in rows)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>\n'


def _features(subject: Subject) -> str:
    """Draw a table with a row per feature: its range, and its course in one episode."""
    order = np.argsort(subject.lengths_E, kind="stable")
    episode = int(order[len(order) // 2])
    rows_T = slice(int(subject.start_E[episode]), int(subject.stop_E[episode]))
    rows = []
    for part in (*subject.actions, *subject.states):
        numbers_5D = np.quantile(part.values_ND, [0, 0.01, 0.5, 0.99, 1], axis=0)
        for i, feature in enumerate(part.group.features):
            values = [f"{v + 0.0:.4g}" for v in numbers_5D[:, i]]
            names = (f"{part.kind} {feature}", part.group.name, part.group.unit)
            line = _sparkline(part.values_ND[rows_T, i], numbers_5D[0, i], numbers_5D[4, i])
            rows.append([*map(cell, (*names, *values)), line])
    number = int(subject.number_E[episode])
    heads = ("feature", "group", "unit", *NUMBERS, f"episode {number}, within the whole range")
    return _table("features", heads, rows)


def _sparkline(values_T: FloatArray, low: float, high: float) -> str:
    """Draw the course of a feature as SVG; a point stands for the mean of its frames."""
    parts = np.array_split(values_T.astype(np.float64), min(POINTS, len(values_T)))
    value_P = np.array([part.mean() for part in parts])
    share_P = (value_P - low) / (high - low) if high > low else np.full(len(value_P), 0.5)
    x_P = np.linspace(1, WIDTH - 1, len(value_P))
    y_P = 2 + (1 - share_P) * (HEIGHT - 4)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(x_P, y_P, strict=True))
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f'<polyline fill="none" stroke="#1f77b4" stroke-width="1.2" points="{points}"/></svg>'
    )


def _thumbnails(subject: Subject, cameras: Sequence[Camera]) -> str:
    """Show the middle frames of the first, the middle and the last episode, per camera."""
    count = len(subject.lengths_E)
    episodes = np.unique(np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int))
    found = []
    for camera in cameras:
        pictures = []
        for episode in episodes.tolist():
            row = int(subject.lengths_E[episode]) // 2
            title = f"episode {subject.number_E[episode]}, frame {row}"
            try:
                source = _jpeg(camera.look(episode, row))
            except UserError:
                continue  # reported by the check of the images
            pictures.append(
                f'<figure><img alt="{title}" src="data:image/jpeg;base64,{source}">'
                f"<figcaption>{title}</figcaption></figure>"
            )
        size = "×".join(map(str, camera.size))
        found.append(f"<h3>{cell(camera.name)} ({size})</h3><div>{''.join(pictures)}</div>\n")
    return "".join(found)


def _jpeg(image_3YX: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image_3YX.transpose(1, 2, 0)))
    picture.thumbnail((EDGE, EDGE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
