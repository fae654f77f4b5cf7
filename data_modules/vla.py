"""Stage 2 data: what a policy sees, and the chunk that a demonstrator executed from it."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.utils.data import Dataset

from actionprior.batch import Observation, VLABatch
from actionprior.data import DataError, Frames
from actionprior.data.store import TrajectoryStore
from data_modules.images.augmentation import augment
from data_modules.images.cache import ImageArray, ImageCache
from data_modules.images.camera_files import CameraFiles, Size
from data_modules.images.frames import CachedFrameImages, FrameImages, FrameToDecode, fill_cache
from data_modules.images.video import choose_decoder
from data_modules.lerobot.columns import Columns, LeRobotEmbodiment
from data_modules.lerobot.remote import hub_snapshot_url, is_url, local_copy_folder, source_url
from data_modules.lerobot.store import cache_folder
from data_modules.trajectories import Episode, LeRobotTrajectories


class Place(NamedTuple):
    """Where a frame is: its dataset, its number there, its episode, its image's row in that."""

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

    def film(self, frames: Sequence[int]) -> Iterator[list[ImageArray]]:
        """Each frame's images, uint8 (3, Y, X) a camera, decoded in one pass.

        Args:
            frames: of one episode, ascending.
        """
        places = [self._place(frame) for frame in frames]
        images, episode = self.images[places[0].dataset], places[0].episode
        rows, which = np.unique([place.row for place in places], return_inverse=True)
        decoded = [images.each(episode, camera, rows) for camera in images.cameras]
        shown, current = -1, list[ImageArray]()
        for index in which.tolist():  # a resampled episode may show an image twice
            if index != shown:
                shown, current = index, [next(one) for one in decoded]
            yield current

    def _place(self, frame: int) -> Place:
        dataset = int(np.searchsorted(self.store.stop_R, frame, side="right"))
        columns = self.datasets[dataset]
        local = frame - (int(self.store.stop_R[dataset]) - len(columns.action_Na))
        return Place(dataset, local, columns.episode_at(local)[0], columns.recorded_row(local))

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
        max_episodes: takes the first episodes of each dataset only; or so many by robot.
        max_episodes_per_task: takes the first episodes of each instruction only.
        weights, temperature, caps, held_out, chunk_seconds, val_episodes: see
            ``LeRobotTrajectories``.
        skip_idle: leave out training windows in which hardly anything moves.
        idle_threshold: what counts as motion (see ``LeRobotTrajectories``).
        image_size: side, or [rows, columns], of the images; by default the cameras' own, which
            must then all be equal.
        cache_images: decode each episode once, into arrays that later runs map into memory;
            otherwise decode at each access.
        cache_dir: where; by default $ACTIONPRIOR_CACHE or ~/.cache/actionprior.
        cache_gb: most that decoded images may take there, of all runs together; the episodes
            that were used longest ago make room, and what does not fit is decoded at each access.
        video_backend: the decoder, ``torchcodec`` or ``pyav``; ``auto`` is torchcodec where it
            loads, which takes FFmpeg on the system.
        skip_missing_videos: leave out episodes whose video is not there, which otherwise are an
            error.
        image_transforms: change the images of training batches at random, on the model's device,
            each batch in 16 parts with draws of their own: modules that make uint8 (N, 3, Y, X) of
            uint8 (N, 3, Y, X), such as ``data_modules.CropColourBlur`` or those of
            torchvision.transforms.v2.
        stream_videos: download ``repo_ids`` without their videos; these are decoded straight from
            the hub into the cache, or at each access. ``video_urls`` of a robot are always.
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
        max_episodes: int | dict[str, int] | None = None,
        max_episodes_per_task: int | None = None,
        weights: dict[str, float] | None = None,
        skip_idle: bool = False,
        idle_threshold: float = 0.02,
        image_size: int | tuple[int, int] | None = None,
        cache_images: bool = True,
        cache_dir: str | None = None,
        video_backend: str = "auto",
        temperature: float = 1.0,
        caps: dict[str, int] | None = None,
        held_out: list[str] | None = None,
        chunk_seconds: float | None = None,
        skip_missing_videos: bool = False,
        cache_gb: float | None = None,
        image_transforms: list[nn.Module] | None = None,
        stream_videos: bool = False,
        val_episodes: dict[str, list[int]] | None = None,
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
            chunk_seconds=chunk_seconds,
            val_episodes=val_episodes,
        )
        for robot in self.robots:
            if not robot.cameras:
                raise DataError(f"embodiment {robot.name!r} names no camera; Stage 2 needs one")
            if robot.video_urls and len(robot.video_urls) != len(robot.roots):
                raise DataError(
                    f"embodiment {robot.name!r} has {len(robot.video_urls)} video_urls for "
                    f"{len(robot.roots)} roots, expected one for each"
                )
        if cache_gb is not None and not (cache_gb > 0 and cache_images):
            raise DataError(
                f"cache_gb is {cache_gb} with cache_images {cache_images}, expected above 0 and "
                "true; without cache_images nothing is kept"
            )
        self.image_size = image_size
        self.cache_images = cache_images
        self.cache_dir = cache_dir
        self.cache_gb = cache_gb
        self.decoder = choose_decoder(video_backend)
        self.needs_videos = not stream_videos
        self.skip_missing_videos = skip_missing_videos
        self.image_transforms = image_transforms or []
        self._files: list[CameraFiles] = []  # one a dataset, in their order
        self._images: list[FrameImages] = []
        self._datasets: list[Columns] = []

    def prepare_data(self) -> None:
        """Download hub datasets and decode what the cache lacks, in one process."""
        super().prepare_data()
        if self.cache_images:
            self.setup("fit")

    def windows(self, training: bool) -> VLAWindows:
        """Observations and chunks."""
        return VLAWindows(
            self.frames.store,
            self._datasets,
            self._images,
            self.chunk_length,
            self.history_length,
        )

    def on_after_batch_transfer(self, batch: VLABatch, dataloader_idx: int) -> VLABatch:
        """Change the images of training batches."""
        trainer: Any = self.trainer
        if not self.image_transforms or trainer is None or not trainer.training:
            return batch
        micro_batch = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        key = (self.seed, trainer.global_step, micro_batch, trainer.global_rank)
        return batch._replace(observation=augment(batch.observation, self.image_transforms, key))

    def read_frames(self) -> Frames:
        """As Stage 1; the cache is filled on the way."""
        self._files = []
        return super().read_frames()

    def read_dataset(self, root: Path, robot: LeRobotEmbodiment) -> Columns:
        """The columns; refuses a dataset that lacks a camera before anything is decoded."""
        columns = super().read_dataset(root, robot)
        urls = {
            local_copy_folder(r) if is_url(r) else Path(r).expanduser(): url
            for r, url in zip(robot.roots, robot.video_urls, strict=False)
        }
        published = source_url(root) or (None if self.needs_videos else hub_snapshot_url(root))
        self._files.append(CameraFiles(columns.recorded, robot.cameras, urls.get(root, published)))
        return columns

    def excluded_episodes(self, dataset: int) -> set[int]:
        """Episodes without a video, where the user said that they are to be left out."""
        if not self.skip_missing_videos:
            return set()
        columns = self._files[dataset].columns
        missing = self._files[dataset].missing_videos(list(range(len(columns.lengths_E))))
        if len(missing) == len(columns.lengths_E):
            raise DataError(f"{columns.root}: no episode has the video of every camera")
        if missing:
            rank_zero_info(
                f"{columns.root}: {len(missing)} of {len(columns.lengths_E)} episodes are left "
                f"out for want of a video: {_listed(missing)}"
            )
        return set(missing)

    def keep_sources(self, datasets: list[Columns], episodes: list[Episode]) -> None:
        """Remember where images and instructions are, and fill the cache."""
        used = {
            d: sorted({e.number for e in episodes if e.dataset == d and e.used})
            for d in range(len(datasets))
        }
        for files, chosen in zip(self._files, used.values(), strict=True):
            if missing := files.missing_videos(chosen):
                raise DataError(
                    f"{next(iter(missing.values()))}; of {len(chosen)} episodes {len(missing)} "
                    f"lack one ({_listed(missing)}): set skip_missing_videos to leave these out"
                )
        size = self._size([files for d, files in enumerate(self._files) if used[d]])
        self._datasets = datasets
        if not self.cache_images:
            self._images = [FrameImages(files, size, self.decoder) for files in self._files]
            return
        limit = None if self.cache_gb is None else round(self.cache_gb * 1e9)
        cache = ImageCache(cache_folder("images", self.cache_dir), limit)
        cached = [CachedFrameImages(files, size, self.decoder, cache) for files in self._files]
        fill_cache(
            cache,
            [
                FrameToDecode(images, episode, camera)
                for images, episodes_used in zip(cached, used.values(), strict=True)
                for episode in episodes_used
                for camera in images.cameras
            ],
        )
        self._images = [*cached]

    # ---- parts --------------------------------------------------------------------------------

    def _size(self, sources: list[CameraFiles]) -> Size:
        if isinstance(self.image_size, int):
            return (self.image_size, self.image_size)
        if self.image_size is not None:
            rows, columns = self.image_size
            return (rows, columns)
        sizes = {
            files.size(camera): f"{files.columns.root} {camera}"
            for files in sources
            for camera in files.cameras
        }
        if len(sizes) > 1:
            raise DataError(f"cameras differ in size: {sizes}; set image_size")
        return next(iter(sizes))


def _listed(episodes: Iterable[int], most: int = 8) -> str:
    first = list(islice(episodes, most + 1))
    return ", ".join(map(str, first[:most])) + (", …" if len(first) > most else "")
