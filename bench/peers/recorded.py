"""Recordings of a real robot: copies for LeRobot's policies, and errors of actions, open loop.

Axes: T steps of an episode, n_a action features, Y rows, X columns.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from actionprior.data.frame_ranges import Spans
from actionprior.embodiment import Embodiment, FloatArray
from actionprior.recording.lerobot_writer import (
    DatasetFeatures,
    Demonstration,
    RecordedFrame,
    open_dataset,
)
from data_modules import LeRobotVLA
from data_modules.images.windows import VLAWindows

Act = Callable[[RecordedFrame, str], FloatArray]
"""Function from a recorded frame, whose action it must not read, and the instruction to an
action (n_a,)."""


def read_episodes(data: LeRobotVLA, chosen: Spans) -> Iterator[Demonstration]:
    """Yield the episodes that hold chosen frames, at the rate and image size of the data module.

    Args:
        data: Data module of Stage 2 with one dataset, already set up.
        chosen: Frames, such as those at which windows for training start.
    """
    windows = data.windows(training=False)
    assert isinstance(windows, VLAWindows)
    columns, cameras = windows.datasets[0], data.robots[0].cameras
    for number in sorted({columns.episode_at(frame)[0] for frame in chosen.frames().tolist()}):
        start, stop = int(columns.starts_E[number]), int(columns.stops_E[number])
        seen = windows.film(range(start, stop))
        frames = [
            RecordedFrame(
                np.array(columns.state_Ns[t], np.float32),
                {c: i.transpose(1, 2, 0) for c, i in zip(cameras, next(seen), strict=True)},
                np.array(columns.action_Na[t], np.float32),
            )
            for t in range(start, stop)
        ]
        yield Demonstration(columns.task_at(start), frames)


def copy_episodes(data: LeRobotVLA, chosen: Spans, out: Path) -> None:
    """Write episodes as a LeRobot dataset, unless the folder exists.

    Args:
        data: Data module of Stage 2 with one dataset, already set up.
        chosen: Frames whose episodes are written.
        out: Folder to write.
    """
    if out.exists():
        return
    robot, shape = data.robots[0], data.image_shape
    assert shape is not None
    rows, columns = shape.size
    features = DatasetFeatures(
        robot.name,
        round(robot.control_hz),
        robot.state_features,
        robot.action_features,
        dict.fromkeys(robot.cameras, (rows, columns, 3)),
    )
    with open_dataset(features, out) as save:
        for episode in read_episodes(data, chosen):
            save(episode.frames, episode.instruction)


def open_loop_error(
    robot: Embodiment, episode: Demonstration, act: Act, skip: int
) -> dict[str, float]:
    """Return the mean absolute error of each action group, in its unit.

    At each step the policy is shown what was recorded, whatever it chose before.

    Args:
        robot: The robot.
        episode: Recorded episode.
        act: The policy, reset.
        skip: First steps that do not count.
    """
    chosen = np.stack([act(frame, episode.instruction) for frame in episode.frames])
    recorded = np.stack([frame.action for frame in episode.frames])
    error_a = np.abs(chosen - recorded)[skip:].mean(0)
    names = list(robot.action_features)
    return {
        group.name: float(error_a[[names.index(name) for name in group.features]].mean())
        for group in robot.action
    }


class CopyLast:
    """Act that holds the action recorded before a plan, for all steps of it.

    Before the first plan of an episode nothing was recorded, so that its actions are 0.

    Args:
        steps: Steps between two plans.
    """

    def __init__(self, steps: int) -> None:
        self._steps, self._step = steps, 0
        self._held: FloatArray | None = None
        self._last: FloatArray | None = None

    def __call__(self, frame: RecordedFrame, instruction: str) -> FloatArray:
        """Return the held action (n_a,)."""
        if self._held is None or self._step % self._steps == 0:
            self._held = np.zeros_like(frame.action) if self._last is None else self._last
        self._step, self._last = self._step + 1, frame.action
        return self._held
