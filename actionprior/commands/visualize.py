"""Draw and film episodes of a recipe's data, with a checkpoint's predictions beside them."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from actionprior.batch import VLABatch
from actionprior.commands._parser import call
from actionprior.commands._trunk import chosen_trunk
from actionprior.data import EmbodiedDataModule
from actionprior.embodiment import FloatArray
from actionprior.errors import UserError
from actionprior.files.names import file_name
from actionprior.networks.trunks.region import Region, check_regions, region_box
from actionprior.rollout.results import Frame
from actionprior.visualization.episode import Drawing
from actionprior.visualization.predictions import Predictor, load_predictor
from data_modules import LeRobotVLA


class DrawnEpisode(NamedTuple):
    """An episode as training counts them: a gap in time splits one in two."""

    robot: int
    dataset: str
    number: int  # counts the robot's episodes from 0
    start: int  # first frame in the store
    stop: int  # frame after the last one in the store
    held_out: bool


def visualize(
    data: EmbodiedDataModule,
    model: dict[str, Any] | None = None,
    out: Path = Path("outputs/visualize"),
    robot: str | None = None,
    episode: int | None = None,
    ckpt_path: str | None = None,
    rerun: bool = False,
    trunk: str | None = None,
) -> list[Path]:
    """Draw one episode per robot of a recipe's data, with a checkpoint's predictions beside it.

    Writes `ROBOT-episode-N.png` for each robot, and an mp4 if the data have images. Where the
    recipe's trunk has `regions`, the film darkens what the trunk does not see.

    Args:
        data: Data module of the recipe.
        model: Section `model` of the recipe, which may name the trunk's class and its `regions`.
        out: Folder to write.
        robot: Name of the robot to draw; by default each robot of the recipe.
        episode: Number of the robot's episode; by default its first held-out episode.
        ckpt_path: Checkpoint of either stage, whose predicted chunks are drawn over the recording.
        rerun: Also write a recording for the Rerun viewer (.rrd).
        trunk: Class of the policy's trunk, e.g. my.module.MyTrunk; needed for a trunk of your own
            that the recipe does not name.

    Returns:
        The files written.

    Raises:
        UserError: The robot or episode is unknown, the checkpoint has other robots or is of another
            stage than the data, or the Rerun SDK is missing.
    """
    from actionprior.visualization.rerun import require_rerun

    if rerun:
        require_rerun()
    if isinstance(data, LeRobotVLA):
        data.cache_images = False  # only the drawn episodes are decoded
    names = [e.name for e in data.embodiments]
    if robot is not None and robot not in names:
        raise UserError(f"robot {robot!r} is not among the recipe's: {names}")
    predictor = None
    if ckpt_path:
        predictor = load_predictor(ckpt_path, data, chosen_trunk(trunk, model, ckpt_path))
    regions = _regions(model or {})
    data.split_checkpoint = str(ckpt_path or "")
    data.prepare_data()
    data.setup("fit")
    written = []
    for name in names if robot is None else [robot]:
        shown = _choose(list(_episodes(data, names.index(name))), name, episode)
        drawing = _drawing(data, shown, predictor, regions)
        written += _write(drawing, out / f"{file_name(name)}-episode-{shown.number}", rerun)
    return written


def _write(drawing: Drawing, path: Path, rerun: bool) -> list[Path]:
    """Write the picture, the film if there are images, and the recording for Rerun if wanted."""
    from actionprior.visualization.episode import draw, film
    from actionprior.visualization.rerun import write_rerun

    path.parent.mkdir(parents=True, exist_ok=True)
    writers = [(draw, ".png")]
    writers += [(film, ".mp4")] if drawing.cameras else []
    writers += [(write_rerun, ".rrd")] if rerun else []
    for write, suffix in writers:
        write(drawing, path.with_suffix(suffix))
    return [path.with_suffix(suffix) for _, suffix in writers]


def _episodes(data: EmbodiedDataModule, robot: int) -> Iterator[DrawnEpisode]:
    """Yield the episodes of a robot, given its index."""
    store, first = data.frames.store, 0
    number = 0
    for index, recording in zip(store.robot_R, store.recordings, strict=True):
        for length in recording.lengths_E.tolist():
            stop = first + length
            if index == robot:
                held_out = len(data.frames.val.clip(first, stop)) > 0
                yield DrawnEpisode(robot, recording.name, number, first, stop, held_out)
                number += 1
            first = stop


def _choose(episodes: list[DrawnEpisode], name: str, episode: int | None) -> DrawnEpisode:
    """Return the episode with a number, by default the first held-out one."""
    if episode is None:
        return next((e for e in episodes if e.held_out), episodes[0])
    if not 0 <= episode < len(episodes):
        raise UserError(
            f"episode is {episode}, but robot {name!r} has {len(episodes)} (0 to "
            f"{len(episodes) - 1})"
        )
    return episodes[episode]


def _regions(model: Mapping[str, Any]) -> list[Region | None]:
    """Return the regions that a recipe's trunk looks at; empty if it sees whole images."""
    trunk = (model.get("init_args") or {}).get("trunk")
    arguments = trunk.get("init_args") if isinstance(trunk, Mapping) else None
    return check_regions((arguments or {}).get("regions"))


