"""Figures of trained models: map of the latents, and paths of the tool's tip."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actionprior.envs.arms.kinematics import Array
from actionprior.envs.scene.scene import SHAPES, Scene
from actionprior.study.drawing import GREY, NONE, PRIOR, DrawnFigure, save, style
from actionprior.study.latents import MOTIONS, NEIGHBOURS, EmbeddedLatents, IntArray, LatentMap
from actionprior.study.tip_paths import TipPath

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

Z_MAP = DrawnFigure("z_map", "Held-out chunks in the latent space, by motion type and by robot")
TRAJECTORIES = DrawnFigure("trajectories", "Paths of the tool's tip, with and without the prior")

ARMS = {"prior": "with the prior", "no_prior": "no prior"}
"""The two policies and their labels in figures."""

_ARM_COLOURS = {"prior": PRIOR, "no_prior": NONE}
_MOTION_COLOURS = ("#999999", "#0072B2", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#E69F00")
# Tol's muted scheme: as safe for the colour-blind, and not to be taken for motion types.
_ROBOT_COLOURS = ("#332288", "#CC6677", "#DDCC77", "#44AA99", "#882255", "#88CCEE", "#117733")
_YELLOW, _PALE, _EDGE = "#F0E442", "#DDDDDD", "#888888"


class PlayedScene(NamedTuple):
    """Paths of the expert and of each policy in the same scene.

    Attributes:
        seed: Reset seed that draws the scene.
        scene: Objects on the table at the start.
        expert: Path of the expert.
        paths: Paths of the policies, by keys of ``ARMS``; either may be missing.
    """

    seed: int
    scene: Scene
    expert: TipPath
    paths: dict[str, TipPath]


def illustrations_in(folder: Path) -> list[DrawnFigure]:
    """List the figures that a folder holds."""
    return [f for f in (Z_MAP, TRAJECTORIES) if (folder / f"{f.name}.svg").is_file()]


def draw_z_map(found: LatentMap, folder: Path) -> None:
    """Draw ``z_map``: by motion type, the same with the untrained encoder, and by robot."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("Agg")
    motion, robot = (found.motion_N, _MOTION_COLOURS), (found.robot_N, _ROBOT_COLOURS)
    panels = (
        ("trained encoder", found.trained, *motion),
        ("untrained encoder (control)", found.untrained, *motion),
        ("trained encoder, by robot", found.trained, *robot),
    )
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(12.6, 5.6), layout="constrained")
        for axis, (title, embedded, number_N, colours) in zip(axes, panels, strict=True):
            accuracy = f": {embedded.accuracy:.0%}" if number_N is found.motion_N else ""
            axis.set_title(title + accuracy, loc="left", fontsize=11)
            _scatter(axis, embedded, number_N, colours)
        close: dict[str, Any] = {"handletextpad": 0.1, "columnspacing": 1.0}
        motions, robots = _dots(MOTIONS, *motion), _dots(found.robots, *robot)
        figure.legend(handles=motions, loc="outside lower left", ncols=4, **close)
        figure.legend(handles=robots, loc="outside lower right", ncols=3, **close)
        figure.suptitle(
            f"{len(found.motion_N)} held-out chunks in the latent space. Percentages: how often "
            f"the {NEIGHBOURS} nearest neighbours (by the whole z, in other\nepisodes) predict "
            f"the motion type; always guessing the commonest gives {found.largest_share:.0%}",
            x=0.008,
            ha="left",
            fontsize=11,
        )
        folder.mkdir(parents=True, exist_ok=True)
        save(figure, folder, Z_MAP.name)
        plt.close(figure)


