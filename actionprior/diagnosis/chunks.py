"""Predicted chunks and their errors, per action group in the robot's units.

Chunks are in the form in which they are learnt, for positions relative to the robot's state.

Axes: N windows, H steps, A action slots, G action groups, Z latent width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from actionprior.batch import Observation, TrajectoryBatch
from actionprior.diagnosis.measurement import MeasuredValue
from actionprior.diagnosis.windows import Windows, select
from actionprior.embodiment import ACTION_WIDTH, Embodiment
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.training.flow_noise import EVALUATION_KEY, FlowNoise

PART = 64  # rows per call of the network
NOTHING = 1e-6  # errors below count as zero


class Recorded(NamedTuple):
    """Recorded chunks, and the error of a policy that always predicts their mean.

    Attributes:
        robot: The robot.
        chunk_NHA: Recorded chunks.
        mask_NHA: True for steps inside the episode and slots of the robot.
        constant_G: Error of the mean chunk of the training windows, the scale of all shares.
        mean_HA: Mean chunk of the training windows.
    """

    robot: Embodiment
    chunk_NHA: Tensor
    mask_NHA: Tensor
    constant_G: Tensor
    mean_HA: Tensor

    def error(self, predicted_NHA: Tensor) -> Tensor:
        """Mean absolute error of each window and group, (N, G)."""
        return group_distance(self.robot, predicted_NHA, self.chunk_NHA, self.mask_NHA)

    def distance(self, first_NHA: Tensor, second_NHA: Tensor) -> Tensor:
        """Mean absolute distance of two predictions of each window and group, (N, G)."""
        return group_distance(self.robot, first_NHA, second_NHA, self.mask_NHA)

    def shares(self, error_NG: Tensor) -> Tensor:
        """Error of each window as a share of the constant chunk's, (N,): mean over groups."""
        moving_G = self.constant_G > NOTHING
        if not bool(moving_G.any()):
            return torch.zeros(len(error_NG))
        return (error_NG[:, moving_G] / self.constant_G[moving_G]).mean(1)

    def share(self, error_NG: Tensor) -> float:
        """Mean of ``shares``."""
        return float(self.shares(error_NG).mean())

    def measure(self, subject: str, what: str, error_NG: Tensor) -> list[MeasuredValue]:
        """Report a distance per group in the robot's units, and as a share."""
        name, groups = self.robot.name, self.robot.action
        return [
            *(
                MeasuredValue(name, subject, what, group.name, float(error), group.unit)
                for group, error in zip(groups, error_NG.mean(0), strict=True)
            ),
            MeasuredValue(name, subject, what, "share of the constant chunk's error",
                        self.share(error_NG), ""),
        ]  # fmt: skip


def learnt_form(network: PolicyNetwork, windows: Windows) -> tuple[Tensor, Tensor]:
    """Return recorded chunks in the form in which they are learnt, and their mask."""
    future = network.to_prior_rows(windows.future)
    normalizer = network.prior.normalizer
    return normalizer.relative_action(future), normalizer.action_mask(future)


def recorded(network: PolicyNetwork, windows: Windows, training: Windows) -> Recorded:
    """Read the recorded chunks of held-out windows, and compare them with the training's mean."""
    chunk_NHA, mask_NHA = learnt_form(network, windows)
    seen_NHA, seen_mask_NHA = learnt_form(network, training)
    total_HA = torch.where(seen_mask_NHA, seen_NHA, 0.0).sum(0)
    mean_HA = total_HA / seen_mask_NHA.sum(0).clamp(min=1)
    constant_NHA = mean_HA.expand_as(chunk_NHA)
    constant_G = group_distance(windows.robot, constant_NHA, chunk_NHA, mask_NHA).mean(0)
    return Recorded(windows.robot, chunk_NHA, mask_NHA, constant_G, mean_HA)


def group_distance(
    robot: Embodiment, first_NHA: Tensor, second_NHA: Tensor, mask_NHA: Tensor
) -> Tensor:
    """Mean absolute distance over a window's valid steps and a group's entries, (N, G)."""
    apart_NHA = torch.where(mask_NHA, (first_NHA - second_NHA).abs(), 0.0)
    columns = []
    for group in robot.action:
        slots = robot.action_slots(group)
        count_N = mask_NHA[..., slots].sum((1, 2)).clamp(min=1)
        columns.append(apart_NHA[..., slots].sum((1, 2)) / count_N)
    return torch.stack(columns, dim=1)


@torch.no_grad()
def latents(network: PolicyNetwork, observation: Observation) -> Tensor:
    """Compute the policy's latents z′ (N, Z)."""
    parts = range(0, len(observation.task), PART)
    return torch.cat(
        [network.latent(select(observation, slice(first, first + PART))) for first in parts]
    )


@torch.no_grad()
def decode(network: PolicyNetwork, z_NZ: Tensor, observation: Observation, draw: int = 0) -> Tensor:
    """Decode latents to chunks (N, H, A), with the noise of a numbered draw."""
    shape = (len(z_NZ), network.chunk_length, ACTION_WIDTH)
    noise_NHA = FlowNoise(EVALUATION_KEY, draw, 0).normal(*shape, like=z_NZ)
    return torch.cat(
        [
            network.decode(
                z_NZ[first : first + PART],
                select(observation, slice(first, first + PART)),
                noise_NHA[first : first + PART],
            )
            for first in range(0, len(z_NZ), PART)
        ]
    )


def predict(network: PolicyNetwork, observation: Observation) -> Tensor:
    """Predict chunks (N, H, A)."""
    return decode(network, latents(network, observation), observation)


@torch.no_grad()
def encode(network: PolicyNetwork, future: TrajectoryBatch) -> Tensor:
    """Encode recorded chunks as latents z (N, Z)."""
    return network.prior.encode(network.to_prior_rows(future))


def chunk_ends(robot: Embodiment, chunk_NHA: Tensor, mask_NHA: Tensor) -> Tensor:
    """Return where chunks end, (N, A): the last valid step, or the sum of changes."""
    deltas_A = torch.from_numpy(robot.delta_mask())
    valid_NHA = torch.where(mask_NHA, chunk_NHA, 0.0)
    last_N = mask_NHA.any(-1).sum(1).clamp(min=1) - 1
    end_NA = valid_NHA[torch.arange(len(last_N)), last_N]
    return torch.where(deltas_A, valid_NHA.sum(1), end_NA)
