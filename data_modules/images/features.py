"""Compute the features of a trunk's frozen part once, and read them from a cache on disk.

A file holds one view of one episode of one camera. View 0 is the unchanged image. Further views
are drawn once with the image transforms. A file's path holds a hash of everything that changes its
content: the images, the frozen weights, the transforms and the type of the numbers.
"""

import logging
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from actionprior.data import DataError
from actionprior.files.digest import digest
from actionprior.files.names import file_name
from actionprior.networks.trunks.frozen_part import FrozenPart
from data_modules.images.augmentation import GROUPS, augment_images
from data_modules.images.cache import ArrayCache, Rows, Shape, WriteOutcome
from data_modules.images.filling import fill_cache, missing_items
from data_modules.images.frames import (
    CachedFrameImages,
    EpisodeToDecode,
    FrameImages,
    fill_image_cache,
)
from data_modules.images.mapped_files import MappedFiles

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureSettings:
    """Caching of the features that a trunk's frozen part computes from the images.

    Attributes:
        cache: Train from cached features. They are computed once, before the first step, and
            shared by all runs with the same images and the same frozen weights.
        views: Number of views of each image. View 0 is the unchanged image, with which the policy
            is validated. The others are drawn once with ``image_transforms``. Each training access
            takes a view at random.
        shift: Largest distance by which the images of further views are shifted at random, as a
            share of their width and height. Their features are moved back by as much, so that
            things stay where they are. A thing then lies differently on the network's grid in each
            view, and a trunk learns from fewer scenes to read its place.
        dtype: Type of the stored numbers, ``float16`` or ``float32``.
        cache_gb: Largest size of the cached features [GB], for all runs together; None for no
            limit. The least recently used episodes are deleted first.
    """

    cache: bool = False
    views: int = 1
    shift: float = 0.0
    dtype: str = "float16"
    cache_gb: float | None = None

    def check(self, transforms: Sequence[nn.Module]) -> None:
        """Check the settings.

        Raises:
            DataError: A setting is out of range, or does not fit the image transforms.
        """
        if self.views < 1:
            raise DataError(f"images.features.views is {self.views}, expected 1 or more")
        if self.dtype not in ("float16", "float32"):
            raise DataError(
                f"images.features.dtype is {self.dtype!r}, expected 'float16' or 'float32'"
            )
        if self.cache_gb is not None and not (self.cache_gb > 0 and self.cache):
            raise DataError(
                f"images.features.cache_gb is {self.cache_gb} with cache {self.cache}, expected "
                "a limit above 0 with cache true, or no limit"
            )
        if not 0 <= self.shift < 0.5 or (self.shift and not self.cache):
            raise DataError(
                f"images.features.shift is {self.shift} with cache {self.cache}, expected a share "
                "from 0 to below 0.5, and 0 without a cache"
            )
        if self.cache and (self.views > 1) != (bool(transforms) or self.shift > 0):
            raise DataError(
                f"images.features.views is {self.views} with {len(transforms)} image_transforms "
                f"and shift {self.shift}; expected several views with one of both, or one view "
                "without: cached views are drawn with image_transforms and shift"
            )


class CachedFeatures:
    """Features of one dataset's images, read from a cache.

    Args:
        images: Images of the dataset.
        cache: Cache of features.
        width: Number F of features per image.
        part: Name that changes with the frozen part of the trunk.
        views: Name of each view, which changes with its draws.
        numbered: True if a camera's features also depend on its number in the robot's order.
    """

    def __init__(
        self,
        images: FrameImages,
        cache: ArrayCache,
        width: int,
        part: str,
        views: list[str],
        numbered: bool = False,
    ) -> None:
        self.cameras = images.cameras
        self.cache = cache
        self.width = width
        self.folder = cache.folder / f"{images.name}-{part}-{cache.dtype}"
        self.views = views
        numbers = {camera: f"-{i}" if numbered else "" for i, camera in enumerate(self.cameras)}
        self._camera_folders = {camera: file_name(camera) + numbers[camera] for camera in numbers}
        self._lengths_E = images.columns.lengths_E
        self._mapped = MappedFiles(cache)

    def read(self, episode: int, row: int, camera: str, view: int) -> Rows | None:
        """Read the features (F,) of one image; None if their file is missing or damaged."""
        cached = self._mapped.get(self.locate, episode, camera, view)
        if cached is None:
            return None
        features = cached.row(row)
        if features is None:
            path, _ = self.locate(episode, camera, view)
            self._mapped.delete(path, episode, camera, view)
            _log.warning("%s: row %d is damaged; the episode is computed again", path, row)
        return features

    def locate(self, episode: int, camera: str, view: int) -> tuple[Path, Shape]:
        """Return the path of an episode's file, and the shape (N, F) of its array."""
        folder = self.folder / self._camera_folders[camera] / self.views[view]
        path = folder / f"episode_{episode:06d}.npy"
        return path, (int(self._lengths_E[episode]), self.width)


