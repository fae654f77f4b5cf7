"""Success in the simulator, and how far from the demonstrations a policy drifts.

Axes: N and M frames, T steps of an episode, n_s (s) the robot's states.
"""

from typing import NamedTuple

import numpy as np
import torch

from actionprior.data import EmbodiedDataModule
from actionprior.data.frame_ranges import IntArray
from actionprior.diagnosis.measurement import Diagnosis, MeasuredValue, finding
from actionprior.diagnosis.simulator import Simulator
from actionprior.diagnosis.windows import evenly, robot_spans
from actionprior.embodiment import FloatArray
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.rollout import EpisodeResult, RolloutResult, rollout

FRAMES = 4000  # states of the demonstrations to compare with
FAR = 1.5  # distance over that of 95 % of held-out states
LASTING = 3  # chunks in a row that are far
CHUNKS = (1, 5, 20)  # after which the distance is reported
WORKS = 0.9  # success above which drift is no finding


class Demonstrated(NamedTuple):
    """States of the demonstrations.

    Attributes:
        state_Ns: States of training episodes, divided by ``scale_s``.
        scale_s: Deviation of each state feature.
        usual: Distance below which 95 % of held-out states are from their nearest.
    """

    state_Ns: FloatArray
    scale_s: FloatArray
    usual: float


def demonstrated(data: EmbodiedDataModule, robot: int) -> Demonstrated:
    """Read the states of a robot's demonstrations."""
    parts = []
    for spans in (data.frames.train, data.frames.val):
        frame_N = evenly(robot_spans(data, robot, spans), FRAMES)
        parts.append(_states(data, robot, frame_N))
    scale_s = parts[0].std(axis=0)
    scale_s = np.where(scale_s > 1e-6, scale_s, 1.0).astype(np.float32)
    scaled = [part / scale_s for part in parts]
    apart_N = nearest(scaled[1], scaled[0])
    return Demonstrated(scaled[0], scale_s, float(np.quantile(apart_N, 0.95)))


def _states(data: EmbodiedDataModule, robot: int, frame_N: IntArray) -> FloatArray:
    """Read states (N, n_s) in the robot's own order."""
    store, first = data.frames.store, 0
    rows = []
    for index, recording in zip(store.robot_R, store.recordings, strict=True):
        stop = first + len(recording.state_Ns)
        if index == robot:
            inside = frame_N[(frame_N >= first) & (frame_N < stop)] - first
            rows.append(np.asarray(recording.state_Ns[:])[inside])
        first = stop
    return np.concatenate(rows)


def nearest(state_Ms: FloatArray, state_Ns: FloatArray) -> FloatArray:
    """Distance of each of M states from the nearest of N, (M,)."""
    apart_MN = torch.cdist(torch.from_numpy(state_Ms), torch.from_numpy(state_Ns))
    found_M: FloatArray = apart_MN.min(1).values.numpy()
    return found_M


def distances(episode: EpisodeResult, known: Demonstrated, execute_steps: int) -> FloatArray:
    """Distance from the demonstrations before each chunk, in units of ``usual``."""
    state_Ts = episode.state_Ts[::execute_steps] / known.scale_s
    return nearest(state_Ts.astype(np.float32), known.state_Ns) / max(known.usual, 1e-6)


def leaves(course: FloatArray) -> int:
    """Return the chunk from which an episode is far from the demonstrations; 0: never.

    Starts are drawn at random and may be far from all recorded ones; they do not count.
    """
    far = course > FAR
    for chunk in range(1, len(far) - LASTING + 1):
        if far[chunk : chunk + LASTING].all():
            return chunk
    return 0


def diagnose_closed_loop(
    network: PolicyNetwork,
    data: EmbodiedDataModule,
    robot: int,
    simulator: Simulator,
    episodes: int,
) -> Diagnosis:
    """Roll the policy out; report success, and when failed episodes leave the demonstrations."""
    name, results = data.embodiments[robot].name, Diagnosis([], [])
    known = demonstrated(data, robot)
    for env_id in simulator.of_robot(name):
        played = rollout(
            network,
            env_id,
            episodes,
            simulator.observation_map,
            name,
            simulator.seed,
            num_envs=episodes,
            execute_steps=simulator.execute_steps,
            env_kwargs=simulator.env_kwargs,
            max_steps=simulator.max_steps,
            success_key=simulator.success_key,
        )
        part = describe_drift(name, played, known, simulator.execute_steps)
        results.measurements.extend(part.measurements)
        results.findings.extend(part.findings)
    return results


def describe_drift(
    robot: str, played: RolloutResult, known: Demonstrated, execute_steps: int
) -> Diagnosis:
    """Report success and drift of the episodes of one environment."""
    env_id, rows = played.env_id, []
    interval = played.success_interval
    for what, share in (
        ("success", played.success_rate),
        ("success, low end of the 95 % interval", interval.low),
        ("success, high end of the 95 % interval", interval.high),
    ):
        rows.append(MeasuredValue(robot, "closed loop", what, env_id, share, ""))
    failed = [e for e in played.episodes if not e.success]
    courses = [distances(e, known, execute_steps) for e in failed or played.episodes]
    whose = "failed episodes" if failed else "episodes"
    for count in CHUNKS:
        reached = [course[count] for course in courses if len(course) > count]
        if reached:
            what = f"distance of {whose} from the demonstrations after {count} chunks"
            rows.append(MeasuredValue(robot, "closed loop", what, env_id, float(np.median(reached)),
                                    "of held-out 95 %"))  # fmt: skip
    left = [chunk for chunk in map(leaves, courses) if chunk]
    if played.success_rate > WORKS or len(left) <= len(courses) / 2:
        return Diagnosis(rows, [])
    message = (
        f"{len(left)} of {len(courses)} failed episodes leave the demonstrations, typically after "
        f"{int(np.median(left))} chunks of {execute_steps} steps, and end where training has no "
        "data; record recoveries (lightning record --noise), or execute fewer steps per chunk"
    )
    return Diagnosis(rows, [finding("warning", "drift", robot, env_id, message)])
