"""A policy as two ONNX graphs: what is seen becomes a latent, the latent becomes actions.

Axes: H chunk or history steps, A = 37 action slots, S = 74 state slots, C cameras, K = 3 colours,
Y rows, X columns, Z latent width. The batch is one.
"""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from actionprior.batch import Observation, TrajectoryBatch
from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH
from actionprior.errors import UserError, missing_extra
from actionprior.networks.policy_network import PolicyNetwork

SEE, ACT = "see.onnx", "act.onnx"


class OnnxError(UserError):
    """A policy cannot be written as ONNX."""


class See(nn.Module):
    """Images, state and past of one robot under one instruction → z′ (1, Z)."""

    def __init__(self, network: PolicyNetwork, robot: int, task: str) -> None:
        super().__init__()
        self.network, self.task = network, task
        self.register_buffer("embodiment_B", torch.tensor([robot]), persistent=False)

    def forward(
        self,
        images_1CKYX: Tensor,
        state_1S: Tensor,
        history_action_1HA: Tensor,
        history_state_1HS: Tensor,
        history_reference_1A: Tensor,
        history_mask_1H: Tensor,
    ) -> Tensor:
        """See :class:`actionprior.batch.Observation`; history as ``TrajectoryBatch``."""
        embodiment_B = cast(Tensor, self.embodiment_B)
        past = TrajectoryBatch(
            history_action_1HA,
            history_state_1HS,
            history_reference_1A,
            history_mask_1H,
            embodiment_B,
        )
        cameras = torch.ones(1, images_1CKYX.shape[1], dtype=torch.bool)
        unused_1A = history_reference_1A
        return self.network.latent(
            Observation(images_1CKYX, cameras, [self.task], state_1S, unused_1A, past, embodiment_B)
        )


class Act(nn.Module):
    """z′, state and noise → actions (1, H, A) in the robot's units; the flow's steps unrolled."""

    def __init__(self, network: PolicyNetwork, robot: int) -> None:
        super().__init__()
        self.prior, self.steps = network.prior, network.integration_steps
        self.integrator = network.integrator
        row = network.robot_of_prior(torch.tensor([robot]))
        self.register_buffer("embodiment_B", row, persistent=False)

    def forward(
        self, z_1Z: Tensor, state_1S: Tensor, reference_1A: Tensor, noise_1HA: Tensor
    ) -> Tensor:
        """As ``PolicyNetwork.predict_chunk``."""
        robot = cast(Tensor, self.embodiment_B)
        relative_1HA = self.prior.sample_relative(
            z_1Z, state_1S, robot, noise_1HA, self.steps, self.integrator
        )
        return self.prior.normalizer.absolute_action(relative_1HA, reference_1A, robot)


def export_onnx(
    network: PolicyNetwork, folder: Path, robot: int, task: str, image_size: tuple[int, int]
) -> None:
    """Write ``see.onnx`` and ``act.onnx``, for one robot and one instruction.

    Args:
        network: the policy.
        folder: where to.
        robot: index of the embodiment.
        task: the instruction; its words are a part of the graph.
        image_size: rows and columns of the images [pixels].

    Raises:
        OnnxError: the packages of the ``onnx`` extra are missing.
    """
    try:
        import onnxscript  # noqa: F401  # what torch.onnx writes with
    except ModuleNotFoundError as error:
        raise OnnxError(missing_extra(error.name or "onnxscript", "onnx")) from error
    network = network.eval().cpu()
    network.trunk(*_views(network, robot, image_size), [task])  # its words are read once, and kept
    rows = network.prior.architecture
    seen = (
        _views(network, robot, image_size)[0],
        torch.zeros(1, STATE_WIDTH),
        torch.zeros(1, rows.history_length, ACTION_WIDTH),
        torch.zeros(1, rows.history_length, STATE_WIDTH),
        torch.zeros(1, ACTION_WIDTH),
        torch.ones(1, rows.history_length, dtype=torch.bool),
    )
    told = (
        torch.zeros(1, rows.latent_width),
        torch.zeros(1, STATE_WIDTH),
        torch.zeros(1, ACTION_WIDTH),
        torch.randn(1, rows.chunk_length, ACTION_WIDTH),
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write(See(network, robot, task), seen, _names(See), "latent", folder / SEE)
    _write(Act(network, robot), told, _names(Act), "action", folder / ACT)


def _views(
    network: PolicyNetwork, robot: int, image_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    cameras = len(network.embodiments[robot].cameras)
    images = torch.zeros(1, cameras, 3, *image_size, dtype=torch.uint8)
    return images, torch.ones(1, cameras, dtype=torch.bool)


def _names(graph: type[nn.Module]) -> list[str]:
    """Names of the graph's inputs, without the axes that end ours."""
    words = list(graph.forward.__annotations__)
    return [word.rpartition("_")[0] for word in words if word != "return"]


def _write(
    graph: nn.Module, inputs: tuple[Tensor, ...], names: list[str], output: str, path: Path
) -> None:
    with torch.no_grad():
        torch.onnx.export(
            graph.eval(),
            inputs,
            path,
            input_names=names,
            output_names=[output],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
