"""Roll a chunk policy out in a vector of environments.

Axes: B environments that re-plan together, H chunk steps, A = 37 action slots.
"""

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from actionprior.chunk_planner import ChunkPolicy, ExecutedStep, Images, Planner, check_execution
from actionprior.embodiment import FloatArray
from actionprior.rollout.compatibility import ObservationMap, RolloutError
from actionprior.rollout.episode import RunningEpisode
from actionprior.rollout.results import RolloutResult
from actionprior.rollout.robot_env import RobotEnv, find_spec, make_robot_env

DEFAULT_SEED = 900_000_000
"""First seed of evaluation episodes; demonstrations are never recorded with seeds from here on."""

Vectorization = Literal["sync", "async"]
Environments = SyncVectorEnv | AsyncVectorEnv


def rollout(
    policy: ChunkPolicy,
    env_id: str,
    episodes: int,
    observation_map: ObservationMap,
    embodiment: str,
    seed: int = DEFAULT_SEED,
    num_envs: int = 8,
    execute_steps: int = 8,
    delay_steps: int = 0,
    env_kwargs: dict[str, Any] | None = None,
    vectorization: Vectorization = "sync",
    record: int = 0,
    max_steps: int | None = None,
    success_key: str | None = None,
    device: torch.device | str = "cpu",
) -> RolloutResult:
    """Run episodes with seeds ``seed``, ``seed + 1``, … and report each.

    Of every chunk the first ``execute_steps`` actions are executed, then the environment
    re-plans; environments are at different phases and share a call when they happen to coincide.
    With ``delay_steps`` a plan takes as long as so many steps: it starts from an observation
    while actions of the plan before are executed, and begins with these (real-time chunking).
    An episode's result depends on its seed alone (up to the rounding of batched inference): the
    flow noise of its n-th plan comes from a generator of its own, and finished environments are
    refilled without touching the others. Actions are clipped to the action space.

    Args:
        policy: what is evaluated; put it in eval mode first.
        env_id: any Gymnasium id; the module that registers it must be imported.
        episodes: how many.
        observation_map: where the observation holds the embodiment's features.
        embodiment: name of one of ``policy.embodiments``.
        seed: of the first episode.
        num_envs: environments run side by side.
        execute_steps: actions executed of a chunk, from 1 on.
        delay_steps: of a plan, at most ``execute_steps``; the sum of both is at most
            ``policy.chunk_length``.
        env_kwargs: for ``gymnasium.make``.
        vectorization: ``sync`` in this process, ``async`` one process an environment.
        record: number of episodes, from the first, whose frames are kept.
        max_steps: time limit in place of the environment's own; give one to an endless one.
        success_key: key of ``info``; None: ``is_success``, else ``success``. The value at the
            episode's last step counts.
        device: where the policy wants its observations.

    Raises:
        RolloutError: unknown environment or embodiment; spaces, cameras or info keys that do
            not fit; a chunk of wrong shape, or with NaN or inf.
    """
    planner = _Planner(policy, embodiment, execute_steps, delay_steps, env_id, device)
    if episodes < 1 or num_envs < 1:
        raise RolloutError(
            f"found episodes={episodes} and num_envs={num_envs}, expected both at least 1"
        )
    robot = planner.robot
    make = partial(
        make_robot_env,
        find_spec(env_id),
        robot,
        observation_map,
        success_key,
        frozenset(range(seed, seed + min(record, episodes))),
        max_steps,
        env_kwargs or {},
        execute_steps,
    )
    with closing(_vector(make, min(num_envs, episodes), vectorization)) as envs:
        finished = _run(envs, planner, list(range(seed, seed + episodes)))
    return RolloutResult(env_id, [finished[s].result(robot) for s in sorted(finished)])


