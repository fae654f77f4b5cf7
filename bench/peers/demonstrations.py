"""Give LeRobot's policies the instruction as a vector, since ACT and Diffusion read no words."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from actionprior.embodiment import FloatArray
from actionprior.errors import UserError

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
        modify_features(dataset, words, list(without), out, dataset.repo_id)
    return tasks


def _pairs(text: str) -> set[tuple[str, str]]:
    words = ["", *text.lower().split()]
    return set(pairwise(words))