def _drawing(
    data: EmbodiedDataModule,
    shown: DrawnEpisode,
    predictor: Predictor | None,
    regions: list[Region | None],
) -> Drawing:
    robot, windows = data.embodiments[shown.robot], data.windows(training=False)
    first = windows.__getitems__([shown.start])
    filmed = isinstance(first, VLABatch)
    starts = list(range(shown.start, shown.stop, data.chunk_length))
    chunks = [] if predictor is None else predictor(robot, windows.__getitems__(starts))
    label = "held out" if shown.held_out else "not held out"
    place = f" of {Path(shown.dataset).name}" if shown.dataset else ""
    return Drawing(
        robot=robot,
        title=f"{robot.name}, episode {shown.number}{place} ({label})",
        task=first.observation.task[0] if filmed else "",
        action_Ta=_actions(data, shown),
        chunks=[chunk[: shown.stop - start] for chunk, start in zip(chunks, starts, strict=False)],
        cameras=int(first.observation.camera_mask_BC.sum()) if filmed else 0,
        film=partial(_shaded, partial(_film, data, shown), regions),
    )


def _actions(data: EmbodiedDataModule, shown: DrawnEpisode) -> FloatArray:
    """Return the recorded actions (T, n_a)."""
    frames = torch.arange(shown.start, shown.stop)
    unified_BA = data.frames.store.future(frames, 1).action_BHA[:, 0]
    return data.embodiments[shown.robot].action_from_unified(unified_BA.numpy())


def _film(data: EmbodiedDataModule, shown: DrawnEpisode) -> Iterator[list[Frame]]:
    """Yield the cameras' images (Y, X, 3) for each frame of the episode."""
    from data_modules.images.windows import VLAWindows

    windows, frames = data.windows(training=False), range(shown.start, shown.stop)
    if isinstance(windows, VLAWindows):
        for images in windows.film(frames):
            yield [image.transpose(1, 2, 0) for image in images]
        return
    for frame in frames:  # a user's own data module
        observation = windows.__getitems__([frame]).observation
        images_CKYX = observation.images_BCKYX[0][observation.camera_mask_BC[0]]
        yield list(images_CKYX.permute(0, 2, 3, 1).numpy())


def _shaded(
    film: Callable[[], Iterator[list[Frame]]], regions: list[Region | None]
) -> Iterator[list[Frame]]:
    """Yield a film's images with what lies outside of the cameras' regions darkened."""
    for images in film():
        seen = [*regions, *[None] * len(images)]  # further cameras see all
        yield [i if r is None else _shade(i, r) for i, r in zip(images, seen, strict=False)]


def _shade(image: Frame, region: Region) -> Frame:
    box = region_box(region, *image.shape[:2])
    shaded = image // np.uint8(3)
    shaded[box] = image[box]
    return shaded


def main(args: list[str]) -> None:
    """Run the verb: see :func:`visualize` for its options."""
    for path in call(visualize, args, "lightning visualize"):
        print(path)
