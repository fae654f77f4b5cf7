"""Give LeRobot's policies the instruction as a vector, and images that are cut before training.

ACT and Diffusion read no words. No policy of LeRobot can cut a part that is not in the middle.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from actionprior.embodiment import FloatArray
from actionprior.errors import UserError
from actionprior.networks.trunks.base import resize
from actionprior.networks.trunks.region import Region, crop_region
from actionprior.rollout.results import Frame

WORDS_KEY = "observation.environment_state"


class InstructionVectors:
    """Turn instructions into vectors that say which pairs of neighbouring words they have.

    Pairs keep apart which of two things is red, and an instruction that no demonstration has can
    still be read if its pairs are known.

    Args:
        instructions: Instructions of the demonstrations.
    """

    def __init__(self, instructions: Sequence[str]) -> None:
        self._pairs = sorted({pair for text in instructions for pair in _pairs(text)})

    def __len__(self) -> int:
        return len(self._pairs)

    def __call__(self, instructions: Sequence[str]) -> FloatArray:
        """Return the vectors (B, K) of B instructions.

        Raises:
            UserError: An instruction has no pair that the demonstrations have.
        """
        rows = [[pair in _pairs(text) for pair in self._pairs] for text in instructions]
        vectors: FloatArray = np.array(rows, np.float32)
        if not vectors.any(axis=1).all():
            text = instructions[int(vectors.any(axis=1).argmin())]
            raise UserError(f"no words of the instruction {text!r} are in the demonstrations")
        return vectors


def with_instruction_vectors(root: Path, out: Path, without: Sequence[str] = ()) -> list[str]:
    """Copy a dataset, with the vector of its instruction added to each frame.

    Args:
        root: LeRobot dataset.
        out: Folder to write, unless it exists.
        without: Features that the copy leaves out: cameras that no policy sees.

    Returns:
        The instructions of the dataset.
    """
    from lerobot.datasets.dataset_tools import modify_features
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("local/demonstrations", root=root)
    tasks = [str(text) for text in dataset.meta.tasks.sort_values("task_index").index]
    if not out.exists():
        read = InstructionVectors(tasks)
        chosen = np.asarray(dataset.hf_dataset.with_format("numpy")["task_index"], np.int64)
        feature = {"dtype": "float32", "shape": (len(read),), "names": None}
        words = {WORDS_KEY: (read(tasks)[chosen], feature)}
        with _whole_folder(out) as part:
            modify_features(dataset, words, list(without), part, dataset.repo_id)
    return tasks


def cut_image(images_IKYX: Tensor, region: Region | None) -> Tensor:
    """Return the region of images at the size of the whole, as our trunk enlarges it.

    Args:
        images_IKYX: Images (I, 3, Y, X), uint8.
        region: The part to keep; None keeps the whole image.

    Returns:
        Images (I, 3, Y, X), float in [0, 1].
    """
    rows, columns = images_IKYX.shape[-2:]
    return resize(crop_region(images_IKYX, region), (rows, columns))


def with_cut_images(root: Path, out: Path, camera: str, region: Region) -> None:
    """Copy a dataset of images, with one camera's images cut.

    Args:
        root: LeRobot dataset, whose images are not videos.
        out: Folder to write, unless it exists.
        camera: Key of the camera's images.
        region: The part that is kept, at the size of the whole image.
    """
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    if out.exists():
        return
    dataset = LeRobotDataset("local/demonstrations", root=root)
    meta = dataset.meta
    added = {"timestamp", "frame_index", "episode_index", "index", "task_index"}
    features = {key: value for key, value in meta.features.items() if key not in added}
    with _whole_folder(out) as part:
        copy = LeRobotDataset.create(
            dataset.repo_id, meta.fps, features, root=part, use_videos=False, image_writer_threads=4
        )
        episode = 0
        for number in range(len(dataset)):
            frame = dataset[number]
            if int(frame["episode_index"]) != episode:
                copy.save_episode()
                episode = int(frame["episode_index"])
            kept = {key: frame[key].numpy() for key in features if key not in meta.camera_keys}
            for key in meta.camera_keys:
                kept[key] = _cut_frame(frame[key], region if key == camera else None)
            copy.add_frame(kept | {"task": frame["task"]})
        copy.save_episode()
        copy.finalize()


def _cut_frame(image_KYX: Tensor, region: Region | None) -> Frame:
    """Return the region of an image of floats in [0, 1] as bytes (Y, X, 3)."""
    whole = (image_KYX * 255).round().to(torch.uint8)
    part = cut_image(whole[None], region)[0]
    cut: Frame = (part * 255).round().to(torch.uint8).movedim(0, -1).numpy()
    return cut


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """Context manager: the folder to write, which gets its name when it is complete."""
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    yield part
    part.rename(out)


def _pairs(text: str) -> set[tuple[str, str]]:
    words = ["", *text.lower().split()]
    return set(pairwise(words))
