"""Record scripted demonstrations as a LeRobot v3 dataset, written by lerobot itself.

A recording appears whole or not at all: it grows in a hidden folder beside its destination and is
renamed into place when lerobot has closed it.
"""

from __future__ import annotations

import importlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from actionprior.envs import EVALUATION_SEED
from actionprior.envs.env import TabletopEnv
from actionprior.envs.experts import Expert, check_human
from actionprior.envs.robots import ControlMode
from actionprior.envs.tasks import Wordings, check_wordings
from actionprior.errors import UserError
from actionprior.staging import appears_whole

SEEDS_PER_RECORDING = 1_000_000
SETTLE_SECONDS = 2.0
"""How long the expert goes on after success [s]: it ends its motion and waits, except where a push
takes longer. At 10 Hz these are 20 steps, more than a chunk, so that near success, too, a whole
chunk follows: with 2 steps policies hovered over the pad without letting go and stopped pushing
short of it, and with 8, nearly half of all chunks were cut short."""
VERSION = 6
"""Goes up when scenes, experts or what is kept of an episode change, so that sets recorded before
are not taken for today's."""
CAMERA_KEY = "observation.images.front"

_log = logging.getLogger(__name__)


class Recording(NamedTuple):
    """What was recorded.

    Attributes:
        root: the dataset's folder.
        episodes: episodes in it.
        frames: frames in it.
        discarded: expert episodes that failed and were drawn again with the next seed.
        next_seed: first reset seed that the recording did not use.
    """

    root: Path
    episodes: int
    frames: int
    discarded: int
    next_seed: int


class Frame(NamedTuple):
    """One step: the observation and the action that the expert took on it."""

    state: NDArray[np.float32]
    image: NDArray[np.uint8] | None
    action: NDArray[np.float32]


def record_demonstrations(
    env_ids: str | Sequence[str],
    root: Path | str,
    *,
    episodes_per_task: int,
    seed: int = 0,
    images: bool = True,
    image_size: int = 64,
    control_mode: ControlMode | None = None,
    use_videos: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    human: float = 0.0,
    wordings: Wordings = "one",
) -> Recording:
    """Record expert episodes of one robot's tasks into one LeRobot dataset.

    Keys: ``observation.state`` and ``action`` (float32, named as the environment names them), and
    ``observation.images.front`` (lossless PNG inside parquet, or AV1 video). Frame ``t`` holds
    the observation at ``t`` and the action taken on it. Tasks alternate, so that any stretch of
    episodes holds all of them. An episode is kept until success plus :data:`SETTLE_SECONDS`.

    Reset seeds run from ``seed * 1_000_000``, each used once for all tasks together; they stay
    below :data:`actionprior.envs.EVALUATION_SEED`, so no demonstration is ever evaluated on.

    Args:
        env_ids: environments of one robot, e.g. ``actionprior/PandaLift-v0``.
        root: the dataset's folder, made by this call.
        episodes_per_task: episodes recorded for each environment.
        seed: which block of a million reset seeds to use, 0 to 899.
        images: False records states and actions only and renders nothing (much faster).
        image_size: edge of the images [pixels].
        control_mode: None is the robot's own.
        use_videos: store video instead of images; slower to write and to read at small sizes.
        overwrite: replace a dataset that stands at ``root``.
        progress: show a progress bar.
        human: 0 to 1: how much the episodes show the flaws of a person's (:class:`Human`).
        wordings: how instructions are worded: ``one``, or drawn in each episode: ``train``, or
            ``held_out``, which is meant for tests.

    Raises:
        UserError: something stands at ``root`` and ``overwrite`` is False, the environments
            disagree on robot or control mode, or a number is out of range.
        UserError: the expert fails more often than it succeeds.
    """
    root = Path(root).expanduser().absolute()
    env_ids = [env_ids] if isinstance(env_ids, str) else list(env_ids)
    _check(env_ids, root, episodes_per_task, seed, overwrite)
    check_human(human)
    with ExitStack() as stack:
        envs: list[TabletopEnv] = []
        for env_id in env_ids:
            env = _make(
                env_id,
                images=images,
                image_size=image_size,
                control_mode=control_mode,
                wordings=check_wordings(wordings),
            )
            stack.callback(env.close)
            envs.append(env)
        _check_agreement(envs)
        with appears_whole(root) as building, _quiet_datasets():
            return _record(
                envs, root, building, episodes_per_task, seed, use_videos, progress, human
            )


def demonstrate(env: TabletopEnv, expert: Expert, seed: int) -> list[Frame] | None:
    """One expert episode from reset seed ``seed``, or None where the expert fails."""
    observation, _ = env.reset(seed=seed)
    expert.reset(seed)
    frames: list[Frame] = []
    left = None
    settle = round(SETTLE_SECONDS * env.control_hz)
    for _ in range(env.step_limit + settle):
        action = expert()
        frames.append(Frame(observation["state"], observation.get("image"), action))
        observation, _, success, _, _ = env.step(action)
        if left is not None:
            left -= 1
        elif success and len(frames) <= env.step_limit:
            left = settle
        if left == 0:
            return frames
    return None


