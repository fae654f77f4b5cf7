"""Check for cameras that are black, frozen, swapped, or unreadable.

Only a few frames of some episodes are read, to save time. Axes: E examined episodes, C cameras,
K frames of an episode, F numbers of a thumbnail.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from actionprior.checkup.advice import EXCLUDE, on_robot
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


def cameras(subject: Subject) -> list[Camera]:
    """List the cameras of a dataset whose images can be read."""
    contents = subject.contents
    return [
        Camera(name, _renumbered(subject, read), contents.image_sizes[name])
        for name, read in contents.images.items()
    ]


def _renumbered(subject: Subject, read: Callable[[int, int], Image]) -> Callable[[int, int], Image]:
    return lambda episode, row: read(int(subject.number_E[episode]), row)


class _Glance(NamedTuple):
    rows: list[int]
    images: npt.NDArray[np.float32]  # (K, 3, Y, X)


def check_videos(subject: Subject) -> Iterator[Finding]:
    """Find cameras and videos that are missing, and say which cameras are not looked at."""
    contents = subject.contents
    for camera in subject.robot.cameras if contents.image_sizes else ():
        if camera not in contents.image_sizes:
            known = ", ".join(contents.image_sizes)
            message = f"there is no such camera, only {known}: Stage 1 needs none, Stage 2 does"
            advice = "correct `cameras` on the robot"
            yield subject.say("warning", "unknown_camera", camera, message, advice=advice)
    for camera, episodes in contents.absent_videos.items():
        if lacking := sorted(set(episodes) & set(subject.number_E.tolist())):
            message = (
                f"the video of {len(lacking)} of {len(subject.lengths_E)} episodes is missing "
                f"({', '.join(map(str, lacking[:8]))}{', …' if len(lacking) > 8 else ''}): Stage 1 "
                "needs no video, Stage 2 does"
            )
            advice = "in Stage 2, `--data.images.skip_missing_videos true` excludes them"
            finding = subject.say("note", "absent_video", camera, message, advice=advice)
            yield finding._replace(episode=lacking[0])
    for camera, reason in contents.unread.items():
        yield subject.say("note", "not_looked_at", camera, f"is not looked at: {reason}")


def check_images(subject: Subject, cameras: Sequence[Camera]) -> Iterator[Finding]:
    """Find cameras that are black, frozen, swapped, unreadable, or of different sizes.

    Args:
        subject: Dataset under examination.
        cameras: Cameras to look at.
    """
    count = len(subject.lengths_E)
    episodes = np.unique(np.linspace(0, count - 1, min(count, EPISODES)).round().astype(int))
    thumbnails: dict[tuple[int, str], npt.NDArray[np.float32]] = {}
    found: list[Finding] = []
    for episode in episodes.tolist():
        for camera in cameras:
            if subject.number_E[episode] in subject.contents.absent_videos.get(camera.name, []):
                continue
            try:
                glance = _glance(subject, camera, episode)
                found += _stillness(subject, camera, episode, glance)
            except UserError as error:
                found.append(
                    subject.say(
                        "error",
                        "no_image",
                        camera.name,
                        str(error),
                        episode=episode,
                        episodes=[episode],
                        advice=EXCLUDE,
                    )
                )
                continue
            pooled = torch.nn.functional.adaptive_avg_pool2d(
                torch.from_numpy(glance.images), THUMBNAIL
            )
            thumbnails[episode, camera.name] = pooled.mean(0).flatten().numpy()
    yield from _joined(found)
    yield from _swaps(subject, [c.name for c in cameras], thumbnails)
    yield from _sizes(subject, cameras)


def _sizes(subject: Subject, cameras: Sequence[Camera]) -> Iterator[Finding]:
    if len({camera.size for camera in cameras}) > 1:
        sizes = ", ".join(f"{c.name} {'×'.join(map(str, c.size))}" for c in cameras)
        edge = min(max(camera.size) for camera in cameras)
        advice = (
            f"in Stage 2, `--data.images.image_size {edge} --data.images.fit pad` brings all to "
            "one size and keeps the aspect ratio"
        )
        message = f"cameras differ in size: {sizes}"
        yield subject.say("note", "image_size", "", message, advice=advice)


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
        row = _first_row(
            lambda row: bool(camera.look(episode, row).std() < PLAIN),
            glance.rows[first - 1] + 1 if first else 0,
            glance.rows[first],
        )
        brightness = float(glance.images[first].mean())
        what = "black" if brightness < BLACK else f"one colour (brightness {brightness:.0f})"
        throughout = bool(plain_K.all())
        yield subject.say(
            "error" if throughout else "warning",
            "black" if brightness < BLACK else "plain",
            camera.name,
            f"is {what} in {int(plain_K.sum())} of the {len(plain_K)} examined frames",
            at=start + row,
            episodes=[episode],
            advice=_without(subject, camera, throughout),
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
        held = glance.images[first]
        begin = _first_row(
            lambda row: bool(np.abs(camera.look(episode, row) - held).max() <= SAME),
            glance.rows[first - 1] + 1 if first else 0,
            glance.rows[first],
        )
        yield subject.say(
            "error" if throughout else "warning",
            "frozen",
            camera.name,
            f"shows the same picture {until} while the robot moves",
            at=start + begin,
            episodes=[episode],
            advice=_without(subject, camera, throughout),
        )


def _without(subject: Subject, camera: Camera, throughout: bool) -> str:
    """Say how to exclude the episode, and how to do without the camera."""
    others = [name for name in subject.contents.images if name != camera.name]
    if not (throughout and others):
        return EXCLUDE
    return f"{EXCLUDE}; without this camera: {on_robot(cameras=others)}"


def _first_row(is_so: Callable[[int], bool], first: int, last: int) -> int:
    """Find the first row from which on something holds, given that it holds at ``last``."""
    while first < last:
        middle = (first + last) // 2
        if is_so(middle):
            last = middle
        else:
            first = middle + 1
    return last


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
                episodes=[episodes[index]],
                advice=EXCLUDE,
            )


def _distance(
    pictures_EF: npt.NDArray[np.float32], picture_F: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    distance: npt.NDArray[np.float32] = np.abs(pictures_EF - picture_F).mean(axis=1)
    return distance


def _joined(found: Sequence[Finding]) -> Iterator[Finding]:
    """Keep the first findings per flaw and camera; the last of them counts the rest."""
    for key in dict.fromkeys((f.check, f.feature) for f in found):
        same = [f for f in found if (f.check, f.feature) == key]
        yield from same[: LISTED - 1]
        if len(same) >= LISTED:
            last, more = same[LISTED - 1], len(same) - LISTED
            others = f" (the same in {more} more episodes)" if more else ""
            numbers = tuple(n for f in same[LISTED - 1 :] for n in f.episodes)
            yield last._replace(message=last.message + others, episodes=numbers)
