"""Scripted demonstrations of the suite, recorded as a LeRobot v3 dataset."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import gymnasium as gym

from actionprior.envs.arms.robots import ControlMode
from actionprior.envs.env import TabletopEnv
from actionprior.envs.experts import TabletopExpert, check_human
from actionprior.envs.tasks import Wordings, check_wordings
from actionprior.errors import UserError
from actionprior.recording.lerobot_writer import (
    DatasetFeatures,
    Demonstration,
    RecordedFrame,
    RecordingSummary,
    TaskToRecord,
    check_recording,
    write_demonstrations,
)

SETTLE_SECONDS = 2.0
"""How long the expert goes on after success [s]: it ends its motion and waits, except where a push
takes longer. At 10 Hz these are 20 steps, more than a chunk, so that near success, too, a whole
chunk follows: with 2 steps policies hovered over the pad without letting go and stopped pushing
short of it, and with 8, nearly half of all chunks were cut short."""
VERSION = 6
"""Goes up when scenes, experts or what is kept of an episode change, so that sets recorded before
are not taken for today's."""
CAMERA_KEY = "observation.images.front"


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
) -> RecordingSummary:
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
    if not env_ids:
        raise UserError("env_ids is empty; name at least one environment")
    check_recording(root, episodes_per_task, seed, overwrite)
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
        return write_demonstrations(
            [_task(env, human) for env in envs],
            _features(envs[0]),
            root,
            episodes_per_task=episodes_per_task,
            seed=seed,
            use_videos=use_videos,
            progress=progress,
        )


def demonstrate(env: TabletopEnv, expert: TabletopExpert, seed: int) -> list[RecordedFrame] | None:
    """One expert episode from reset seed ``seed``, or None where the expert fails."""
    observation, _ = env.reset(seed=seed)
    expert.reset(seed)
    frames: list[RecordedFrame] = []
    left = None
    settle = round(SETTLE_SECONDS * env.control_hz)
    for _ in range(env.step_limit + settle):
        action = expert()
        images = {CAMERA_KEY: observation["image"]} if "image" in observation else {}
        frames.append(RecordedFrame(observation["state"], images, action))
        observation, _, success, _, _ = env.step(action)
        if left is not None:
            left -= 1
        elif success and len(frames) <= env.step_limit:
            left = settle
        if left == 0:
            return frames
    return None


def _task(env: TabletopEnv, human: float) -> TaskToRecord:
    expert = TabletopExpert(env, human=human)

    def episode(seed: int) -> Demonstration | None:
        frames = demonstrate(env, expert, seed)
        return None if frames is None else Demonstration(env.instruction, frames)

    return TaskToRecord(f"{env.robot_name} {env.task_name}", episode)


def _features(env: TabletopEnv) -> DatasetFeatures:
    spaces = env.observation_space.spaces
    images = {CAMERA_KEY: spaces["image"].shape or ()} if "image" in spaces else {}
    return DatasetFeatures(
        env.robot_name, env.control_hz, env.state_names, env.action_names, images
    )


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