class _Planner(Planner):
    """Refills the action queues of episodes with one batched call of the policy."""

    def __init__(
        self,
        policy: ChunkPolicy,
        embodiment: str,
        execute_steps: int,
        delay_steps: int,
        env_id: str,
        device: torch.device | str,
    ) -> None:
        super().__init__(policy, embodiment, device)
        check_execution(execute_steps, delay_steps, policy.chunk_length)
        self.env_id = env_id
        self.delay_steps = delay_steps
        self._steps = execute_steps + delay_steps

    def plan(
        self, episodes: list[RunningEpisode], states: FloatArray, images: Images | None
    ) -> None:
        """Replace the queue of each episode, from states (B, n_s) and images."""
        start = time.perf_counter()
        under_way = None
        if self.delay_steps:
            width = len(self.robot.action_features)
            under_way = [np.array(e.queue, np.float32).reshape(-1, width) for e in episodes]
        chunks = self.predict(self.request(episodes, states, images, under_way))[:, : self._steps]
        latency = time.perf_counter() - start
        for episode, queue in zip(episodes, chunks, strict=True):
            if not np.isfinite(queue).all():
                raise RolloutError(
                    f"the policy returned NaN or inf actions at step {len(episode.pairs)} of "
                    f"the episode with seed {episode.seed} in {self.env_id!r}, expected finite ones"
                )
            episode.queue.clear()
            episode.queue.extend(queue)
            episode.latencies_s.append(latency)


def _run(envs: Environments, planner: _Planner, seeds: list[int]) -> dict[int, RunningEpisode]:
    """Run the episodes of all seeds; environments that have none left are parked."""
    space = envs.single_action_space
    assert isinstance(space, gymnasium.spaces.Box)
    low, high = space.low, space.high
    waiting = [RunningEpisode(seed, planner.policy.history_length) for seed in reversed(seeds)]
    slots: list[RunningEpisode | None] = [waiting.pop() for _ in range(envs.num_envs)]
    finished: dict[int, RunningEpisode] = {}
    observation, info = envs.reset(seed=[episode.seed for episode in slots if episode])
    _note(slots, info)
    while any(slots):
        active = [(i, episode) for i, episode in enumerate(slots) if episode]
        due = [(i, episode) for i, episode in active if len(episode.queue) <= planner.delay_steps]
        if due:
            rows = [i for i, _ in due]
            images = observation["images"][rows] if "images" in observation else None
            planner.plan([e for _, e in due], observation["state"][rows], images)
        actions = np.zeros((envs.num_envs, *low.shape), dtype=np.float32)
        for i, episode in active:
            wanted = episode.queue.popleft()
            actions[i] = np.clip(wanted, low, high)
            episode.clipped += int((actions[i] != wanted).sum())
            episode.pairs.append(ExecutedStep(observation["state"][i].copy(), actions[i].copy()))
        observation, reward, terminated, truncated, info = envs.step(actions)
        _note(slots, info)
        done = terminated | truncated
        for i, episode in active:
            episode.total_reward += float(reward[i])
            if done[i]:
                _check_success(episode, planner.env_id)
                finished[episode.seed] = episode
                slots[i] = waiting.pop() if waiting else None
        if done.any():
            # A slot without an episode is reset with seed None, which parks it.
            refill = [episode.seed if episode else None for episode in slots]
            observation, info = envs.reset(seed=refill, options={"reset_mask": done})
            _note(slots, info)
    return finished


def _note(slots: list[RunningEpisode | None], info: dict[str, Any]) -> None:
    """Hand each episode what its environment told; ``_key`` marks the rows that did."""
    for i, episode in enumerate(slots):
        if episode is None or "instruction" not in info or not info["_instruction"][i]:
            continue
        episode.instruction = str(info["instruction"][i])
        if "success" in info:
            episode.success = bool(info["success"][i]) if info["_success"][i] else None
        if "frame" in info and info["_frame"][i]:
            episode.frames.append(info["frame"][i].copy())


def _check_success(episode: RunningEpisode, env_id: str) -> None:
    if episode.success is None:
        raise RolloutError(
            f"environment {env_id!r} does not tell success: its info at the end of an episode has "
            "neither 'is_success' nor 'success' (nor the given key); pass success_key"
        )


def _vector(make: Callable[[], RobotEnv], count: int, vectorization: Vectorization) -> Environments:
    if vectorization == "sync":
        return SyncVectorEnv([make] * count, autoreset_mode=AutoresetMode.DISABLED)
    if vectorization == "async":
        # Not forked: this process may hold CUDA and the locks of data workers.
        return AsyncVectorEnv(
            [make] * count, context="spawn", autoreset_mode=AutoresetMode.DISABLED
        )
    raise RolloutError(f"vectorization is {vectorization!r}, expected 'sync' or 'async'")