def _record(
    envs: list[TabletopEnv],
    root: Path,
    building: Path,
    episodes_per_task: int,
    seed: int,
    use_videos: bool,
    progress: bool,
    human: float,
) -> Recording:
    dataset = _create(envs[0], root.name, building, use_videos)
    experts = [Expert(env, human=human) for env in envs]
    next_seed = first_seed = seed * SEEDS_PER_RECORDING
    frame_count = discarded = 0
    total = episodes_per_task * len(envs)
    tqdm: Any = importlib.import_module("tqdm").tqdm
    hidden = not progress or None  # None hides the bar where there is no terminal
    with tqdm(total=total, desc="recording", unit="episode", disable=hidden) as bar:
        for episode in range(total):
            env, expert = envs[episode % len(envs)], experts[episode % len(envs)]
            frames = None
            while frames is None:
                if next_seed - first_seed >= SEEDS_PER_RECORDING:
                    raise UserError(f"all {SEEDS_PER_RECORDING} seeds of this block are used")
                frames = demonstrate(env, expert, next_seed)
                next_seed += 1
                discarded += frames is None
                if discarded > 20 + episode:
                    raise UserError(
                        f"the expert of {env.robot_name} {env.task_name} keeps failing "
                        f"({discarded} of {episode + discarded} episodes)"
                    )
            for frame in frames:
                dataset.add_frame(_row(frame, env.instruction))
            dataset.save_episode()
            frame_count += len(frames)
            bar.update()
    dataset.finalize()
    # lerobot leaves the folder that images were staged in.
    shutil.rmtree(building / "images", ignore_errors=True)
    _log.info("recorded %d episodes (%d discarded) at %s", total, discarded, root)
    return Recording(root, total, frame_count, discarded, next_seed)


def _create(env: TabletopEnv, name: str, folder: Path, use_videos: bool) -> Any:  # noqa: ANN401  lerobot is untyped
    # Imported here: lerobot takes ten CPU-seconds to import.
    dataset_class: Any = importlib.import_module("lerobot.datasets").LeRobotDataset
    features: dict[str, dict[str, Any]] = {
        "observation.state": _vector(env.state_names),
        "action": _vector(env.action_names),
    }
    if "image" in env.observation_space.spaces:
        features[CAMERA_KEY] = {
            "dtype": "video" if use_videos else "image",
            "shape": env.observation_space["image"].shape,
            "names": ["height", "width", "channels"],
        }
    return dataset_class.create(
        repo_id=f"actionprior/{name}",
        fps=env.control_hz,
        features=features,
        root=folder,
        robot_type=env.robot_name,
        use_videos=use_videos,
        video_backend="pyav",  # without it, lerobot warns at length where FFmpeg is missing
        metadata_buffer_size=100,
    )


def _vector(names: tuple[str, ...]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": (len(names),), "names": list(names)}


def _row(frame: Frame, instruction: str) -> dict[str, Any]:
    row = {"observation.state": frame.state, "action": frame.action, "task": instruction}
    return row if frame.image is None else {**row, CAMERA_KEY: frame.image}


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Hide the bar that the ``datasets`` library shows for every episode."""
    datasets = importlib.import_module("datasets")
    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def _check(env_ids: list[str], root: Path, episodes: int, seed: int, overwrite: bool) -> None:
    if not env_ids:
        raise UserError("env_ids is empty; name at least one environment")
    if episodes < 1:
        raise UserError(f"episodes_per_task is {episodes}; it must be at least 1")
    blocks = EVALUATION_SEED // SEEDS_PER_RECORDING
    if not 0 <= seed < blocks:
        raise UserError(f"seed is {seed}; it must be 0 to {blocks - 1}: evaluation owns the rest")
    if root.exists() and not overwrite:
        raise UserError(f"{root} exists already; remove it or pass overwrite=True")


def _check_agreement(envs: list[TabletopEnv]) -> None:
    found = {(env.robot_name, env.control_mode) for env in envs}
    if len(found) > 1:
        raise UserError(
            f"one dataset holds one robot in one control mode, but these are {sorted(found)}"
        )


def _make(
    env_id: str,
    *,
    images: bool,
    image_size: int,
    control_mode: ControlMode | None,
    wordings: Wordings,
) -> TabletopEnv:
    refusal = f"{env_id} has no scripted expert; record one of the actionprior/ environments"
    try:
        env = gym.make(
            env_id,
            images=images,
            image_size=image_size,
            control_mode=control_mode,
            wordings=wordings,
        )
    except TypeError as error:  # another environment's constructor
        raise UserError(refusal) from error
    if not isinstance(env.unwrapped, TabletopEnv):
        raise UserError(refusal)
    return env.unwrapped
