"""Observations with the images of the cameras, or with cached features of them.

Axes: B batch, C cameras, K = 3 colours, Y rows, X columns, F features.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from actionprior.batch import Observation, VLABatch
from actionprior.data.keyframes import Keyframes
from actionprior.data.store import TrajectoryStore
from data_modules.images.cache import ImageArray
from data_modules.images.features import CachedFeatures
from data_modules.images.frames import FrameImages
from data_modules.lerobot.columns import Columns


class FramePlace(NamedTuple):
    """Place of a frame of the run in its dataset.

    Attributes:
        dataset: Index of the dataset.
        frame: Number of the frame in the dataset.
        episode: Number of its episode.
        row: Row of its image in the recorded episode.
    """

    dataset: int
    frame: int
    episode: int
    row: int


class VLAWindows(Dataset[VLABatch]):
    """Observations with their future chunks, read one batch at a time.

    Args:
        store: Store of the frames, with one recording per dataset.
        datasets: Columns of each dataset.
        images: Images of each dataset.
        chunk_length: Steps H of an action chunk.
        history_length: Past steps H_h.
        features: Cached features of each dataset's images, in place of the images.
        views: Number of cached views per frame; the dataset is indexed by ``views * frame + view``.
    """

    def __init__(
        self,
        store: TrajectoryStore,
        datasets: list[Columns],
        images: list[FrameImages],
        chunk_length: int,
        history_length: int,
        features: list[CachedFeatures] | None = None,
        views: int = 1,
    ) -> None:
        self.store = store
        self.datasets = datasets
        self.images = images
        self.chunk_length = chunk_length
        self.history_length = history_length
        self.features = features
        self.views = views
        self.cameras = max(len(i.cameras) for i in images)
        self._keyframes = Keyframes(store)

    def __len__(self) -> int:
        return self.views * len(self.store)

    def __getitem__(self, number: int) -> VLABatch:
        return self.__getitems__([number])

    def __getitems__(self, numbers: Sequence[int]) -> VLABatch:
        """Gather the finished batch of the observations with some numbers.

        If a file of features is missing, the batch has images and no features.
        """
        frames = [number // self.views for number in numbers]
        frames_B = torch.as_tensor(frames, dtype=torch.int64)
        history, future = self.store.around(frames_B, self.history_length, self.chunk_length)
        places = [self._place(frame) for frame in frames]
        features_BCF = self._features(places, [number % self.views for number in numbers])
        return VLABatch(
            observation=Observation(
                images_BCKYX=self._images(places, read=features_BCF is None),
                camera_mask_BC=self._camera_mask(places),
                task=[self.datasets[p.dataset].task_at(p.frame) for p in places],
                state_BS=future.state_BHS[:, 0].clone(),
                reference_BA=future.reference_BA.clone(),
                history=history,
                embodiment_B=future.embodiment_B.clone(),
                features_BCF=features_BCF,
            ),
            future=future,
            keyframe_BS=self._keyframes.states(frames_B),
        )

    def film(self, frames: Sequence[int]) -> Iterator[list[ImageArray]]:
        """Yield the images of each frame, uint8 (3, Y, X) per camera, decoded in one pass.

        Args:
            frames: Ascending frames of one episode.
        """
        places = [self._place(frame) for frame in frames]
        images, episode = self.images[places[0].dataset], places[0].episode
        rows, which = np.unique([place.row for place in places], return_inverse=True)
        streams = [images.each(episode, camera, rows) for camera in images.cameras]
        shown, current = -1, list[ImageArray]()
        for index in which.tolist():  # a resampled episode may show an image twice
            if index != shown:
                shown, current = index, [next(stream) for stream in streams]
            yield current

    def _place(self, frame: int) -> FramePlace:
        dataset = int(np.searchsorted(self.store.stop_R, frame, side="right"))
        columns = self.datasets[dataset]
        local = frame - (int(self.store.stop_R[dataset]) - len(columns.action_Na))
        episode = columns.episode_at(local)[0]
        return FramePlace(dataset, local, episode, columns.recorded_row(local))

    def _images(self, places: list[FramePlace], *, read: bool) -> Tensor:
        """Read the images (B, C, 3, Y, X), or else return an array without rows and columns."""
        size = self.images[0].image_shape.size if read else (0, 0)
        images = np.zeros((len(places), self.cameras, 3, *size), dtype=np.uint8)
        for b, place in enumerate(places if read else []):
            source = self.images[place.dataset]
            for c, camera in enumerate(source.cameras):
                images[b, c] = source.read(place.episode, place.row, camera)
        return torch.from_numpy(images)

    def _camera_mask(self, places: list[FramePlace]) -> Tensor:
        """Return the mask of the cameras that each frame's robot has."""
        count_B = torch.tensor([len(self.images[place.dataset].cameras) for place in places])
        return torch.arange(self.cameras) < count_B[:, None]

    def _features(self, places: list[FramePlace], views: list[int]) -> Tensor | None:
        """Read the features (B, C, F); None if there are none, or if a file is missing."""
        if self.features is None:
            return None
        any_set = self.features[0]
        features = np.zeros((len(places), self.cameras, any_set.width), any_set.cache.dtype)
        for b, (place, view) in enumerate(zip(places, views, strict=True)):
            source = self.features[place.dataset]
            for c, camera in enumerate(source.cameras):
                row = source.read(place.episode, place.row, camera, view)
                if row is None:
                    return None
                features[b, c] = row
        return torch.from_numpy(features)
