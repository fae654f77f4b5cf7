"""Draw an episode's actions over time, and film them beside the camera images.

Axes: T frames of the episode, H steps of a chunk, n_a (a) the robot's own actions.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actionprior.embodiment import ActionGroup, Embodiment, FloatArray
from actionprior.rollout.results import Frame
from actionprior.rollout.video import write_mp4

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURSOR = (214, 39, 40)


class Drawing(NamedTuple):
    """Content of an episode's picture and film.

    Attributes:
        robot: Robot of the episode.
        title: Episode, dataset, and whether the episode is held out.
        task: Instruction, or an empty string.
        action_Ta: Recorded actions (T, n_a).
        chunks: Consecutive predicted chunks, each of at most H steps (…, n_a); empty without
            predictions.
        cameras: Number of cameras.
        film: Function that yields the cameras' images of each frame.
    """

    robot: Embodiment
    title: str
    task: str
    action_Ta: FloatArray
    chunks: list[FloatArray]
    cameras: int
    film: Callable[[], Iterator[list[Frame]]]

    def groups(self) -> Iterator[tuple[ActionGroup, slice]]:
        """Yield each action group with its columns."""
        first = 0
        for group in self.robot.action:
            yield group, slice(first, first + len(group.features))
            first += len(group.features)


def draw(drawing: Drawing, path: Path) -> None:
    """Write the picture, with one plot per action group."""
    from matplotlib import pyplot as plt

    figure = _figure(drawing, width=11.0)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def film(drawing: Drawing, path: Path) -> None:
    """Write an mp4 of the camera images beside the picture, with a moving cursor."""
    from matplotlib import pyplot as plt

    figure = _figure(drawing, width=9.0)
    figure.set_dpi(100)
    canvas: Any = figure.canvas
    canvas.draw()
    page: Frame = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    boxes = [axis.get_window_extent() for axis in figure.axes]
    hz = drawing.robot.control_hz
    columns = [
        round(float(figure.axes[0].transData.transform((row / hz, 0.0))[0]))
        for row in range(len(drawing.action_Ta))
    ]
    plt.close(figure)

    def frames() -> Iterator[Frame]:
        for column, images in zip(columns, drawing.film(), strict=True):
            marked = page.copy()
            for box in boxes:
                top, bottom = len(page) - round(box.y1), len(page) - round(box.y0)
                marked[top:bottom, column : column + 2] = CURSOR
            yield np.hstack([_stack(images, len(page)), marked])

    write_mp4(frames(), path, hz)


def _figure(drawing: Drawing, width: float) -> "Figure":
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    groups, hz = list(drawing.groups()), drawing.robot.control_hz
    figure, axes = plt.subplots(
        len(groups), 1, figsize=(width, 0.8 + 2.4 * len(groups)), squeeze=False,
        layout="constrained", sharex=True,
    )  # fmt: skip
    seconds_T = np.arange(len(drawing.action_Ta)) / hz
    for axis, (group, columns) in zip(axes[:, 0], groups, strict=True):
        recorded_Ta = drawing.action_Ta[:, columns]
        lines = axis.plot(seconds_T, recorded_Ta, linewidth=1.2, alpha=0.55)
        first = 0
        for chunk in drawing.chunks:
            times = seconds_T[first : first + len(chunk)]
            axis.axvline(times[0], color="0.9", linewidth=0.6, zorder=0)
            for line, values in zip(lines, chunk[:, columns].T, strict=True):
                axis.plot(times, values, "--", color=line.get_color(), linewidth=1.4)
                axis.plot(times[0], values[0], ".", color=line.get_color(), markersize=4)
            first += len(chunk)
        unit = f" [{group.unit}]" if group.unit else ""
        axis.set(ylabel=f"{group.name}{unit}")
        if drawing.chunks:
            apart = np.abs(np.concatenate(drawing.chunks)[:, columns] - recorded_Ta).mean()
            axis.set_title(
                f"mean absolute error {apart:.3g}{unit}",
                fontsize=8, loc="right",
            )  # fmt: skip
        axis.legend(
            lines, group.features, fontsize=7, frameon=False, loc="center left",
            bbox_to_anchor=(1.0, 0.5),
        )  # fmt: skip
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set(xlabel="s", xlim=(0, max(float(seconds_T[-1]), 1 / hz)))
    drawn = "actions: recorded solid, predicted dashed" if drawing.chunks else "recorded actions"
    heading = [line for line in (drawing.title, drawing.task, drawn) if line]
    figure.suptitle("\n".join(heading), fontsize=10)
    return figure


def _stack(images: list[Frame], height: int) -> Frame:
    """Stack the images on top of each other to a total height of ``height`` pixels."""
    from PIL import Image

    each = height // len(images)
    resized = [
        np.asarray(Image.fromarray(i).resize((max(1, round(i.shape[1] * each / len(i))), each)))
        for i in images
    ]
    stacked = np.zeros((height, max(i.shape[1] for i in resized), 3), dtype=np.uint8)
    for number, image in enumerate(resized):
        stacked[number * each : (number + 1) * each, : image.shape[1]] = image
    return stacked
