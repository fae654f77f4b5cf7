"""Convert recordings in other formats to a LeRobot v3 dataset.

Axes: T frames of an episode, n entries of a vector.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from actionprior.errors import shown
from actionprior.recording.alignment import Clock, align
from actionprior.recording.formats.episode import (
    ConversionError,
    Frame,
    Layout,
    Pictures,
    SourceEpisode,
    Vector,
)
from actionprior.recording.lerobot_writer import DatasetFeatures, RecordedFrame, open_dataset

CAMERA = "observation.images."


@dataclass(frozen=True)
class Choice:
    """What becomes state, action and cameras, and how time is read.

    Attributes:
        state: Keys of the state, joined in this order; None: by convention of the format.
        action: Keys of the action, joined in this order; empty: by convention of the format.
        cameras: Key of each camera's images; None: by convention of the format.
        state_names: Names of the state's entries; empty: those of the recording.
        action_names: Names of the action's entries; empty: those of the recording.
        next_state: The action is the state this many frames later; 0: the action is recorded.
        task: Instruction of all episodes; empty: that of the recording.
        clock: How time is read.
        swap_red_blue: Exchange the first and the last colour.
    """

    clock: Clock
    state: Sequence[str] | None = None
    action: Sequence[str] = ()
    cameras: dict[str, str] | None = None
    state_names: Sequence[str] = ()
    action_names: Sequence[str] = ()
    next_state: int = 0
    task: str = ""
    swap_red_blue: bool = False


class ConvertedDataset(NamedTuple):
    """Summary of a conversion.

    Attributes:
        root: Folder of the dataset.
        episodes: Number of episodes.
        frames: Number of frames.
    """

    root: Path
    episodes: int
    frames: int


@dataclass(frozen=True)
class ConvertedEpisode:
    """One episode at the dataset's rate.

    Attributes:
        name: File, and place in it, for messages.
        state: State (T, n) with the names of its entries.
        action: Action (T, n) with the names of its entries.
        cameras: Images of each camera, and the index of each frame's image.
        instruction: Task in words.
    """

    name: str
    state: Vector
    action: Vector
    cameras: dict[str, tuple[Pictures, NDArray[np.int64]]] = field(default_factory=dict)
    instruction: str = ""

    def frames(self, swap_red_blue: bool) -> Iterator[RecordedFrame]:
        """Yield the frames.

        Raises:
            ConversionError: An image differs in size from the camera's first one.
        """
        streams = {camera: p.read(index.tolist()) for camera, (p, index) in self.cameras.items()}
        shapes: dict[str, tuple[int, ...]] = {}
        for row in range(len(self.action.values_Tn)):
            images: dict[str, Frame] = {}
            for camera, stream in streams.items():
                image = next(stream)
                images[camera] = image[..., ::-1].copy() if swap_red_blue else image
                if shapes.setdefault(camera, image.shape) != image.shape:
                    raise ConversionError(
                        f"{self.name}: an image of {camera} has the shape {image.shape}, and the "
                        f"first one {shapes[camera]}"
                    )
            state, action = (v.values_Tn[row].astype(np.float32) for v in (self.state, self.action))
            yield RecordedFrame(state, images, action)


def convert_episode(recorded: SourceEpisode, choice: Choice) -> ConvertedEpisode:
    """Bring one episode to the dataset's rate.

    With times, each frame takes the newest sample of each vector and camera. Without, each sample
    is a frame.

    Raises:
        ConversionError: A key is missing, lengths or names do not fit, or values are not finite.
    """
    layout = _layout(recorded, choice)
    state = [recorded.vector(key) for key in layout.state]
    action = [recorded.vector(key) for key in layout.action]
    cameras = {name: recorded.pictures(key) for name, key in layout.cameras.items()}
    series = {**dict(zip(layout.state, state, strict=True))}
    series |= dict(zip(layout.action, action, strict=True))
    lengths = {key: (len(v.values_Tn), v.time_T) for key, v in series.items()}
    lengths |= {layout.cameras[name]: (p.length, p.time_T) for name, p in cameras.items()}
    index = align(recorded, lengths, choice.clock)
    states, actions = (
        _join([(key, series[key], index[key]) for key in keys])
        for keys in (layout.state, layout.action)
    )
    if choice.next_state:
        actions = states._replace(values_Tn=states.values_Tn[choice.next_state :])
    count = len(actions.values_Tn)
    if not count:
        raise ConversionError(
            f"{recorded.name}: has {len(states.values_Tn)} frames, too few for --next_state "
            f"{choice.next_state}"
        )
    if not layout.state:
        states = Vector([], np.zeros((count, 0)))
    task = choice.task or recorded.instruction()
    if not task:
        raise ConversionError(f"{recorded.name}: has no instruction; set --task")
    return ConvertedEpisode(
        recorded.name,
        _named(recorded, "state", states, choice.state_names, count),
        _named(recorded, "action", actions, choice.action_names or _state_names(choice), count),
        {n: (p, index[layout.cameras[n]][:count]) for n, p in cameras.items()},
        task,
    )


def write_dataset(
    episodes: Iterable[SourceEpisode],
    choice: Choice,
    root: Path,
    robot: str = "unknown",
    use_videos: bool = False,
) -> ConvertedDataset:
    """Write all episodes into a LeRobot dataset, completely or not at all.

    Args:
        episodes: Episodes, see ``find_episodes``.
        choice: What becomes state, action and cameras.
        root: Folder of the dataset; an existing one is replaced.
        robot: Name of the robot in the dataset.
        use_videos: Store AV1 video instead of lossless images.

    Raises:
        ConversionError: An episode cannot be converted, or has other names than the first one.
    """
    done = frame_count = 0
    found = (convert_episode(recorded, choice) for recorded in episodes)
    first = next(found, None)
    if first is None:
        raise ConversionError("the recordings hold no episode")
    shapes = {name: next(p.read([0])).shape for name, (p, _) in first.cameras.items()}
    features = DatasetFeatures(
        robot, choice.clock.control_hz, first.state.names, first.action.names, shapes
    )
    episode: ConvertedEpisode | None = first
    with open_dataset(features, root, use_videos) as save:
        while episode is not None:
            _require_same(first, episode)
            frame_count += save(episode.frames(choice.swap_red_blue), episode.instruction)
            done += 1
            episode = next(found, None)
    return ConvertedDataset(root, done, frame_count)


def _layout(recorded: SourceEpisode, choice: Choice) -> Layout:
    """Return the keys that were chosen, or else those by convention, with cameras by full name."""
    usual = recorded.layout
    state = usual.state if choice.state is None else choice.state
    action = choice.action or usual.action
    cameras = usual.cameras if choice.cameras is None else choice.cameras
    if choice.next_state and choice.action:
        raise ConversionError("--action and --next_state exclude each other; give one of them")
    action = [] if choice.next_state else action
    for name, asked, hint in (
        ("state", not state and (choice.state is None or choice.next_state), "--state []"),
        ("action", not action and not choice.next_state, "--next_state 1"),
    ):
        if asked:
            why = "it has none" if name == "state" else "the robot was guided by hand"
            raise ConversionError(
                f"{recorded.name}: which keys are the {name}? Set --{name}, or {hint} if {why}; "
                f"the recording has {shown(recorded.keys(), 400)}"
            )
    for camera in cameras:
        if not re.fullmatch(r"\w[\w.-]*", camera, re.ASCII):
            raise ConversionError(
                f"the camera's name {shown(camera)} has other characters than letters, digits, "
                "_, - and . (--cameras)"
            )
    full = {CAMERA + camera.removeprefix(CAMERA): key for camera, key in cameras.items()}
    return Layout(list(state), list(action), full)


def _state_names(choice: Choice) -> Sequence[str]:
    return choice.state_names if choice.next_state else ()


def _join(parts: Sequence[tuple[str, Vector, NDArray[np.int64]]]) -> Vector:
    if not parts:
        return Vector([], np.zeros((0, 0)))
    values = [vector.values_Tn[index] for _, vector, index in parts]
    return Vector([n for _, vector, _ in parts for n in vector.names], np.concatenate(values, 1))


def _named(
    recorded: SourceEpisode, what: str, vector: Vector, names: Sequence[str], count: int
) -> Vector:
    """Give a vector its final names, and check its values."""
    given = list(names or vector.names)
    if len(given) != vector.values_Tn.shape[1]:
        raise ConversionError(
            f"{recorded.name}: the {what} has {vector.values_Tn.shape[1]} entries, "
            f"{shown(vector.names)}, but --{what}_names has {len(given)}"
        )
    if twice := [name for name in given if given.count(name) > 1]:
        raise ConversionError(
            f"{recorded.name}: the {what} has the name {shown(twice[0])} twice; set --{what}_names"
        )
    values_Tn = vector.values_Tn[:count]
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(values_Tn.astype(np.float32))
    if bad.any():
        row, entry = np.argwhere(bad)[0]
        raise ConversionError(
            f"{recorded.name}: {shown(given[entry])} of the {what} is {values_Tn[row, entry]} at "
            f"frame {row}, expected finite numbers"
        )
    return Vector(given, values_Tn)


def _require_same(first: ConvertedEpisode, other: ConvertedEpisode) -> None:
    for what, known, found in (
        ("state", first.state.names, other.state.names),
        ("action", first.action.names, other.action.names),
        ("cameras", list(first.cameras), list(other.cameras)),
    ):
        if known != found:
            raise ConversionError(
                f"the {what} of {other.name} has {shown(found)}, but that of {first.name} has "
                f"{shown(known)}"
            )
