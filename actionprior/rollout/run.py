"""Roll out a chunk policy in a vector of environments.

Axes: B environments that plan together, H chunk steps, A = 37 action slots.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from actionprior.chunk_planner import ChunkPolicy, ExecutedStep, Planner, check_execution
from actionprior.embodiment import FloatArray
from actionprior.embodiment.arrays import Images
from actionprior.embodiment.guard import Guard, GuardMode, Report, warn_caller
from actionprior.rollout.compatibility import ObservationMap, RolloutError, missing_success
from actionprior.rollout.episode import RunningEpisode
from actionprior.rollout.processes import ProcessEnvs
from actionprior.rollout.results import RolloutResult
from actionprior.rollout.robot_env import RobotEnv, find_spec, make_robot_env

DEFAULT_SEED = 900_000_000
"""First seed of evaluation episodes. Demonstrations are never recorded with this or later seeds."""

Vectorization = Literal["sync", "async"]
Environments = SyncVectorEnv | ProcessEnvs


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
    guard: GuardMode = "warn",
    guard_margin: float = 0.1,
) -> RolloutResult:
    """Run episodes with seeds ``seed``, ``seed + 1``, … and return the result of each.

    The first ``execute_steps`` actions of every chunk are executed, then the next chunk is
    planned. Environments that need a plan at the same step share one call of the policy.

    With ``delay_steps``, planning takes that many steps: a plan starts from an observation while
    actions of the previous plan are executed, and begins with these (real-time chunking).

    An episode's result depends only on its seed, up to the rounding of batched inference. Each
    plan draws its flow noise from the episode's seed and its own number, and a finished
    environment is reset without touching the others. Actions are clipped to the action space.

    Args:
        policy: Policy to evaluate, in eval mode.
        env_id: Gymnasium id. The module that registers it must be imported.
        episodes: Number of episodes.
        observation_map: Map from the embodiment's features to the environment's observation.
        embodiment: Name of one of ``policy.embodiments``.
        seed: Seed of the first episode.
        num_envs: Number of environments that run side by side.
        execute_steps: Actions executed of each chunk, at least 1.
        delay_steps: Steps that planning takes, at most ``execute_steps``. The sum of the two must
            not exceed ``policy.chunk_length``.
        env_kwargs: Arguments of ``gymnasium.make``.
        vectorization: ``sync`` runs all environments in this process, ``async`` one process per
            environment.
        record: Number of episodes whose frames are kept, counted from the first.
        max_steps: Time limit that replaces the environment's. Endless environments need one.
        success_key: Key of ``info`` that reports success. None selects ``is_success``, or else
            ``success``. The value at the episode's last step counts.
        device: Device on which the policy expects its input.
        guard: What happens to actions beyond the recorded limits, and to steps larger than any
            recorded: ``warn``, ``clip``, or ``off``. It warns once of each kind. Episodes' results
            have the counts. A policy without ``recorded_ranges`` is compared with nothing.
        guard_margin: Share of the recorded range by which limits and steps may be exceeded.

    Raises:
        RolloutError: The environment or embodiment is unknown, its spaces, cameras or info keys do
            not fit, or the policy's chunk has a wrong shape or is not finite.
        UserError: The guard is unknown, its margin is out of range, or no limits are known and
            actions are to be clipped to them.
    """
    planner = _EpisodePlanner(policy, embodiment, execute_steps, delay_steps, env_id, device)
    if episodes < 1 or num_envs < 1:
        raise RolloutError(
            f"found episodes={episodes} and num_envs={num_envs}, expected both at least 1"
        )
    robot = planner.robot
    limits = planner.guard(guard, guard_margin).same_limits(_warn_once())
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
        planner.image_shape,
    )
    envs = _vector_env(make, min(num_envs, episodes), vectorization)
    try:
        finished = _run(envs, planner, limits, list(range(seed, seed + episodes)))
    except BaseException:
        envs.close(terminate=True)  # processes may wait for a step that never comes
        raise
    envs.close()
    return RolloutResult(env_id, [finished[s].result(robot) for s in sorted(finished)])


class _EpisodePlanner(Planner):
    """Plan for several episodes with one batched call of the policy."""

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
        """Plan from states (B, n_s) and images, and replace the queue of each episode."""
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


def _run(
    envs: Environments, planner: _EpisodePlanner, guard: Guard, seeds: list[int]
) -> dict[int, RunningEpisode]:
    """Run the episodes of all seeds. Park environments when no episode is left."""
    space = envs.single_action_space
    assert isinstance(space, gymnasium.spaces.Box)
    low, high = space.low, space.high
    length = planner.policy.history_length
    waiting = [RunningEpisode(seed, length, guard=guard.same_limits()) for seed in reversed(seeds)]
    slots: list[RunningEpisode | None] = [waiting.pop() for _ in range(envs.num_envs)]
    finished: dict[int, RunningEpisode] = {}
    observation, info = envs.reset(seed=[episode.seed for episode in slots if episode])
    _store_info(slots, info)
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
            if episode.guard is not None:
                episode.guard.check_state(observation["state"][i])
                wanted = episode.guard.check_action(wanted, episode.last_action)
            actions[i] = np.clip(wanted, low, high)
            episode.clipped += int((actions[i] != wanted).sum())
            episode.pairs.append(ExecutedStep(observation["state"][i].copy(), actions[i].copy()))
        observation, reward, terminated, truncated, info = envs.step(actions)
        _store_info(slots, info)
        done = terminated | truncated
        for i, episode in active:
            episode.total_reward += float(reward[i])
            if done[i]:
                if episode.success is None:
                    raise missing_success(planner.env_id)
                finished[episode.seed] = episode
                slots[i] = waiting.pop() if waiting else None
        if done.any():
            # A slot without an episode is reset with seed None, which parks it.
            refill = [episode.seed if episode else None for episode in slots]
            observation, info = envs.reset(seed=refill, options={"reset_mask": done})
            _store_info(slots, info)
    return finished


def _warn_once() -> Report:
    """Return a report that warns of each kind once, however many episodes share it."""
    said: set[str] = set()

    def report(kind: str, text: str) -> None:
        if kind not in said:
            said.add(kind)
            warn_caller(f"{text} (said once per rollout; results count it as guard_{kind})")

    return report


def _store_info(slots: list[RunningEpisode | None], info: dict[str, Any]) -> None:
    """Store each environment's info in its episode. ``info["_key"]`` marks rows that have a key."""
    for i, episode in enumerate(slots):
        if episode is None or "instruction" not in info or not info["_instruction"][i]:
            continue
        episode.instruction = str(info["instruction"][i])
        if "success" in info:
            episode.success = bool(info["success"][i]) if info["_success"][i] else None
        if "frame" in info and info["_frame"][i]:
            episode.frames.append(info["frame"][i].copy())


def _vector_env(
    make: Callable[[], RobotEnv], count: int, vectorization: Vectorization
) -> Environments:
    if vectorization == "sync":
        return SyncVectorEnv([make] * count, autoreset_mode=AutoresetMode.DISABLED)
    if vectorization == "async":
        # Do not fork: this process may hold CUDA and the locks of data workers.
        return ProcessEnvs([make] * count, context="spawn", autoreset_mode=AutoresetMode.DISABLED)
    raise RolloutError(f"vectorization is {vectorization!r}, expected 'sync' or 'async'")
