"""Predict the chunks of an episode with a checkpoint of either stage.

Axes: B chunks, H steps, A = 37 action slots, n_a the robot's own actions.
"""

from collections.abc import Callable

import torch

from actionprior.batch import TrajectoryBatch, VLABatch
from actionprior.checkpoints import keys
from actionprior.checkpoints.match import agree_on_images
from actionprior.checkpoints.prior import check_robots, load_prior
from actionprior.checkpoints.reading import read_checkpoint
from actionprior.data import EmbodiedDataModule
from actionprior.embodiment import Embodiment, FloatArray
from actionprior.errors import UserError
from actionprior.networks.motion_prior import MotionPrior
from actionprior.networks.trunks.base import TrunkChoice
from actionprior.training.embodied_data import check_lengths
from actionprior.training.flow_noise import EVALUATION_KEY, FlowNoise
from actionprior.vla import VLAModule

Windows = TrajectoryBatch | VLABatch
Predictor = Callable[[Embodiment, Windows], list[FloatArray]]
"""Function of a robot and its windows; returns a chunk (H, n_a) per window, in robot units."""

STEPS = 10  # integration steps, Stage 1's default in evaluation


def load_predictor(path: str, data: EmbodiedDataModule, trunk: TrunkChoice = None) -> Predictor:
    """Load a checkpoint as a function that predicts chunks.

    A policy predicts from observations; a prior reconstructs the recorded chunks.

    Args:
        path: Checkpoint of either stage.
        data: Data module whose windows are predicted.
        trunk: Class of the policy's trunk, or an instance; needed if the class is not part of
            actionprior.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, of neither stage, or of other robots.
        UserError: The windows have another length, or a policy is used with data without images.
    """
    if keys.POLICY in read_checkpoint(path):
        policy = VLAModule.load(path, trunk)
        check_lengths(policy.prior.architecture, data, path)
        check_robots(policy.prior, data.embodiments, path, may_join=False)
        return lambda robot, batch: _predict(policy, path, data, robot, batch)
    prior = load_prior(path).eval()
    check_lengths(prior.architecture, data, path)
    check_robots(prior, data.embodiments, path, may_join=False)
    return lambda robot, batch: _reconstruct(prior, robot, batch)


def _predict(
    policy: VLAModule, path: str, data: EmbodiedDataModule, robot: Embodiment, batch: Windows
) -> list[FloatArray]:
    if not isinstance(batch, VLABatch):
        raise UserError(f"{path} is a policy, which sees images; give the recipe of Stage 2")
    agree_on_images(policy.network, data.image_shape, "the data")
    names = [e.name for e in policy.embodiments]
    if robot.name not in names:
        raise UserError(
            f"{path} is a policy of the robots {names} and does not control the recipe's "
            f"{robot.name!r}; choose another with --robot"
        )
    rows_B = torch.full_like(batch.observation.embodiment_B, names.index(robot.name))
    observation = batch.observation._replace(
        embodiment_B=rows_B, history=batch.observation.history._replace(embodiment_B=rows_B)
    )
    shape = batch.future.action_BHA.shape
    noise_BHA = FlowNoise(EVALUATION_KEY, 0, 0).normal(*shape, like=batch.future.action_BHA)
    chunk_BHA = policy.predict_chunk(observation, noise_BHA)
    return list(robot.action_from_unified(chunk_BHA.numpy()))


@torch.no_grad()
def _reconstruct(prior: MotionPrior, robot: Embodiment, batch: Windows) -> list[FloatArray]:
    window: TrajectoryBatch = batch.future if isinstance(batch, VLABatch) else batch
    rows_B = torch.full_like(window.embodiment_B, prior.index_of(robot.name))
    window = window._replace(embodiment_B=rows_B)
    noise_BHA = FlowNoise(EVALUATION_KEY, 0, 0).normal(
        *window.action_BHA.shape, like=window.action_BHA
    )
    relative_BHA = prior.sample_relative(
        prior.encode(window), window.state_BHS[:, 0], rows_B, noise_BHA, STEPS
    )
    chunk_BHA = prior.normalizer.absolute_action(relative_BHA, window.reference_BA, rows_B)
    return list(robot.action_from_unified(chunk_BHA.numpy()))