def draw_trajectories(env_id: str, played: Sequence[PlayedScene], folder: Path) -> None:
    """Draw ``trajectories``: one column per scene, from above and from behind the robot."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("Agg")
    low_3, high_3 = _bounds(played)
    wide, deep, tall = high_3[1] - low_3[1], high_3[0] - low_3[0], high_3[2]
    column = 2.9
    size = (column * max(len(played), 3) + 0.9, column * (deep + tall) / wide + 1.9)
    with style():
        figure, axes = plt.subplots(
            2, len(played), figsize=size, squeeze=False, sharex=True, sharey="row",
            height_ratios=(deep, tall), layout="compressed",
        )  # fmt: skip
        for (above, behind), one in zip(axes.T, played, strict=True):
            _from_above(above, one)
            _from_behind(behind, one)
            outcomes = [f"{ARMS[arm]}: {_outcome(path)}" for arm, path in one.paths.items()]
            above.set_title("\n".join(outcomes), loc="left", fontsize=10)
            # As seen from the robot: y, which points to its left, grows to the left.
            above.set(xlim=(high_3[1], low_3[1]), ylim=(low_3[0], high_3[0]), aspect="equal")
            behind.set(xlim=(high_3[1], low_3[1]), ylim=(0, tall), aspect="equal")
            behind.set_xlabel("sideways [cm]")
        axes[0, 0].set_ylabel("from above:\naway from the robot [cm]")
        axes[1, 0].set_ylabel("from behind the robot:\nheight [cm]")
        handles = _path_legend(played[0])
        figure.legend(handles=handles, loc="outside lower left", ncols=4 if len(played) < 4 else 8)
        name = env_id.split("/")[-1].removesuffix("-v0")
        figure.suptitle(
            f"{name}: paths of the tool's tip in the same scenes",
            x=0.008,
            ha="left",
            fontsize=11,
        )
        folder.mkdir(parents=True, exist_ok=True)
        save(figure, folder, TRAJECTORIES.name)
        plt.close(figure)


# ---- the map -----------------------------------------------------------------------------------


def _scatter(
    axis: "Axes", embedded: EmbeddedLatents, number_N: IntArray, colours: tuple[str, ...]
) -> None:
    # Draw in random order, so that no class lies on top of the others.
    order_N = np.random.default_rng(0).permutation(len(number_N))
    x_N, y_N = embedded.point_N2[order_N].T
    shades = [colours[k % len(colours)] for k in number_N[order_N]]
    axis.scatter(x_N, y_N, s=9, c=shades, alpha=0.75, linewidths=0, rasterized=True)
    first, second = embedded.variance_2
    edge = 1.05 * float(np.abs(embedded.point_N2).max())
    axis.set(
        xlabel=f"1st component, {first:.0%} of the variance",
        ylabel=f"2nd component, {second:.0%}",
        xticks=[],  # only distances have a meaning
        yticks=[],
        xlim=(-edge, edge),
        ylim=(-edge, edge),
        aspect="equal",
    )


def _dots(names: Sequence[str], number_N: IntArray, colours: tuple[str, ...]) -> "list[Line2D]":
    """Make legend entries with the number of chunks, for classes with chunks."""
    from matplotlib.lines import Line2D

    count = np.bincount(number_N, minlength=len(names))
    return [
        Line2D([], [], color=colours[k % len(colours)], marker="o", linestyle="none",
               label=f"{name} ({count[k]})")
        for k, name in enumerate(names)
        if count[k]
    ]  # fmt: skip


# ---- the paths ---------------------------------------------------------------------------------


def _paths(one: PlayedScene) -> Iterator[tuple[str, TipPath, str]]:
    """Yield name, path and colour of what is drawn, lowest first."""
    yield "expert", one.expert, GREY
    for arm, path in one.paths.items():
        yield ARMS[arm], path, _ARM_COLOURS[arm]


def _outcome(path: TipPath) -> str:
    return "success" if path.success else "failure"


def _bounds(played: Sequence[PlayedScene]) -> tuple[Array, Array]:
    """Return opposite corners (3,) of the volume that all panels show [cm]."""
    points: list[Array] = [
        path.tip_GT3.reshape(-1, 3) for one in played for _, path, _ in _paths(one)
    ]
    for one in played:
        points += [np.array([[t.x, t.y, t.height]]) for t in one.scene.things]
        points += [np.array([[p.x, p.y, 0.0]]) for p in one.scene.pads]
    every_M3 = 100 * np.concatenate(points)
    return every_M3.min(0) - 7, every_M3.max(0) + 7


def _path_legend(one: PlayedScene) -> "list[Line2D]":
    from matplotlib.lines import Line2D

    def entry(label: str, marker: str, colour: str) -> "Line2D":
        return Line2D(
            [], [], marker=marker, color=colour, linestyle="none" if marker else "-",
            markersize=8, linewidth=2, label=label,
            markeredgecolor=_EDGE if colour in (_YELLOW, _PALE) else colour,
        )  # fmt: skip

    lines = [entry(label, "", colour) for label, _, colour in _paths(one)]
    ends = [
        entry("start", "^", "black"),
        entry("end, success", "o", "black"),
        entry("end, failure", "X", "black"),
    ]
    scene = [entry("object named", "o", _YELLOW)]
    if one.scene.goal is not None:
        scene.append(entry("pad named", "s", _PALE))
    return lines[1:] + lines[:1] + ends + scene


def _from_above(axis: "Axes", one: PlayedScene) -> None:
    from matplotlib.patches import Circle, Rectangle

    for k, pad in enumerate(one.scene.pads):
        fill = _PALE if k == one.scene.goal else "none"
        corner, edge = (100 * pad.y - 50 * pad.size, 100 * pad.x - 50 * pad.size), 100 * pad.size
        axis.add_patch(Rectangle(corner, edge, edge, facecolor=fill, edgecolor=_EDGE, zorder=0))
    for k, thing in enumerate(one.scene.things):
        fill, radius = (
            _YELLOW if k == one.scene.target else "none",
            100 * SHAPES[thing.shape].radius,
        )
        middle = (100 * thing.y, 100 * thing.x)
        axis.add_patch(Circle(middle, radius, facecolor=fill, edgecolor=_EDGE, zorder=1))
    for _, path, colour in _paths(one):
        for tip_T3 in 100 * path.tip_GT3:
            _line(axis, tip_T3[:, 1], tip_T3[:, 0], colour, path.success)


def _from_behind(axis: "Axes", one: PlayedScene) -> None:
    from matplotlib.patches import Rectangle

    thing = one.scene.target_thing
    radius = 100 * SHAPES[thing.shape].radius
    boxes = [(100 * thing.y, radius, 100 * thing.height, _YELLOW)]
    if one.scene.goal is not None:
        boxes.append((100 * one.scene.goal_pad.y, 50 * one.scene.goal_pad.size, 1.0, _PALE))
    for middle, half, height, fill in boxes:
        corner = (middle - half, 0)
        axis.add_patch(
            Rectangle(corner, 2 * half, height, facecolor=fill, edgecolor=_EDGE, zorder=1)
        )
    for _, path, colour in _paths(one):
        for tip_T3 in 100 * path.tip_GT3:
            _line(axis, tip_T3[:, 1], tip_T3[:, 2], colour, path.success)


def _line(axis: "Axes", x_T: Array, y_T: Array, colour: str, success: bool) -> None:
    """Draw a path; that of a policy with its start, and an end marker for the outcome."""
    if colour == GREY:  # the expert's
        axis.plot(x_T, y_T, color=colour, linewidth=1.4, zorder=2)
        return
    axis.plot(x_T, y_T, color=colour, linewidth=2.0, zorder=3)
    axis.plot(x_T[0], y_T[0], color="black", marker="^", markersize=7, zorder=4)
    end = "o" if success else "X"
    axis.plot(
        x_T[-1], y_T[-1], color=colour, marker=end, markersize=9, markeredgecolor="white", zorder=5
    )
