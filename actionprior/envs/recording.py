"""Scripted demonstrations of the suite, recorded as a LeRobot v3 dataset."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import gymnasium as gym

from actionprior.envs.arms.robots import ControlMode
from actionprior.envs.env import TabletopEnv
from actionprior.envs.experts import TabletopExpert, check_human, check_push
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
"""Time that is recorded after success [s], in which the expert ends its motion and waits.

At 10 Hz it is 20 steps, more than a chunk, so that a whole chunk follows every frame before
success. With 2 steps, policies hovered over the pad without releasing the object, and stopped
pushing too early. With 8 steps, nearly half of all chunks were cut short."""
VERSION = 6
"""Version of scenes, experts and recorded episodes. Increase it when one of them changes, so that
older datasets are not reused."""
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
    push: float = 0.0,
) -> RecordingSummary:
    """Record expert episodes of one robot's tasks into one LeRobot dataset.

    Features: ``observation.state`` and ``action`` (float32, with the environment's names), and
    ``observation.images.front`` (lossless PNG inside parquet, or AV1 video). Frame ``t`` holds
    the observation at ``t`` and the action taken on it. Tasks alternate, so any range of episodes
    contains all of them. An episode ends :data:`SETTLE_SECONDS` after success.

    Reset seeds start at ``seed * 1_000_000``. Each is used once across all tasks. They stay below
    :data:`actionprior.envs.EVALUATION_SEED`, so evaluations never use a recorded scene.

    Args:
        env_ids: Environments of one robot, e.g. ``actionprior/PandaLift-v0``.
        root: Folder of the dataset, which this call creates.
        episodes_per_task: Number of episodes recorded per environment.
        seed: Number of the block of a million reset seeds to use, 0 to 899.
        images: True to record images. False renders nothing, which is much faster.
        image_size: Edge of the images [pixels].
        control_mode: Control mode of the actions. None uses the robot's default.
        use_videos: Store video instead of images. Small videos are slower to write and read.
        overwrite: Replace an existing dataset at ``root``.
        progress: Show a progress bar.
        human: Strength of human-like flaws in the demonstrations (:class:`HumanFlaws`), 0 to 1.
        wordings: Wording of the instructions: ``one`` is always the same, ``train`` and
            ``held_out`` draw one in each episode. ``held_out`` is meant for tests.
        push: Largest speed of random pushes of each tip [m/s] (:class:`TabletopExpert`). The
            recording holds the actions without them, so that demonstrations show the way back.

    Raises:
        UserError: ``root`` exists and ``overwrite`` is False, the environments differ in robot or
            control mode, a number is out of range, or the expert keeps failing.
    """
    root = Path(root).expanduser().absolute()
    env_ids = [env_ids] if isinstance(env_ids, str) else list(env_ids)
    if not env_ids:
        raise UserError("env_ids is empty; name at least one environment")
    check_recording(root, episodes_per_task, seed, overwrite)
    check_human(human)
    check_push(push)
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
            [_task(env, human, push) for env in envs],
            _features(envs[0]),
            root,
            episodes_per_task=episodes_per_task,
            seed=seed,
            use_videos=use_videos,
            progress=progress,
            disturbances={"push": push},
        )


def demonstrate(env: TabletopEnv, expert: TabletopExpert, seed: int) -> list[RecordedFrame] | None:
    """Run one expert episode from a reset seed. Return None if the expert fails."""
    observation, _ = env.reset(seed=seed)
    expert.reset(seed)
    frames: list[RecordedFrame] = []
    left = None
    settle = round(SETTLE_SECONDS * env.control_hz)
    for _ in range(env.step_limit + settle):
        action = expert()
        images = {CAMERA_KEY: observation["image"]} if "image" in observation else {}
        frames.append(RecordedFrame(observation["state"], images, action))
        observation, _, success, _, _ = env.step(expert.executed)
        if left is not None:
            left -= 1
        elif success and len(frames) <= env.step_limit:
            left = settle
        if left == 0:
            return frames
    return None


def _task(env: TabletopEnv, human: float, push: float) -> TaskToRecord:
    expert = TabletopExpert(env, human=human, push=push)

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
            "one dataset holds one robot in one control mode, but these environments have "
            f"{sorted(found)}"
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
    except TypeError as error:  # another environment's constructor lacks these arguments
        raise UserError(refusal) from error
    if not isinstance(env.unwrapped, TabletopEnv):
        raise UserError(refusal)
    return env.unwrapped
