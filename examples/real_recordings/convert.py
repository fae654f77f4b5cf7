"""Turn recordings of six real robots into LeRobot v3 datasets.

    python examples/real_recordings/convert.py --source DIR --out outputs/real

LeRobot writes each dataset. A dataset appears complete or not at all. Flaws of a recording, and
what was done about them, are printed and kept in the dataset's ``CONVERSION.txt``. Stage 2 reads
the humanoid's recording with its videos as it was published: ``g1_inspire_published`` links to it.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from recordings import READERS, Episode, Recording, RecordingError, check

from actionprior.files.folders import atomic_folder

PUBLISHED = "g1_inspire"  # a LeRobot v2.1 dataset with videos, which Stage 2 reads unchanged
CAMERA_KEY = "observation.images.cam_high"


def main(arguments: list[str] | None = None) -> None:
    """Convert the recordings that the command line names.

    Raises:
        SystemExit: With one sentence, if a recording is missing or not as expected.
    """
    options = _parser().parse_args(arguments)
    for name in options.only or READERS:
        filmed = options.videos and name == PUBLISHED
        target = options.out / (f"{name}_video" if filmed else name)
        if target.exists() and not options.overwrite:
            print(f"{target} exists already (--overwrite replaces it)")
            continue
        try:
            convert(options.source / name, target, filmed, options.max_episodes)
        except RecordingError as error:
            sys.exit(f"error: {error}")
    link(options.source / PUBLISHED, options.out / f"{PUBLISHED}_published")


def link(source: Path, target: Path) -> None:
    """Link a dataset into the folder of the converted ones, unless something is there already."""
    if source.is_dir() and not target.exists():
        target.unlink(missing_ok=True)  # a link to a folder that is gone
        target.symlink_to(source.resolve(), target_is_directory=True)


def convert(source: Path, target: Path, videos: bool, max_episodes: int | None = None) -> None:
    """Convert one recording.

    Args:
        source: Folder of the recording; its name chooses the reader.
        target: Folder of the dataset, replaced if it exists.
        videos: Keep the images if the recording has any.
        max_episodes: Number of first episodes to convert; None converts all.

    Raises:
        RecordingError: The recording is missing or not as expected.
    """
    if not source.is_dir():
        raise RecordingError(
            f"{source} is missing: expected the folder of real recordings, with a subfolder for "
            "each; name it with --source"
        )
    recording = READERS[source.name](source, videos)
    check(source.name, recording)
    recording.episodes = recording.episodes[:max_episodes]
    frames = sum(len(e.state) for e in recording.episodes)
    report = [f"{source.name}: {len(recording.episodes)} episodes, {frames} frames → {target}"]
    report += [f"  - {note}" for note in recording.notes]
    print("\n".join(report), flush=True)
    with atomic_folder(target) as building:
        _write(recording, building, target.name)
        (building / "CONVERSION.txt").write_text("\n".join(report) + "\n", encoding="utf-8")


def _write(recording: Recording, folder: Path, name: str) -> None:
    from datasets.utils import logging
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    logging.disable_progress_bar()  # datasets shows one per episode
    folder.parent.mkdir(parents=True, exist_ok=True)
    features: dict[str, dict[str, Any]] = {
        "observation.state": _vector(recording.state_names),
        "action": _vector(recording.action_names),
    }
    filmed = recording.episodes[0].video is not None
    if filmed:
        shape = next(_images(recording.episodes[0])).shape
        names = ["height", "width", "channels"]
        features[CAMERA_KEY] = {"dtype": "video", "shape": shape, "names": names}
    dataset = LeRobotDataset.create(
        repo_id=f"actionprior/{name}",
        fps=recording.fps,
        features=features,
        root=folder,
        robot_type=recording.robot_type,
        use_videos=filmed,
        video_backend="pyav",
    )
    for number, episode in enumerate(recording.episodes):
        images = _images(episode)
        for row in range(len(episode.state)):
            frame = {
                "observation.state": episode.state[row].astype(np.float32),
                "action": episode.action[row].astype(np.float32),
                "task": episode.task,
            }
            if filmed:
                image = next(images, None)
                if image is None:
                    raise RecordingError(
                        f"{episode.video}: has {row} frames, but episode {number} of {name} has "
                        f"{len(episode.state)}"
                    )
                frame[CAMERA_KEY] = image
            dataset.add_frame(frame)
        if next(images, None) is not None:
            raise RecordingError(
                f"{episode.video}: has more frames than the {len(episode.state)} of its episode"
            )
        dataset.save_episode()
    dataset.finalize()
    shutil.rmtree(folder / "images", ignore_errors=True)


def _vector(names: list[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": (len(names),), "names": [str(n) for n in names]}


def _images(episode: Episode) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the episode's frames (Y, X, 3)."""
    if episode.video is None:
        return
    import av

    with av.open(str(episode.video)) as container:
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--source", type=Path, required=True, help="folder of the recordings")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/real"), help="folder of the datasets"
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(READERS), help="recordings to convert; by default all"
    )
    parser.add_argument("--videos", action="store_true", help="keep g1_inspire's head camera")
    parser.add_argument("--max-episodes", type=int, help="number of first episodes to convert")
    parser.add_argument("--overwrite", action="store_true", help="replace existing datasets")
    return parser


if __name__ == "__main__":
    main()