class FrozenFeatures:
    """Computes features of images, and of their views.

    Args:
        part: Frozen part of the trunk.
        transforms: Transforms that change the images of further views.
        shift: Largest shift of further views, as a share of the image's size.
        dtype: Type of the results.
    """

    def __init__(
        self,
        part: FrozenPart,
        transforms: Sequence[nn.Module],
        shift: float,
        dtype: torch.dtype,
    ) -> None:
        self.part = part
        self.transforms = transforms
        self.shift = shift
        self.dtype = dtype

    @torch.inference_mode()
    def compute(
        self, images: FrameImages, episode: int, camera: str, view: int
    ) -> Iterator[Tensor]:
        """Yield the features of an episode in chunks (N, F).

        Raises:
            DataError: Images cannot be decoded, or features do not fit the type.
        """
        weight = next(self.part.module.parameters())
        row, crop = 0, self.part.crop
        for chunk in images.episode(episode, camera):
            cropped = crop(chunk, list(images.cameras).index(camera)) if crop else chunk
            seen = cropped.to(weight.device)
            if view:
                key = (view, episode, zlib.crc32(camera.encode()))
                seen = torch.cat(
                    [
                        augment_images(few, self.transforms, (*key, row + GROUPS * group))
                        for group, few in enumerate(torch.split(seen, GROUPS))
                    ]
                )
                found = self._shifted_features(seen, (*key, row)).to(self.dtype)
            else:
                found = self.part.features(seen).to(self.dtype)
            if not bool(found.isfinite().all()):
                raise DataError(
                    f"features of episode {episode} of {images.columns.root}, camera {camera!r}, "
                    f"are not finite in {self.dtype}; set images.features.dtype to float32, or "
                    "images.features.cache to false"
                )
            row += len(chunk)
            yield found.cpu()

    def _shifted_features(self, images_NKYX: Tensor, key: Sequence[int]) -> Tensor:
        """Compute the features of images that are shifted, and move them back."""
        if not self.shift or self.part.move is None:
            return self.part.features(images_NKYX)
        size = images_NKYX.shape[-2:]
        most = [max(1, round(self.shift * edge)) for edge in size]
        draw = np.random.default_rng(np.random.SeedSequence([*key, 1]))
        distance_N2 = draw.integers(
            [-m for m in most], [m + 1 for m in most], (len(images_NKYX), 2)
        )
        moved = [shift_image(i, r, c) for i, (r, c) in zip(images_NKYX, distance_N2, strict=True)]
        back_N2 = -torch.from_numpy(distance_N2 / size).flip(1).to(images_NKYX.device)
        return self.part.move(self.part.features(torch.stack(moved)), back_N2.float())


def shift_image(image_KYX: Tensor, rows: int, columns: int) -> Tensor:
    """Shift an image down and to the right; its edges are repeated into the gap."""
    height, width = image_KYX.shape[-2:]
    row_Y = (torch.arange(height, device=image_KYX.device) - rows).clamp(0, height - 1)
    column_X = (torch.arange(width, device=image_KYX.device) - columns).clamp(0, width - 1)
    return image_KYX[:, row_Y][:, :, column_X]


class EpisodeToCompute(NamedTuple):
    """One view of one camera's images of an episode that a run uses."""

    images: FrameImages
    features: CachedFeatures
    frozen: FrozenFeatures
    episode: int
    camera: str
    view: int

    @property
    def path(self) -> Path:
        """Cache file of the view."""
        return self.features.locate(self.episode, self.camera, self.view)[0]

    @property
    def shape(self) -> Shape:
        """Shape of the view's features."""
        return self.features.locate(self.episode, self.camera, self.view)[1]

    def write(self, keep: Collection[Path], wait: bool) -> WriteOutcome:
        """Compute the features into the cache."""
        return self.features.cache.write(
            self.path,
            self.shape,
            lambda: self.frozen.compute(self.images, self.episode, self.camera, self.view),
            keep,
            wait,
        )


