"""Clean recordings of three made-up robots, with the habits of real ones.

Each episode follows smooth strokes between places that differ from episode to episode. The state
follows the command with a delay, a lag and an error of its own per joint, and has sensor noise.
The operator trembles and pauses, a closing gripper stops at the object, and some joints rest.

Axes: T frames of an episode, D features.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from actionprior.checkup import Camera
from actionprior.data import Contents
from actionprior.data.store import Recording
from actionprior.embodiment import ActionGroup, Embodiment, StateGroup
from actionprior.embodiment.rotations import (
    absolute_vector,
    from_quaternion,
    relative_vector,
    to_quaternion,
)

Doubles = npt.NDArray[np.float64]

ALL_TICKS = 4096  # positions of an encoder per turn
PICTURE = (48, 64)


class CleanSet(NamedTuple):
    """Clean recordings of one robot, in memory.

    Attributes:
        robot: The robot.
        contents: Its recordings, timestamps and instruction.
        cameras: Its cameras.
    """

    robot: Embodiment
    contents: Contents
    cameras: list[Camera]


class _Episode(NamedTuple):
    action_Ta: Doubles
    state_Ts: Doubles


def clean_sets(episodes: int, seed: int = 0) -> list[CleanSet]:
    """Make clean recordings of a 6-axis arm, an arm commanded by deltas, and a two-arm robot.

    Args:
        episodes: Number of episodes of each robot.
        seed: Seed of the motions.
    """
    makers = (_six_axes, _deltas, _two_arms)
    return [maker(np.random.default_rng([seed, i]), episodes) for i, maker in enumerate(makers)]


def _six_axes(rng: np.random.Generator, episodes: int) -> CleanSet:
    """Joint targets in degrees from a leader arm, at 30 Hz; the gripper opens from 0 to 100."""
    joints = [f"{name}.pos" for name in ("pan", "lift", "elbow", "pitch", "roll", "yaw")]
    robot = Embodiment(
        "six_axes",
        30,
        [
            ActionGroup("arm", "joints", joints, "joint_position", "deg", 0, "arm"),
            ActionGroup("gripper", "joints", ["gripper.pos"], "gripper", "", 7),
        ],
        [
            StateGroup("arm", "joints", joints, "position", "deg"),
            StateGroup("gripper", "joints", ["gripper.pos"], "gripper", "", 7),
        ],
        ["observation.images.front", "observation.images.wrist"],
    )
    home_D, reach_D = (
        np.array([0.0, -95, 80, 15, 0, 5]),
        np.array([60.0, 60, 50, 40, 4, 70]),
    )
    delay_D, error_D = rng.uniform(1, 3, 6), rng.uniform(-2, 2, 6)

    def episode() -> _Episode:
        path_TD = _strokes(rng, home_D, reach_D, strokes=int(rng.integers(4, 7)), frames=(30, 75))
        state_TD = _follow(path_TD, delay_D, smoothing=0.4) + error_D
        state_TD = _quantised(state_TD + rng.normal(0, 0.05, state_TD.shape), 360 / ALL_TICKS)
        grip, opening = _gripper(rng, len(path_TD), open_at=95.0, shut_at=2.0, object_at=35.0)
        return _join(_quantised(path_TD, 360 / ALL_TICKS), grip, state_TD, opening)

    return _clean_set(rng, robot, [episode() for _ in range(episodes)])


def _deltas(rng: np.random.Generator, episodes: int) -> CleanSet:
    """Changes of the tool's pose per step, at 20 Hz; the state is its pose as a quaternion."""
    turns, moves = ["wx", "wy", "wz"], ["dx", "dy", "dz"]
    robot = Embodiment(
        "deltas",
        20,
        [
            ActionGroup("move", "joints", moves, "end_effector_delta", "m"),
            ActionGroup("turn", "joints", turns, "end_effector_delta", "rad", 3),
            ActionGroup("gripper", "joints", ["grip"], "gripper", "", 7),
        ],
        [
            StateGroup("tool", "end_effector", ["x", "y", "z"], "position", "m"),
            StateGroup(
                "tool_turn",
                "end_effector",
                ["qx", "qy", "qz", "qw"],
                "rotation_quaternion",
                "rad",
                3,
                "quaternion_xyzw",
            ),
            StateGroup("gripper", "joints", ["grip"], "gripper", "", 7),
        ],
        ["observation.images.front"],
    )
    delay_D = rng.uniform(0.5, 1.5, 6)

    def episode() -> _Episode:
        home_D = np.array([0.45, 0.0, 0.3, 0, 0, 0]) + rng.normal(0, 0.01, 6)
        reach_D = np.array([0.15, 0.25, 0.15, 0.25, 0.25, 0.9])
        path_TD = _strokes(rng, home_D, reach_D, strokes=int(rng.integers(4, 7)), frames=(20, 50))
        change_TD = np.diff(path_TD, axis=0, append=path_TD[-1:])
        change_TD[:, 3:] = _turns(_oriented(path_TD[:, 3:]))
        reached_TD = _follow(path_TD, delay_D, smoothing=0.3)
        pose_T3 = reached_TD[:, :3] + rng.normal(0, 2e-4, (len(path_TD), 3))
        turn_T3 = reached_TD[:, 3:] + rng.normal(0, 5e-4, (len(path_TD), 3))
        quaternion_T4 = from_quaternion(
            to_quaternion(_oriented(turn_T3), "axis_angle"), "quaternion_xyzw"
        )
        grip, opening = _gripper(rng, len(path_TD), open_at=1.0, shut_at=-1.0, object_at=-0.2)
        width = 0.04 * (1 + opening)
        state_TD = np.concatenate([pose_T3, quaternion_T4.numpy()], axis=1)
        return _join(change_TD, np.sign(grip), state_TD, width)

    return _clean_set(rng, robot, [episode() for _ in range(episodes)])


