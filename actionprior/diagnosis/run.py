"""Diagnose a policy: all subjects, for each robot of the data that the policy knows."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from actionprior.data import EmbodiedDataModule
from actionprior.data.frame_ranges import IntArray
from actionprior.diagnosis import chunks
from actionprior.diagnosis.actions import diagnose_actions
from actionprior.diagnosis.closed_loop import diagnose_closed_loop
from actionprior.diagnosis.deployment import diagnose_deployment
from actionprior.diagnosis.grippers import diagnose_grippers
from actionprior.diagnosis.inputs import diagnose_inputs
from actionprior.diagnosis.instructions import diagnose_instructions
from actionprior.diagnosis.latent import diagnose_latent
from actionprior.diagnosis.measurement import Diagnosis, join
from actionprior.diagnosis.places import diagnose_places
from actionprior.diagnosis.readout import diagnose_readout
from actionprior.diagnosis.replay import diagnose_replay
from actionprior.diagnosis.simulator import Simulator
from actionprior.diagnosis.spread import diagnose_spread
from actionprior.diagnosis.windows import Windows, evenly, gather, robot_spans, select
from actionprior.errors import UserError
from actionprior.networks.policy_network import PolicyNetwork

FEWEST = 8


def diagnose_policy(
    network: PolicyNetwork,
    data: EmbodiedDataModule,
    windows: int = 256,
    simulator: Simulator | None = None,
    episodes: int = 5,
    recording_seed: int = 0,
) -> Diagnosis:
    """Measure every subject, and say where the error comes from.

    Args:
        network: The policy, in evaluation mode.
        data: Data module of Stage 2, already set up.
        windows: Number of held-out and of training windows per robot.
        simulator: Environments for closed loop; None: held-out episodes only.
        episodes: Number of rollouts, and of replayed demonstrations, per environment.
        recording_seed: Block of reset seeds that the demonstrations were recorded with.

    Raises:
        UserError: There are too few windows, or the policy knows none of the robots.
    """
    if windows < FEWEST or episodes < 1:
        raise UserError(
            f"windows is {windows} and episodes {episodes}, expected at least {FEWEST} and 1"
        )
    known = [robot.name for robot in network.embodiments]
    robots = [n for n, robot in enumerate(data.embodiments) if robot.name in known]
    if not robots:
        raise UserError(
            f"the policy (--ckpt_path) knows {known}, but the recipe (--config) has the robots "
            f"{[robot.name for robot in data.embodiments]}; give the recipe that the policy was "
            "trained with"
        )
    network.requires_grad_(False)
    if simulator is not None:
        simulator = replace(simulator, image_shape=network.image_shape)
    return join(
        part
        for robot in robots
        for part in _subjects(network, data, robot, windows, simulator, episodes, recording_seed)
    )


def _subjects(
    network: PolicyNetwork,
    data: EmbodiedDataModule,
    robot: int,
    count: int,
    simulator: Simulator | None,
    episodes: int,
    recording_seed: int,
) -> Iterator[Diagnosis]:
    body = data.embodiments[robot]
    index = [e.name for e in network.embodiments].index(body.name)
    held_out, training = _windows(data, robot, index, count)
    recorded = chunks.recorded(network, held_out, training)
    plain_NHA = chunks.predict(network, held_out.observation)
    starts = [gather(data, index, _starts(data, part)) for part in (held_out, training)]
    rows_N = torch.from_numpy(np.searchsorted(starts[0].episode_N, held_out.episode_N))
    first = select(starts[0].observation, rows_N)
    yield diagnose_latent(network, held_out, training, recorded)
    yield diagnose_readout(network, held_out, training)
    yield diagnose_inputs(network, held_out, training, first, recorded, plain_NHA)
    yield diagnose_instructions(network, held_out, training, starts, recorded, plain_NHA)
    yield diagnose_spread(network, held_out, recorded)
    yield diagnose_grippers(network, data, robot, index, count // 2)
    yield diagnose_actions(data, robot, recorded, plain_NHA)
    if simulator is not None and simulator.of_robot(body.name):
        yield diagnose_places(network, held_out, simulator)
        yield diagnose_deployment(data, robot, simulator)
        yield diagnose_replay(data, robot, simulator, recording_seed, episodes)
        yield diagnose_closed_loop(network, data, robot, simulator, episodes)


def _windows(
    data: EmbodiedDataModule, robot: int, index: int, count: int
) -> tuple[Windows, Windows]:
    parts = []
    for kind, spans in (("held-out", data.frames.val), ("training", data.frames.train)):
        own = robot_spans(data, robot, spans)
        if len(own) < FEWEST:
            raise UserError(
                f"robot {data.embodiments[robot].name!r} has {len(own)} {kind} windows, expected "
                f"at least {FEWEST}; hold episodes out (data.val_fraction), or record more"
            )
        parts.append(gather(data, index, evenly(own, count)))
    return parts[0], parts[1]


def _starts(data: EmbodiedDataModule, windows: Windows) -> IntArray:
    """Return the first frames of the windows' episodes, ascending, each once."""
    first_N: IntArray = data.frames.store.start_E[np.unique(windows.episode_N)]
    return first_N
