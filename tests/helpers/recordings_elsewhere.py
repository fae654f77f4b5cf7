"""Recordings in other formats, with values that are known."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

JOINTS = ["j1", "j2", "j3"]


def states(frames: int, episode: int = 0) -> np.ndarray:
    """Joint angles (T, 3) [rad] that differ in every frame and episode."""
    step = np.arange(frames)[:, None] + 100 * episode
    return np.sin(0.1 * step + np.arange(3))


def pictures(frames: int, size: tuple[int, int] = (24, 32), episode: int = 0) -> np.ndarray:
    """Images (T, Y, X, 3): red is the frame's number, green the episode's, blue the column."""
    images = np.zeros((frames, *size, 3), np.uint8)
    images[..., 0] = np.arange(frames)[:, None, None]
    images[..., 1] = 50 + episode
    images[..., 2] = np.arange(size[1])
    return images


def write_csv(path: Path, columns: dict[str, Any]) -> Path:
    """Write columns with a line of names."""
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_pictures(folder: Path, images: np.ndarray) -> list[str]:
    """Write PNG files, and return their names."""
    folder.mkdir(parents=True)
    names = [f"{index}.png" for index in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    return names
