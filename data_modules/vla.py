"""Stage 2 data: what a policy sees, and the chunk that a demonstrator executed from it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from actionprior.batch import Observation, VLABatch
from actionprior.data import BatchSource, DataError
from actionprior.trajectories import TrajectoryStore
from data_modules.frame_images import FrameImages, Size, camera_size, check_cameras
from data_modules.lerobot_columns import Columns, LeRobotEmbodiment, read_columns
from data_modules.lerobot_store import cache_folder
from data_modules.trajectories import Episode, LeRobotTrajectories


class Place(NamedTuple):
    """Where a frame is: its dataset, its number there, its episode, and its row in that."""

    dataset: int
    frame: int
    episode: int
    row: int


class VLAWindows(Dataset[VLABatch]):
    """Observations with their future chunks, a whole batch at a time.

    Args:
        store: the frames, a recording a dataset.
        datasets: each dataset's columns.
        images: the images of each dataset.
        chunk_length: steps H.
        history_length: past steps H_h.
    """

    def __init__(
        self,
        store: TrajectoryStore,
        datasets: list[Columns],
        images: list[FrameImages],
        chunk_length: int,
        history_length: int,
    ) -> None:
        self.store = store
        self.datasets = datasets
        self.images = images
        self.chunk_length = chunk_length
        self.history_length = history_length
        self.cameras = max(len(i.cameras) for i in images)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, frame: int) -> VLABatch:
        return self.__getitems__([frame])

    def __getitems__(self, frames: Sequence[int]) -> VLABatch:
        """The finished batch of the observations at ``frames``."""
        frames_B = torch.as_tensor(frames, dtype=torch.int64)
        history, future = self.store.around(frames_B, self.history_length, self.chunk_length)
        places = [self._place(frame) for frame in frames]
        images_BCKYX, camera_mask_BC = self._look(places)
        return VLABatch(
            observation=Observation(
                images_BCKYX=images_BCKYX,
                camera_mask_BC=camera_mask_BC,
                task=[self.datasets[p.dataset].task_at(p.frame) for p in places],
                state_BS=future.state_BHS[:, 0].clone(),
                reference_BA=future.reference_BA.clone(),
                history=history,
                embodiment_B=future.embodiment_B.clone(),
            ),
            future=future,
        )

    def _place(self, frame: int) -> Place:
        dataset = int(np.searchsorted(self.store.stop_R, frame, side="right"))
        columns = self.datasets[dataset]
        local = frame - (int(self.store.stop_R[dataset]) - len(columns.action_Na))
        return Place(dataset, local, *columns.episode_at(local))

    def _look(self, places: list[Place]) -> tuple[Tensor, Tensor]:
        size = self.images[0].size
        images = np.zeros((len(places), self.cameras, 3, *size), dtype=np.uint8)
        mask = np.zeros((len(places), self.cameras), dtype=np.bool_)
        for b, place in enumerate(places):
            source = self.images[place.dataset]
            for c, camera in enumerate(source.cameras):
                images[b, c] = source.read(place.episode, place.row, camera)
                mask[b, c] = True
        return torch.from_numpy(images), torch.from_numpy(mask)


class LeRobotVLA(LeRobotTrajectories):
    """Images of the robots' cameras, instruction, state, history and action chunk.

    Args:
        embodiments: robots with their datasets; ``cameras`` says which images a policy sees.
        chunk_length: steps H of an action chunk.
        history_length: past steps H_h.
        batch_size: observations a process and step.
        num_workers: loader processes.
        seed: of the split and of the order.
        val_fraction: share of each robot's episodes that validates.
        max_episodes: takes the first episodes of each dataset only.
        max_episodes_per_task: takes the first episodes of each instruction only.
        weights, temperature, caps, held_out: see ``LeRobotTrajectories``.
        skip_idle: leave out training windows in which hardly anything moves.
        idle_threshold: what counts as motion (see ``LeRobotTrajectories``).
        image_size: side, or [rows, columns], of the images; by default the cameras' own, which
            must then all be equal.
        cache_images: decode each episode once, into arrays that later runs map into memory;
            otherwise decode at each access.
        cache_dir: where; by default $ACTIONPRIOR_CACHE or ~/.cache/actionprior.
        video_backend: lerobot's name of the decoder.
    """

    needs_videos = True

    def __init__(
        self,
        embodiments: list[LeRobotEmbodiment],
        chunk_length: int = 15,
        history_length: int = 15,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        val_fraction: float = 0.1,
        max_episodes: int | None = None,
        max_episodes_per_task: int | None = None,
        weights: dict[str, float] | None = None,
        skip_idle: bool = False,
        idle_threshold: float = 0.02,
        image_size: int | tuple[int, int] | None = None,
        cache_images: bool = True,
        cache_dir: str | None = None,
        video_backend: str = "pyav",
        temperature: float = 1.0,
        caps: dict[str, int] | None = None,
        held_out: list[str] | None = None,
    ) -> None:
        super().__init__(
            embodiments,
            chunk_length,
            history_length,
            batch_size,
            num_workers,
            seed,
            val_fraction,
            max_episodes,
            max_episodes_per_task,
            weights,
            skip_idle,
            idle_threshold,
            temperature=temperature,
            caps=caps,
            held_out=held_out,
        )
        for robot in self.robots:
            if not robot.cameras:
                raise DataError(f"embodiment {robot.name!r} names no camera; Stage 2 needs one")
        self.image_size = image_size
        self.cache_images = cache_images
        self.cache_dir = cache_dir
        self.video_backend = video_backend
        self._images: list[FrameImages] = []
        self._datasets: list[Columns] = []

    def prepare_data(self) -> None:
        """Download hub datasets and decode what the cache lacks, in one process."""
        super().prepare_data()
        if self.cache_images:
            self.setup("fit")

    def windows(self, training: bool) -> BatchSource[Any]:
        """Observations and chunks."""
        return VLAWindows(
            self.frames.store,
            self._datasets,
            self._images,
            self.chunk_length,
            self.history_length,
        )

    def read_dataset(self, root: Path, robot: LeRobotEmbodiment) -> Columns:
        """The columns; refuses a dataset that lacks a camera before anything is decoded."""
        columns = read_columns(root, robot)
        if not str(columns.info["codebase_version"]).startswith("v3."):
            raise DataError(
                f"{root}: is a LeRobot {columns.info['codebase_version']} dataset; its images need "
                "v3.0, convert it with `python -m lerobot.scripts.convert_dataset_v21_to_v30`"
            )
        check_cameras(columns, robot.cameras)
        return columns

    def keep_sources(self, datasets: list[Columns], episodes: list[Episode]) -> None:
        """Remember where images and instructions are, and fill the cache."""
        cameras = {e.dataset: self.robots[e.robot].cameras for e in episodes if e.used}
        size = self._size([(datasets[d], names) for d, names in cameras.items()])
        self._images = [
            FrameImages(columns, cameras.get(d, []), size, self._cache(), self.video_backend)
            for d, columns in enumerate(datasets)
        ]
        self._datasets = datasets
        self._fill([e for e in episodes if e.used])

    # ---- parts --------------------------------------------------------------------------------

    def _fill(self, episodes: list[Episode]) -> None:
        missing = [
            (images, *pair)
            for d, images in enumerate(self._images)
            for pair in images.missing(sorted({e.number for e in episodes if e.dataset == d}))
        ]
        if not missing:
            return
        from tqdm import tqdm  # type: ignore[import-untyped]

        for images, episode, camera in tqdm(missing, desc="decoding episodes", unit="episode"):
            images.fill(episode, camera)

    def _cache(self) -> Path | None:
        if not self.cache_images:
            return None
        return cache_folder("images", self.cache_dir)

    def _size(self, sources: list[tuple[Columns, list[str]]]) -> Size:
        if isinstance(self.image_size, int):
            return (self.image_size, self.image_size)
        if self.image_size is not None:
            rows, columns = self.image_size
            return (rows, columns)
        sizes = {camera_size(c, name): f"{c.root} {name}" for c, names in sources for name in names}
        if len(sizes) > 1:
            raise DataError(f"cameras differ in size: {sizes}; set image_size")
        return next(iter(sizes))
