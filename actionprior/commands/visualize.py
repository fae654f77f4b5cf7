"""Draw episodes of a recipe's data, and what a checkpoint predicts beside them."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from actionprior.batch import VLABatch
from actionprior.data import EmbodiedDataModule
from actionprior.embodiment import FloatArray
from actionprior.errors import UserError
from actionprior.networks.trunks.base import TrunkChoice
from actionprior.rollout.results import Frame
from actionprior.visualization.episode import Drawing
from actionprior.visualization.predictions import Predictor, load_predictor


class Stretch(NamedTuple):
    """An episode as training counts them: one that is cut in time is two."""

    robot: int
    dataset: str
    number: int  # among the robot's
    start: int  # frames of the store
    stop: int
    held_out: bool


def visualize(
    data: EmbodiedDataModule,
    out: Path,
    robot: str | None = None,
    episode: int | None = None,
    ckpt_path: str | None = None,
    rerun: bool = False,
    trunk: TrunkChoice = None,
) -> list[Path]:
    """Draw one episode of each robot, or of the one named, and return the files written.

    Args:
        data: the data module, as training has it.
        out: folder; gets ``<robot>-episode-<n>.png``, an mp4 where the data have images, and an
            rrd with ``rerun``.
        robot: its name; by default all.
        episode: number among the robot's; by default the first that is held out.
        ckpt_path: of either stage; its chunks are drawn over what was recorded, from the start
            of each chunk.
        rerun: write a recording for the Rerun viewer, too.
        trunk: Class of the policy's trunk, or a built one; needed if it is none of actionprior's.

    Raises:
        UserError: an unknown robot or episode, a checkpoint of other robots or of another stage
            than the data, or the Rerun SDK is missing.
    """
    from actionprior.visualization.episode import draw, film
    from actionprior.visualization.rerun import require_rerun, write_rerun
    from data_modules import LeRobotVLA

    if rerun:
        require_rerun()
    if isinstance(data, LeRobotVLA):
        data.cache_images = False  # only the drawn episodes are decoded
    names = [e.name for e in data.embodiments]
    if robot is not None and robot not in names:
        raise UserError(f"robot {robot!r} is not among the recipe's: {names}")
    predictor = load_predictor(ckpt_path, data, trunk) if ckpt_path else None
    data.prepare_data()
    data.setup("fit")
    written = []
    for name in names if robot is None else [robot]:
        stretch = _choose(list(_stretches(data, names.index(name))), name, episode)
        drawing = _drawing(data, stretch, predictor)
        path = out / f"{name}-episode-{stretch.number}"
        out.mkdir(parents=True, exist_ok=True)
        draw(drawing, path.with_suffix(".png"))
        written.append(path.with_suffix(".png"))
        if drawing.cameras:
            film(drawing, path.with_suffix(".mp4"))
            written.append(path.with_suffix(".mp4"))
        if rerun:
            write_rerun(drawing, path.with_suffix(".rrd"))
            written.append(path.with_suffix(".rrd"))
    return written


def _stretches(data: EmbodiedDataModule, robot: int) -> Iterator[Stretch]:
    store, first = data.frames.store, 0
    number = 0
    for index, recording in zip(store.robot_R, store.recordings, strict=True):
        for length in recording.lengths_E.tolist():
            stop = first + length
            if index == robot:
                held_out = len(data.frames.val.clip(first, stop)) > 0
                yield Stretch(robot, recording.name, number, first, stop, held_out)
                number += 1
            first = stop


def _choose(stretches: list[Stretch], name: str, episode: int | None) -> Stretch:
    if episode is None:
        return next((s for s in stretches if s.held_out), stretches[0])
    if not 0 <= episode < len(stretches):
        raise UserError(
            f"episode is {episode}, but robot {name!r} has {len(stretches)} (0 to "
            f"{len(stretches) - 1})"
        )
    return stretches[episode]


def _drawing(data: EmbodiedDataModule, stretch: Stretch, predictor: Predictor | None) -> Drawing:
    robot, windows = data.embodiments[stretch.robot], data.windows(training=False)
    one = windows.__getitems__([stretch.start])
    filmed = isinstance(one, VLABatch)
    starts = list(range(stretch.start, stretch.stop, data.chunk_length))
    chunks = [] if predictor is None else predictor(robot, windows.__getitems__(starts))
    said = "held out" if stretch.held_out else "not held out"
    place = f" of {Path(stretch.dataset).name}" if stretch.dataset else ""
    return Drawing(
        robot=robot,
        title=f"{robot.name}, episode {stretch.number}{place} ({said})",
        task=one.observation.task[0] if filmed else "",
        action_Ta=_actions(data, stretch),
        chunks=[
            chunk[: stretch.stop - start] for chunk, start in zip(chunks, starts, strict=False)
        ],
        cameras=int(one.observation.camera_mask_BC.sum()) if filmed else 0,
        film=partial(_film, data, stretch),
    )


def _actions(data: EmbodiedDataModule, stretch: Stretch) -> FloatArray:
    """What was recorded, (T, n_a)."""
    frames = torch.arange(stretch.start, stretch.stop)
    unified_BA = data.frames.store.future(frames, 1).action_BHA[:, 0]
    return data.embodiments[stretch.robot].action_from_unified(unified_BA.numpy())


def _film(data: EmbodiedDataModule, stretch: Stretch) -> Iterator[list[Frame]]:
    """The cameras' images (Y, X, 3) of each frame of the episode."""
    from data_modules.vla import VLAWindows

    windows, frames = data.windows(training=False), range(stretch.start, stretch.stop)
    if isinstance(windows, VLAWindows):
        for images in windows.film(frames):
            yield [image.transpose(1, 2, 0) for image in images]
        return
    for frame in frames:  # of a data module of the user's own
        observation = windows.__getitems__([frame]).observation
        images_CKYX = observation.images_BCKYX[0][observation.camera_mask_BC[0]]
        yield list(images_CKYX.permute(0, 2, 3, 1).numpy())


def main(args: list[str]) -> None:
    """Run the verb: ``lightning visualize --config RECIPE [--data.… ]``, see ``visualize``."""
    from actionprior.commands import _trunk
    from actionprior.commands._recipe import data_parser, embodied_data

    parser = data_parser("lightning visualize")
    parser.add_argument("--out", type=str, default="outputs/visualize", help="folder")
    parser.add_argument("--robot", type=str | None, help="by default all")
    parser.add_argument("--episode", type=int | None, help="by default the first held-out one")
    parser.add_argument("--ckpt_path", type=str | None, help="draws what it predicts")
    parser.add_argument("--rerun", action="store_true", help="for the Rerun viewer, too")
    parser.add_argument("--trunk", type=str | None, help=_trunk.HELP)
    options = parser.instantiate(parser.parse_args(args))
    ckpt_path = options["ckpt_path"]
    trunk = ckpt_path and _trunk.chosen_trunk(options["trunk"], options["model"], ckpt_path)
    for path in visualize(
        embodied_data(options, "visualize"),
        Path(options["out"]),
        options["robot"],
        options["episode"],
        ckpt_path,
        options["rerun"],
        trunk or None,
    ):
        print(path)