def _oriented(turn_T3: Doubles) -> torch.Tensor:
    """Turn a tool that points straight down; rotation vectors (T, 3)."""
    down = torch.tensor([[np.pi, 0.0, 0.0]], dtype=torch.float64)
    return absolute_vector(torch.from_numpy(turn_T3), down.expand(len(turn_T3), 3))


def _turns(vector_T3: torch.Tensor) -> Doubles:
    """Turn from each orientation to the next, in the tool's frame."""
    turns_T3: Doubles = relative_vector(vector_T3.roll(-1, 0), vector_T3).numpy()
    turns_T3[-1] = 0
    return turns_T3


def _two_arms(rng: np.random.Generator, episodes: int) -> CleanSet:
    """Joint targets of two 6-axis arms in radians, at 50 Hz; often only one arm moves."""
    sides = {side: [f"{side}_{i}" for i in range(6)] for side in ("left", "right")}
    action, state = [], []
    for index, (side, joints) in enumerate(sides.items()):
        grip, rest = [f"{side}_gripper"], 7 * index
        action += [
            ActionGroup(side, f"{side}_arm", joints, "joint_position", "rad", 0, side),
            ActionGroup(f"{side}_gripper", f"{side}_hand", grip, "gripper"),
        ]
        state += [
            StateGroup(side, "body", joints, "position", "rad", rest),
            StateGroup(f"{side}_gripper", "body", grip, "gripper", "", rest + 6),
        ]
    robot = Embodiment(
        "two_arms", 50, action, state, [f"observation.images.{side}" for side in sides]
    )
    home_D, reach_D = (
        np.array([0.0, -0.9, 1.2, 0.0, -0.3, 0.0]),
        np.array([0.8, 0.7, 0.6, 0.5, 0.5, 1.2]),
    )
    delay_D = rng.uniform(2, 5, 6)

    def episode() -> _Episode:
        parts: list[_Episode] = []
        strokes = int(rng.integers(4, 7))
        rests = rng.random(2) < 0.2
        length = 0
        for side in range(2):
            size_D = 0.02 * reach_D if rests[side] and not rests.all() else reach_D
            path_TD = _strokes(rng, home_D, size_D, strokes, frames=(50, 110))
            length = length or len(path_TD)
            path_TD = np.concatenate([path_TD, path_TD[-1:].repeat(length, axis=0)])[:length]
            state_TD = _follow(path_TD, delay_D, smoothing=0.5)
            state_TD += rng.normal(0, 2e-4, state_TD.shape)
            grip, opening = _gripper(rng, length, open_at=1.0, shut_at=0.0, object_at=0.4)
            parts.append(_join(path_TD, grip, state_TD, opening))
        return _Episode(*(np.concatenate(both, axis=1) for both in zip(*parts, strict=True)))

    return _clean_set(rng, robot, [episode() for _ in range(episodes)])


def _strokes(
    rng: np.random.Generator,
    home_D: Doubles,
    reach_D: Doubles,
    strokes: int,
    frames: tuple[int, int],
) -> Doubles:
    """Follow minimum-jerk strokes from home to random places and back, with tremor and pauses."""
    width = len(home_D)
    places = [home_D + rng.normal(0, 0.02, width) * reach_D]
    places += [home_D + rng.uniform(-1, 1, width) * reach_D for _ in range(strokes - 1)]
    places.append(home_D + rng.normal(0, 0.04, width) * reach_D)
    parts = [places[0][None].repeat(int(rng.integers(5, 15)), axis=0)]
    for start_D, end_D in pairwise(places):
        share_T1 = np.linspace(0, 1, int(rng.integers(*frames)))[:, None]
        # Joints start and stop at their own times within a stroke.
        begin_D, end = rng.uniform(0, 0.2, width), rng.uniform(0.8, 1, width)
        own_TD = np.clip((share_T1 - begin_D) / (end - begin_D), 0, 1)
        smooth_TD = own_TD**3 * (10 - 15 * own_TD + 6 * own_TD**2)
        parts.append(start_D + smooth_TD * (end_D - start_D))
        if rng.random() < 0.4:
            parts.append(end_D[None].repeat(int(rng.integers(5, 30)), axis=0))
    path_TD = np.concatenate(parts)
    tremor_TD = _smooth_noise(rng, path_TD.shape, frames=12)
    return path_TD + 0.004 * reach_D * tremor_TD


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], frames: int) -> Doubles:
    """Make noise of unit size that changes over a number of frames."""
    kernel = np.hanning(2 * frames + 1)
    noise_TD = rng.normal(0, 1, (shape[0] + 2 * frames, shape[1]))
    columns = [np.convolve(column, kernel, "valid") for column in noise_TD.T]
    smooth_TD: Doubles = np.stack(columns, axis=1) / np.sqrt((kernel**2).sum())
    return smooth_TD


