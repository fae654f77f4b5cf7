"""Data of Stage 2: observations, and the chunk of actions that followed in the demonstration."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from actionprior.batch import VLABatch
from actionprior.data import DataError, Frames
from actionprior.embodiment.image_shape import Fit, ImageShape
from data_modules.images.augmentation import augment
from data_modules.images.cache import ArrayCache
from data_modules.images.camera_files import CameraFiles
from data_modules.images.features import FeatureCache, FeatureSettings, frozen_part_of
from data_modules.images.frames import (
    CachedFrameImages,
    EpisodeToDecode,
    FrameImages,
    fill_image_cache,
)
from data_modules.images.video import choose_decoder
from data_modules.images.windows import VLAWindows
from data_modules.lerobot.columns import Columns, LeRobotEmbodiment
from data_modules.lerobot.episodes import Episode
from data_modules.lerobot.remote import hub_snapshot_url, is_url, local_copy_folder, source_url
from data_modules.lerobot.store import cache_folder
from data_modules.lerobot.wordings import check_wordings, reword
from data_modules.trajectories import LeRobotTrajectories, RobotMixture


@dataclass(frozen=True)
class ImageSettings:
    """Size, decoding and caching of the images.

    Attributes:
        image_size: Edge, or [rows, columns], of the images [pixels]. By default the cameras' own
            size, which must then be the same for all. A policy sees images of this size wherever it
            acts.
        fit: How images of another shape are brought to this size: ``stretch`` changes the aspect
            ratio, ``pad`` keeps it with black edges, ``crop`` keeps it without the outer edges.
        cache_images: Decode each episode once, into arrays that later runs memory-map. False
            decodes at each access.
        cache_dir: Folder of the decoded images; by default $ACTIONPRIOR_CACHE or
            ~/.cache/actionprior.
        cache_gb: Largest size of the decoded images [GB], for all runs together; None for no
            limit. The least recently used episodes are deleted first, and images that do not fit
            are decoded at each access.
        video_backend: Decoder of videos, ``torchcodec``, ``pyav`` or ``auto``. The last takes
            torchcodec if it loads, which needs FFmpeg on the system.
        skip_missing_videos: Exclude episodes whose video is missing; False raises an error.
        stream_videos: Download ``repo_ids`` without their videos, and decode the videos from the
            hub, into the cache or at each access. ``video_urls`` of a robot are always streamed.
        features: Caching of the features of a frozen trunk.
    """

    image_size: int | tuple[int, int] | None = None
    fit: Fit = "stretch"
    cache_images: bool = True
    cache_dir: str | None = None
    cache_gb: float | None = None
    video_backend: str = "auto"
    skip_missing_videos: bool = False
    stream_videos: bool = False
    features: FeatureSettings = field(default_factory=FeatureSettings)


class LeRobotVLA(LeRobotTrajectories):
    """Images of the robots' cameras, instruction, state, history and action chunk.

    Args:
        embodiments: Robots with their datasets; ``cameras`` names the images that a policy sees.
        chunk_length: Steps H of an action chunk.
        history_length: Past steps H_h.
        batch_size: Observations per process and training step.
        num_workers: Number of loader processes.
        seed: Seed of the split and of the order.
        val_fraction: Share of each robot's episodes that validates.
        max_episodes: Number of first episodes that are used of each dataset, for all robots or by
            robot.
        max_episodes_per_task: Number of first episodes that are used of each instruction.
        mixture: Share of each robot in training.
        skip_idle: Exclude training windows in which hardly anything moves (see
            ``LeRobotTrajectories``).
        chunk_seconds: Duration of a chunk on every robot (see ``LeRobotTrajectories``).
        val_episodes: Episodes that validate, by robot (see ``LeRobotTrajectories``).
        images: Size, decoding and caching of the images.
        image_transforms: Modules that change the images of training batches at random, such as
            ``data_modules.CropColourBlur`` or transforms of torchvision.transforms.v2. They map
            uint8 (N, 3, Y, X) to the same type and size, on the model's device. Each is called up
            to 16 times per batch.
        robots: Names of the robots that are used, of those in ``embodiments``; by default all.
    """

    needs_videos = True
    reads_images = True

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
        mixture: RobotMixture = RobotMixture(),
        skip_idle: bool | float = False,
        chunk_seconds: float | None = None,
        val_episodes: dict[str, list[int]] | None = None,
        images: ImageSettings = ImageSettings(),
        image_transforms: list[nn.Module] | None = None,
        robots: list[str] | None = None,
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
            mixture,
            skip_idle,
            chunk_seconds=chunk_seconds,
            val_episodes=val_episodes,
            robots=robots,
        )
        for robot in self.robots:
            if not robot.cameras:
                raise DataError(
                    f"embodiment {robot.name!r} names no camera; Stage 2 needs one (data.robots "
                    "chooses robots that have cameras)"
                )
            if robot.video_urls and len(robot.video_urls) != len(robot.roots):
                raise DataError(
                    f"embodiment {robot.name!r} has {len(robot.video_urls)} video_urls for "
                    f"{len(robot.roots)} roots, expected one for each"
                )
        if images.cache_gb is not None and not (images.cache_gb > 0 and images.cache_images):
            raise DataError(
                f"cache_gb is {images.cache_gb} with cache_images {images.cache_images}, expected "
                "a limit above 0 with cache_images true, or no limit"
            )
        self.image_size = images.image_size
        self.fit: Fit = images.fit
        self.cache_images = images.cache_images
        self.cache_dir = images.cache_dir
        self.cache_gb = images.cache_gb
        self.decoder = choose_decoder(images.video_backend)
        self.needs_videos = not images.stream_videos
        self.skip_missing_videos = images.skip_missing_videos
        self.image_transforms = image_transforms or []
        self.features = images.features
        self.features.check(self.image_transforms)
        self.views = images.features.views if images.features.cache else 1
        self._feature_cache: FeatureCache | None = None
        self._wordings = [robot.other_wordings for robot in self.robots]
        # One entry per dataset, in the order in which they are read.
        self._robot_names: list[str] = []
        self._files: list[CameraFiles] = []
        self._images: list[FrameImages] = []
        self._datasets: list[Columns] = []
        self._used: list[list[int]] = []  # episodes

    def prepare_data(self) -> None:
        """Download hub datasets and fill the image cache, in one process."""
        super().prepare_data()
        if self.cache_images:
            self.setup("fit")

    def setup(self, stage: str) -> None:
        """Read the data, once for all stages. Each fit looks for features of its own trunk."""
        self._feature_cache = None
        super().setup(stage)

    def windows(self, training: bool) -> VLAWindows:
        """Build the dataset of observations and chunks.

        Raises:
            DataError: Features are to be cached, and no trunk in training has a frozen part.
        """
        features = self._open_features(training) if self.features.cache else None
        return VLAWindows(
            self.frames.store,
            self._datasets,
            self._images,
            self.chunk_length,
            self.history_length,
            None if features is None else features.sets,
            self.views if training and features is not None else 1,
        )

    def on_after_batch_transfer(self, batch: VLABatch, dataloader_idx: int) -> VLABatch:
        """Change instructions and images of training batches, and restore lost features."""
        trainer: Any = self.trainer
        seen, features = batch.observation, self._feature_cache
        if seen.features_BCF is None and features is not None and features.complete:
            features.fill()  # a file was damaged, or another run needed its room
        if trainer is None or not trainer.training:
            return batch
        micro_batch = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        key = (self.seed, trainer.global_step, micro_batch, trainer.global_rank)
        if any(self._wordings):
            wordings = [self._wordings[i] for i in seen.embodiment_B.tolist()]
            seen = seen._replace(task=reword(seen.task, wordings, key))
        if seen.features_BCF is None and self.image_transforms:
            seen = augment(seen, self.image_transforms, key)
        return batch._replace(observation=seen)

    def read_frames(self) -> Frames:
        """Read the frames as Stage 1 does, and fill the cache of images."""
        self._files, self._robot_names = [], []
        return super().read_frames()

    def read_dataset(self, root: Path, robot: LeRobotEmbodiment) -> Columns:
        """Read the columns; refuse a dataset that lacks a camera before anything is decoded."""
        columns = super().read_dataset(root, robot)
        urls = {
            local_copy_folder(r) if is_url(r) else Path(r).expanduser(): url
            for r, url in zip(robot.roots, robot.video_urls, strict=False)
        }
        remote = source_url(root) or (None if self.needs_videos else hub_snapshot_url(root))
        files = CameraFiles(
            columns.recorded, robot.cameras, urls.get(root, remote), robot.depth_ranges
        )
        for line in files.check_pixels():
            rank_zero_info(line)
        self._files.append(files)
        self._robot_names.append(robot.name)
        return columns

    def excluded_episodes(self, dataset: int) -> set[int]:
        """Return the episodes that lack a video, if ``skip_missing_videos`` is set.

        Raises:
            DataError: No episode has the videos of all cameras.
        """
        if not self.skip_missing_videos:
            return set()
        columns = self._files[dataset].columns
        missing = self._files[dataset].missing_videos(list(range(len(columns.lengths_E))))
        if len(missing) == len(columns.lengths_E):
            raise DataError(f"{columns.root}: no episode has the video of every camera")
        if missing:
            rank_zero_info(
                f"{columns.root}: {len(missing)} of {len(columns.lengths_E)} episodes are "
                f"excluded because a video is missing: {_shortened(missing)}"
            )
        return set(missing)

    def keep_sources(self, datasets: list[Columns], episodes: list[Episode]) -> None:
        """Keep the datasets with their images, and fill the cache of images.

        Raises:
            DataError: A used episode lacks a video, or cameras differ in size.
        """
        used = {
            d: sorted({e.number for e in episodes if e.dataset == d and e.used})
            for d in range(len(datasets))
        }
        for files, chosen in zip(self._files, used.values(), strict=True):
            if missing := files.missing_videos(chosen):
                raise DataError(
                    f"{next(iter(missing.values()))}; of {len(chosen)} episodes {len(missing)} "
                    f"lack one ({_shortened(missing)}): set --data.images.skip_missing_videos "
                    "true to exclude them"
                )
        shape = self._shape([files for d, files in enumerate(self._files) if used[d]])
        self.image_shape = shape
        self.instructions = self._all_instructions(datasets)
        self._datasets, self._used = datasets, [*used.values()]
        if not self.cache_images:
            self._images = [FrameImages(files, shape, self.decoder) for files in self._files]
            return
        limit = None if self.cache_gb is None else round(self.cache_gb * 1e9)
        cache = ArrayCache(cache_folder("images", self.cache_dir), limit)
        self._images = [
            CachedFrameImages(files, shape, self.decoder, cache) for files in self._files
        ]
        if not self.features.cache:
            self._decode_images()

    # ---- parts --------------------------------------------------------------------------------

    def _all_instructions(self, datasets: list[Columns]) -> list[str]:
        """Return the instructions in the data, and their other wordings."""
        found: dict[str, list[str]] = {robot.name: [] for robot in self.robots}
        for columns, name in zip(datasets, self._robot_names, strict=True):
            found[name] += [columns.tasks[i] for i in np.unique(columns.task_N[:]).tolist()]
        for robot in self.robots:
            check_wordings(robot.name, robot.other_wordings, found[robot.name])
            found[robot.name] += [o for others in robot.other_wordings.values() for o in others]
        return [text for texts in found.values() for text in texts]

    def _decode_images(self) -> None:
        """Fill the cache of images."""
        to_decode = [
            EpisodeToDecode(images, episode, camera)
            for images, used in zip(self._images, self._used, strict=True)
            if isinstance(images, CachedFrameImages)
            for episode in used
            for camera in images.cameras
        ]
        if to_decode:
            fill_image_cache(to_decode[0].images.cache, to_decode)

    def _open_features(self, training: bool) -> FeatureCache | None:
        """Fill the cache of features while a model is fitted; its weights are loaded by then.

        Other stages see images.
        """
        trainer: Any = self.trainer
        fitting = trainer is not None and trainer.state.fn == TrainerFn.FITTING
        if not training and not fitting:
            self._decode_images()
            return None
        if self._feature_cache is None:
            self._feature_cache = FeatureCache(
                cache_folder("features", self.cache_dir),
                self.features,
                frozen_part_of(trainer),
                self.image_transforms,
                self._images,
                self._used,
            )
            self._feature_cache.fill()
        return self._feature_cache

    def _shape(self, sources: list[CameraFiles]) -> ImageShape:
        if isinstance(self.image_size, int):
            return ImageShape(self.image_size, self.image_size, self.fit)
        if self.image_size is not None:
            return ImageShape(*self.image_size, self.fit)
        sizes = {
            files.size(camera): f"{files.columns.root} {camera}"
            for files in sources
            for camera in files.cameras
        }
        if len(sizes) > 1:
            raise DataError(
                f"cameras differ in size: {sizes}; set --data.images.image_size "
                f"{min(max(size) for size in sizes)}, and --data.images.fit pad or crop to keep "
                "the aspect ratio"
            )
        return ImageShape(*next(iter(sizes)), self.fit)


def _shortened(episodes: Iterable[int], most: int = 8) -> str:
    """List the first episodes, for a message."""
    first = list(islice(episodes, most + 1))
    return ", ".join(map(str, first[:most])) + (", …" if len(first) > most else "")
