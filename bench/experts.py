"""Measure the scripted experts of the suite: ``python -m bench.experts --seeds 200``."""

from __future__ import annotations

import json
import time
from typing import NamedTuple

import gymnasium as gym
import numpy as np

from actionprior.envs import ENV_IDS
from actionprior.envs.env import TabletopEnv
from actionprior.envs.experts import TabletopExpert
from bench.command_line import run


class ExpertEpisode(NamedTuple):
    """Success, steps and CPU-seconds of one expert episode."""

    success: bool
    steps: int
    seconds: float


def run_episode(env: TabletopEnv, expert: TabletopExpert, seed: int) -> ExpertEpisode:
    """Roll the expert out once, up to the task's step limit.

    Args:
        env: Environment of the suite, which may be wrapped.
        expert: Expert of the environment.
        seed: Seed of scene and expert.
    """
    start = time.process_time()
    env.reset(seed=seed)
    expert.reset(seed)
    body = env.unwrapped
    assert isinstance(body, TabletopEnv)  # a TabletopExpert accepts no other
    success = False
    steps = 0
    while not success and steps < body.step_limit:
        success = bool(env.step(expert())[2])
        steps += 1
    return ExpertEpisode(success, steps, time.process_time() - start)


def bench_experts(
    seeds: int = 200,
    first_seed: int = 0,
    control_mode: str | None = None,
    human: float = 0.0,
    only: str = "",
    failures: bool = False,
) -> None:
    """Measure the success, steps and cost of the scripted experts in every environment.

    Prints a table. The last line is `RESULT` and JSON.

    Args:
        seeds: Episodes per environment.
        first_seed: Seed of the first episode.
        control_mode: Control mode of the robots; by default each robot's own.
        human: Flaws of a human operator, from 0 (none) to 1.
        only: Run only the environments whose id contains this text.
        failures: Print the seeds of failed episodes.
    """
    result = {}
    print(f"{'environment':32} success  steps p10/p50/p90  ms/episode")
    for env_id in ENV_IDS:
        if only not in env_id:
            continue
        env = gym.make(env_id, images=False, control_mode=control_mode).unwrapped
        assert isinstance(env, TabletopEnv)  # every id of the suite makes one
        expert = TabletopExpert(env, human=human)
        tried = range(first_seed, first_seed + seeds)
        episodes = [run_episode(env, expert, seed) for seed in tried]
        env.close()
        steps = np.percentile([e.steps for e in episodes], (10, 50, 90))
        success = float(np.mean([e.success for e in episodes]))
        cost = 1e3 * float(np.mean([e.seconds for e in episodes]))
        result[env_id] = {"success": success, "steps": float(steps[1]), "ms": round(cost, 1)}
        percentiles = "/".join(f"{s:.0f}" for s in steps)
        print(f"{env_id:32} {success:7.1%}  {percentiles:>17}  {cost:10.1f}", flush=True)
        if failures:
            print("  failed:", [s for s, e in zip(tried, episodes, strict=True) if not e.success])
    print("RESULT " + json.dumps(result))


def main(args: list[str] | None = None) -> None:
    """Run the benchmark: see :func:`bench_experts` for its options."""
    run(bench_experts, "experts", args)


if __name__ == "__main__":
    main()