def _follow(path_TD: Doubles, delay_D: Doubles, smoothing: float) -> Doubles:
    """Follow a path like a servo: later by ``delay_D`` frames, with a lag of the first order."""
    time_T = np.arange(len(path_TD))
    followed_TD = np.empty_like(path_TD)
    for entry, delay in enumerate(delay_D):
        late_T = np.interp(time_T - delay, time_T, path_TD[:, entry])
        value = late_T[0]
        for t, wanted in enumerate(late_T):
            value += (1 - smoothing) * (wanted - value)
            followed_TD[t, entry] = value
    return followed_TD


def _gripper(
    rng: np.random.Generator, length: int, open_at: float, shut_at: float, object_at: float
) -> tuple[Doubles, Doubles]:
    """Close on an object and open again; the jaws stop at the object before the command."""
    shut = int(length * rng.uniform(0.2, 0.4))
    again = int(length * rng.uniform(0.6, 0.9))
    command_T = np.full(length, open_at)
    command_T[shut:again] = shut_at
    ramp = np.hanning(9)[1:-1] / np.hanning(9).sum()
    command_T = np.convolve(np.pad(command_T, 3, "edge"), ramp, "valid")
    opening_T = np.interp(np.arange(length) - 3.0, np.arange(length), command_T)
    lower, upper = sorted((open_at, object_at + rng.normal(0, 0.02) * (open_at - shut_at)))
    opening_T = np.clip(opening_T, lower, upper)
    return command_T, opening_T + rng.normal(0, 0.001, length) * (open_at - shut_at)


def _quantised(values_TD: Doubles, step: float) -> Doubles:
    rounded: Doubles = np.round(values_TD / step) * step
    return rounded


def _join(action_TD: Doubles, grip_T: Doubles, state_TD: Doubles, opening_T: Doubles) -> _Episode:
    return _Episode(
        np.concatenate([action_TD, grip_T[:, None]], axis=1),
        np.concatenate([state_TD, opening_T[:, None]], axis=1),
    )


def _clean_set(rng: np.random.Generator, robot: Embodiment, episodes: list[_Episode]) -> CleanSet:
    lengths_E = np.array([len(e.action_Ta) for e in episodes])
    recording = Recording(
        np.concatenate([e.action_Ta for e in episodes]).astype(np.float32),
        np.concatenate([e.state_Ts for e in episodes]).astype(np.float32),
        lengths_E,
        f"{robot.name}_set",
    )
    # A recorder's clock: frames are late by up to 4 % of a period.
    row_N = np.concatenate([np.arange(n) for n in lengths_E])
    late_N = np.where(row_N > 0, np.abs(rng.normal(0, 0.02, len(row_N))).clip(max=0.04), 0)
    contents = Contents(
        recording,
        timestamp_N=(row_N + late_N) / robot.control_hz,
        task_N=(np.arange(len(episodes)) % 2).repeat(lengths_E),
        tasks=["put the cube into the bowl", "lift the red block"],
    )
    look = [_camera(name, recording, index) for index, name in enumerate(robot.cameras)]
    return CleanSet(robot, contents, look)


def _camera(name: str, recording: Recording, seed: int) -> Camera:
    """Film a scene in which a bright patch follows the first two states."""
    scene_3YX = np.random.default_rng([7, seed]).uniform(40, 160, (3, *PICTURE)).astype(np.float32)
    starts_E = np.cumsum(recording.lengths_E) - recording.lengths_E
    low_S, high_S = (np.quantile(recording.state_Ns[:], q, axis=0) for q in (0.01, 0.99))

    def look(episode: int, row: int) -> npt.NDArray[np.uint8]:
        state_S = recording.state_Ns[int(starts_E[episode]) + row]
        share = np.clip((state_S - low_S) / np.maximum(high_S - low_S, 1e-9), 0, 1)
        y, x = int(share[:3].mean() * (PICTURE[0] - 12)), int(share[-4:].mean() * (PICTURE[1] - 12))
        image_3YX = scene_3YX + np.random.default_rng([episode, row]).normal(0, 2, (3, *PICTURE))
        image_3YX[:, y : y + 12, x : x + 12] = 230
        return image_3YX.clip(0, 255).astype(np.uint8)

    return Camera(name, look, PICTURE)
