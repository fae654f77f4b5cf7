"""Measure the scripted experts: ``python -m bench.experts --seeds 200``."""

from __future__ import annotations

import argparse
import json
import time
from typing import NamedTuple

import gymnasium as gym
import numpy as np

from actionprior.envs import ENV_IDS
from actionprior.envs.env import TabletopEnv
from actionprior.envs.experts import TabletopExpert


class Outcome(NamedTuple):
    """One expert episode: whether it succeeded, in how many steps, in how many CPU-seconds."""

    success: bool
    steps: int
    seconds: float


def run_episode(env: TabletopEnv, expert: TabletopExpert, seed: int) -> Outcome:
    """Roll the expert out once, up to the task's step limit."""
    start = time.process_time()
    env.reset(seed=seed)
    expert.reset(seed)
    body = env.unwrapped
    assert isinstance(body, TabletopEnv)  # or it would have no expert
    success = False
    steps = 0
    while not success and steps < body.step_limit:
        success = bool(env.step(expert())[2])
        steps += 1
    return Outcome(success, steps, time.process_time() - start)


def main() -> None:
    """Print a table of all environments, then one line ``RESULT {json}``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="episodes per environment")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--control-mode", default=None, help="instead of each robot's own")
    parser.add_argument("--human", type=float, default=0.0, help="flaws of a person's, 0 to 1")
    parser.add_argument("--only", default="", help="only ids that contain this")
    parser.add_argument("--failures", action="store_true", help="print the seeds that failed")
    options = parser.parse_args()
    result = {}
    print(f"{'environment':32} success  steps p10/p50/p90  ms/episode")
    for env_id in ENV_IDS:
        if options.only not in env_id:
            continue
        made = gym.make(env_id, images=False, control_mode=options.control_mode)
        env = made.unwrapped
        assert isinstance(env, TabletopEnv)  # the suite's ids are
        expert = TabletopExpert(env, human=options.human)
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        outcomes = [run_episode(env, expert, seed) for seed in seeds]
        env.close()
        steps = np.percentile([o.steps for o in outcomes], (10, 50, 90))
        success = float(np.mean([o.success for o in outcomes]))
        cost = 1e3 * float(np.mean([o.seconds for o in outcomes]))
        result[env_id] = {"success": success, "steps": float(steps[1]), "ms": round(cost, 1)}
        shown = "/".join(f"{s:.0f}" for s in steps)
        print(f"{env_id:32} {success:7.1%}  {shown:>17}  {cost:10.1f}", flush=True)
        if options.failures:
            print("  failed:", [s for s, o in zip(seeds, outcomes, strict=True) if not o.success])
    print("RESULT", json.dumps(result))


if __name__ == "__main__":
    main()
