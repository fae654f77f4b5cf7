"""Check for cameras that are black, frozen, swapped, or unreadable.

Only a few frames of some episodes are read, to save time. Axes: E examined episodes, C cameras,
K frames of an episode, F numbers of a thumbnail.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from actionprior.checkup.finding import Finding
from actionprior.checkup.subject import Subject
from actionprior.errors import UserError

EPISODES, FRAMES, THUMBNAIL = 50, 6, 8
BLACK = 8.0  # mean below which a plain picture counts as black, of 255
PLAIN = 2.0  # standard deviation below which a picture has one colour, of 255
SAME = 8.0  # largest difference of equal pictures after video compression, of 255
MOVED = 0.05  # change that counts as motion, as a share of a feature's 1-99 % range
LIKELIER = 0.5  # two cameras count as swapped if swapping reduces the distance to this share
LISTED = 3  # episodes with one flaw that get findings of their own

Image = npt.NDArray[np.uint8]


class Camera(NamedTuple):
    """One camera of a dataset.

    Attributes:
        name: Key of the camera in the dataset.
        look: Function from episode and row to the image, uint8 (3, Y, X).
        size: Rows and columns as recorded.
    """

    name: str
    look: Callable[[int, int], Image]
    size: tuple[int, int]


class _Glance(NamedTuple):
    rows: list[int]
    images: npt.NDArray[np.float32]  # (K, 3, Y, X)


def check_videos(subject: Subject) -> Iterator[Finding]:
    """Find missing videos that the metadata name; Stage 1 does not need them."""
    for camera, episodes in subject.contents.absent_videos.items():
        yield subject.say(
            "note",
            "absent_video",
            camera,
            f"the video of {len(episodes)} of {len(subject.lengths_E)} episodes is missing "
            f"({', '.join(map(str, episodes[:8]))}{', …' if len(episodes) > 8 else ''}): Stage 1 "
            "needs no video, Stage 2 does",
            episode=episodes[0],
        )


def check_images(
    subject: Subject, cameras: Sequence[Camera], excluded: Collection[int] = ()
) -> Iterator[Finding]:
    """Find cameras that are black, frozen, swapped, unreadable, or of different sizes.

    Args:
        subject: Dataset under examination.
        cameras: Cameras to look at.
        excluded: Numbers of the episodes that training does not use.
    """
    used = np.array([e for e in range(len(subject.lengths_E)) if e not in excluded], dtype=int)
    chosen = np.linspace(0, len(used) - 1, min(len(used), EPISODES)).round().astype(int)
    episodes = used[np.unique(chosen)]
    thumbnails: dict[tuple[int, str], npt.NDArray[np.float32]] = {}
    found: list[Finding] = []
    for episode in episodes.tolist():
        for camera in cameras:
            try:
                glance = _glance(subject, camera, episode)
            except UserError as error:
                found.append(
                    subject.say("error", "no_image", camera.name, str(error), episode=episode)
                )
                continue
            found += _stillness(subject, camera, episode, glance)
            pooled = torch.nn.functional.adaptive_avg_pool2d(
                torch.from_numpy(glance.images), THUMBNAIL
            )
            thumbnails[episode, camera.name] = pooled.mean(0).flatten().numpy()
    yield from _few(found)
    yield from _swaps(subject, [c.name for c in cameras], thumbnails)
    yield from _sizes(subject, cameras)


def _sizes(subject: Subject, cameras: Sequence[Camera]) -> Iterator[Finding]:
    if len({camera.size for camera in cameras}) > 1:
        sizes = ", ".join(f"{c.name} {'×'.join(map(str, c.size))}" for c in cameras)
        message = f"cameras differ in size: {sizes}; training resizes all to one size"
        yield subject.say("note", "image_size", "", message)


def _glance(subject: Subject, camera: Camera, episode: int) -> _Glance:
    length = int(subject.lengths_E[episode])
    rows = np.unique(np.linspace(0, length - 1, min(length, FRAMES)).round().astype(int)).tolist()
    images = np.stack([camera.look(episode, row) for row in rows])
    return _Glance(rows, images.astype(np.float32))


def _stillness(
    subject: Subject, camera: Camera, episode: int, glance: _Glance
) -> Iterator[Finding]:
    start = int(subject.start_E[episode])
    deviation_K = glance.images.std(axis=(1, 2, 3))
    plain_K = deviation_K < PLAIN
    if plain_K.any():
        first = int(plain_K.argmax())
        brightness = float(glance.images[first].mean())
        what = "black" if brightness < BLACK else f"one colour (brightness {brightness:.0f})"
        throughout = bool(plain_K.all())
        yield subject.say(
            "error" if throughout else "warning",
            "black" if brightness < BLACK else "plain",
            camera.name,
            f"is {what} in {int(plain_K.sum())} of the {len(plain_K)} examined frames",
            at=start + glance.rows[first],
        )
        if throughout:
            return
    frames = start + np.array(glance.rows)
    same_K = np.abs(np.diff(glance.images, axis=0)).max(axis=(1, 2, 3), initial=0.0) <= SAME
    frozen_K = same_K & _moved(subject, frames)
    if frozen_K.any():
        first = int(frozen_K.argmax())
        throughout = bool(same_K.all())
        row = glance.rows[first + 1]
        until = "throughout the episode" if throughout else f"still at frame {row}"
        yield subject.say(
            "error" if throughout else "warning",
            "frozen",
            camera.name,
            f"shows the same picture {until} while the robot moves",
            at=int(frames[first]),
        )


def _moved(subject: Subject, frames: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Find the pairs of consecutive ``frames`` between which any state moves."""
    low, high = np.quantile(subject.state_ND, [0.01, 0.99], axis=0)
    travel = np.abs(np.diff(subject.state_ND[frames], axis=0))
    moved: npt.NDArray[np.bool_] = (travel > MOVED * np.maximum(high - low, 1e-6)).any(axis=1)
    return moved