class FeatureCache:
    """Cached features of all datasets of a run.

    Args:
        folder: Folder of the cache.
        settings: Settings of the user.
        part: Frozen part of the trunk.
        transforms: Transforms that change the images of further views.
        images: Images of each dataset.
        episodes: Episodes of each dataset that the run uses.

    Attributes:
        sets: Features of each dataset.
        complete: True if all features were in the cache when it was last filled.
    """

    def __init__(
        self,
        folder: Path,
        settings: FeatureSettings,
        part: FrozenPart,
        transforms: Sequence[nn.Module],
        images: Sequence[FrameImages],
        episodes: Sequence[Sequence[int]],
    ) -> None:
        limit = None if settings.cache_gb is None else round(settings.cache_gb * 1e9)
        dtype, name = getattr(torch, settings.dtype), "images.features.cache_gb"
        self.cache = ArrayCache(folder, limit, np.dtype(settings.dtype), "features", name)
        drawn = transforms_name(transforms)
        if settings.shift:
            if part.move is None:
                raise DataError(
                    f"images.features.shift is {settings.shift}, but the features of this trunk "
                    "cannot be moved back; set it to 0, or choose CompactTrunk"
                )
            drawn += f"-shift-{settings.shift:g}"
        views = ["view-0", *(f"view-{view}-{drawn}" for view in range(1, settings.views))]
        identity = part.identity()[:16]
        named = (self.cache, part.width, identity, views, part.crop is not None)
        self.sets = [CachedFeatures(i, *named) for i in images]
        frozen = FrozenFeatures(part, transforms, settings.shift, dtype)
        self._wanted = [
            EpisodeToCompute(source, features, frozen, episode, camera, view)
            for source, features, used in zip(images, self.sets, episodes, strict=True)
            for episode in used
            for camera in source.cameras
            for view in range(settings.views)
        ]
        self.complete = False

    def fill(self) -> None:
        """Compute the features that the cache lacks, and decode images for it if they are cached.

        Raises:
            DataError: The limit is too low for this run, or an episode cannot be computed.
        """
        needed = sum(self.cache.size(item.shape) for item in self._wanted)
        if self.cache.limit is not None and needed > self.cache.limit:
            raise DataError(
                f"the features of this run take {needed / 1e9:.3g} GB and images.features.cache_gb "
                f"is {self.cache.limit / 1e9:.3g}; raise it, or lower images.features.views"
            )
        to_decode = {
            (id(item.images), item.episode, item.camera): EpisodeToDecode(
                item.images, item.episode, item.camera
            )
            for item in missing_items(self.cache, self._wanted)
            if isinstance(item.images, CachedFrameImages)
        }
        if to_decode:
            decoded = [*to_decode.values()]
            fill_image_cache(decoded[0].images.cache, decoded)
        shortage = fill_cache(self.cache, self._wanted, "computing features")
        self.complete = shortage is None
        if shortage is not None:
            rank_zero_warn(
                f"other runs use the room in {self.cache.folder}: {shortage.lacking} of "
                f"{shortage.wanted} episodes (counted per camera and view) have no cached "
                "features, and batches with them are trained on images; raise "
                "images.features.cache_gb"
            )


def transforms_name(transforms: Sequence[nn.Module]) -> str:
    """Return a name that changes with the transforms' classes, settings and weights."""
    return digest(repr(_described(list(transforms))))[:16]


def _described(value: Any) -> object:  # noqa: ANN401  an attribute of a transform
    """Return plain data for a transform's attribute; parts may be modules in lists."""
    if isinstance(value, nn.Module):
        skipped = vars(nn.Module()).keys() - {"_parameters", "_buffers", "_modules"}
        settings = {k: v for k, v in vars(value).items() if k not in skipped}
        return [f"{type(value).__module__}.{type(value).__qualname__}", _described(settings)]
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return sorted((str(key), _described(part)) for key, part in value.items())
    if isinstance(value, list | tuple):
        return [_described(part) for part in value]
    return repr(value)


def frozen_part_of(trainer: Any) -> FrozenPart:  # noqa: ANN401  Lightning's is a union
    """Return the frozen part of the trunk that a trainer trains with.

    Raises:
        DataError: There is no trainer, no trunk, or nothing of the trunk is frozen.
    """
    module = None if trainer is None else trainer.lightning_module
    trunk = getattr(getattr(module, "network", None), "trunk", None)
    advice = "or set images.features.cache to false"
    if trunk is None:
        found = "no Trainer" if module is None else f"a {type(module).__name__} without one"
        raise DataError(
            f"images.features.cache needs the trunk of a VLAModule, and found {found}; pass the "
            f"data module to Trainer.fit, {advice}"
        )
    part: FrozenPart | None = trunk.frozen_part()
    if part is None:
        raise DataError(
            f"images.features.cache needs a trunk whose image network is frozen, and nothing of "
            f"this {type(trunk).__name__} is; freeze it (freeze or freeze_image), choose a "
            f"pretrained trunk, {advice}"
        )
    if any(isinstance(p, DTensor) for p in part.module.parameters()):
        raise DataError(
            "images.features.cache needs the whole trunk on each process, and ShardedStrategy "
            f"shards it; use DDPStrategy, {advice}"
        )
    return part
