"""Whether the demonstrations' own actions succeed in the simulator.

Axes: T steps, n_a (a) actions, n_s (s) states.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import numpy as np

from actionprior.data import EmbodiedDataModule
from actionprior.diagnosis.measurement import Diagnosis, MeasuredValue, finding
from actionprior.diagnosis.simulator import Simulator
from actionprior.embodiment import FloatArray
from actionprior.recording.lerobot_writer import SEEDS_PER_RECORDING
from actionprior.rollout.robot_env import RobotEnv

TRIED = 3  # seeds per recorded episode, as failed demonstrations used some
SAME_STATE = 1e-4
WORKS = 0.9


class RecordedEpisode(NamedTuple):
    """A demonstration.

    Attributes:
        action_Ta: Actions (T, n_a).
        state_s: First state (n_s,).
        frame: First frame of the store.
    """

    action_Ta: FloatArray
    state_s: FloatArray
    frame: int


def recorded_episodes(data: EmbodiedDataModule, robot: int) -> Iterator[RecordedEpisode]:
    """Yield a robot's demonstrations."""
    store, first = data.frames.store, 0
    for index, recording in zip(store.robot_R, store.recordings, strict=True):
        stop_E = np.cumsum(recording.lengths_E)
        for start, stop in zip((stop_E - recording.lengths_E).tolist(), stop_E, strict=True):
            if index == robot:
                actions, state = recording.action_Na[start:stop], recording.state_Ns[start]
                yield RecordedEpisode(actions, state, first + start)
        first += len(recording.action_Na)


def diagnose_replay(
    data: EmbodiedDataModule, robot: int, simulator: Simulator, block: int, count: int
) -> Diagnosis:
    """Execute recorded actions from the scenes in which they were recorded.

    The scene of an episode is that of the reset seed that leads to the recorded first state and
    instruction.

    Args:
        data: Data module of Stage 2, already set up.
        robot: Number of the robot in the data.
        simulator: The environments.
        block: Block of reset seeds that the demonstrations were recorded with.
        count: Largest number of episodes that are replayed in each environment.
    """
    body, results = data.embodiments[robot], Diagnosis([], [])
    if not body.state:
        message = "a robot without a state has no first state by which to find recorded scenes"
        return Diagnosis([], [finding("note", "replay", body.name, "", message)])
    episodes = list(recorded_episodes(data, robot))
    firsts = np.stack([episode.state_s for episode in episodes])
    seeds = range(block * SEEDS_PER_RECORDING, block * SEEDS_PER_RECORDING + TRIED * len(episodes))
    for env_id in simulator.of_robot(body.name):
        with closing(simulator.make(env_id, body, look_every=100_000)) as env:
            outcomes: list[bool] = []
            for seed in seeds:
                if len(outcomes) == count:
                    break
                observation, info = env.reset(seed=seed)
                apart_E = np.abs(firsts - observation["state"]).max(axis=1)
                episode = episodes[int(apart_E.argmin())]
                if apart_E.min() < SAME_STATE and info["instruction"] == _task(data, episode):
                    outcomes.append(replay(env, episode.action_Ta))
        part = _describe(body.name, env_id, outcomes, data.disturbed(robot))
        results.measurements.extend(part.measurements)
        results.findings.extend(part.findings)
    return results


def _task(data: EmbodiedDataModule, episode: RecordedEpisode) -> str:
    batch = data.windows(training=False).__getitems__([episode.frame])
    task: str = batch.observation.task[0]
    return task


def replay(env: RobotEnv, action_Ta: FloatArray) -> bool:
    """Execute actions after a reset, and return whether success was reported at some step."""
    for action_a in action_Ta:
        _, _, terminated, truncated, info = env.step(action_a)
        if info.get("success"):
            return True
        if terminated or truncated:
            break
    return False


def _describe(robot: str, env_id: str, outcomes: list[bool], disturbed: bool) -> Diagnosis:
    if not outcomes:
        message = (
            "no reset seed leads to a recorded first state and instruction: nothing was replayed; "
            "give the block of seeds that they were recorded with (--recording_seed)"
        )
        return Diagnosis([], [finding("note", "replay", robot, env_id, message)])
    share = sum(outcomes) / len(outcomes)
    what = f"success of {len(outcomes)} replayed demonstrations"
    rows = [MeasuredValue(robot, "replay", what, env_id, share, "")]
    if share >= WORKS:
        return Diagnosis(rows, [])
    found = f"the demonstrations' own actions succeed in {sum(outcomes)} of {len(outcomes)} replays"
    if disturbed:
        message = (
            f"{found}; they were recorded with noise or pushes, which replays do not repeat, so "
            "these replays say little about units, frame and order of the actions"
        )
        return Diagnosis(rows, [finding("note", "replay", robot, env_id, message)])
    message = (
        f"{found}: no policy that imitates them can do better without correcting; check the "
        "actions' units, frame and order, the control rate, and whether the simulator is the "
        "recorded one. Demonstrations that were disturbed while they were recorded may fail so "
        "without a fault"
    )
    return Diagnosis(rows, [finding("error", "replay", robot, env_id, message)])