def _swaps(
    subject: Subject, cameras: list[str], thumbnails: dict[tuple[int, str], npt.NDArray[np.float32]]
) -> Iterator[Finding]:
    """Find episodes in which two cameras seem to be swapped."""
    for a, b in combinations(cameras, 2):
        episodes = [e for e, name in thumbnails if name == a and (e, b) in thumbnails]
        if len(episodes) < 3:
            continue
        a_EF, b_EF = (np.stack([thumbnails[e, name] for e in episodes]) for name in (a, b))
        a_F, b_F = np.median(a_EF, axis=0), np.median(b_EF, axis=0)
        straight_E = _distance(a_EF, a_F) + _distance(b_EF, b_F)
        crossed_E = _distance(a_EF, b_F) + _distance(b_EF, a_F)
        for index in np.nonzero(crossed_E < LIKELIER * straight_E)[0].tolist():
            yield subject.say(
                "error",
                "camera_swap",
                a,
                f"looks like {b!r} of the other episodes, and {b!r} looks like {a!r} there",
                episode=episodes[index],
            )


def _distance(
    pictures_EF: npt.NDArray[np.float32], picture_F: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    distance: npt.NDArray[np.float32] = np.abs(pictures_EF - picture_F).mean(axis=1)
    return distance


def _few(found: Sequence[Finding]) -> Iterator[Finding]:
    """Keep the first findings per flaw and camera; the last of them counts the rest."""
    for key in dict.fromkeys((f.check, f.feature) for f in found):
        same = [f for f in found if (f.check, f.feature) == key]
        yield from same[: LISTED - 1]
        if len(same) >= LISTED:
            last, more = same[LISTED - 1], len(same) - LISTED
            others = f" (the same in {more} more episodes)" if more else ""
            yield last._replace(message=last.message + others)
