"""Write a policy as two ONNX graphs: from observation to latent, and from latent to actions.

Axes: H chunk or history steps, A = 37 action slots, S = 74 state slots, C cameras, K = 3 colours,
Y rows, X columns, Z latent width. The batch size is 1.
"""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from actionprior.batch import Observation, TrajectoryBatch
from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH
from actionprior.errors import UserError, missing_extra, shorten
from actionprior.networks.policy_network import PolicyNetwork

SEE, ACT = "see.onnx", "act.onnx"
ImageSizes = tuple[int, int] | dict[str, tuple[int, int]]
"""Rows and columns of the images, of all cameras or by camera."""


class OnnxError(UserError):
    """A policy cannot be written as ONNX graphs."""


class SeeGraph(nn.Module):
    """Compute z′ (1, Z) from images, state and past of one robot under one instruction.

    The images are brought to the size of training here, as ``Policy`` does.
    """

    def __init__(self, network: PolicyNetwork, robot: int, task: str) -> None:
        super().__init__()
        self.network, self.task = network, task
        self.register_buffer("embodiment_B", torch.tensor([robot]), persistent=False)

    def forward(
        self,
        images: Tensor | tuple[Tensor, ...],
        state_1S: Tensor,
        history_action_1HA: Tensor,
        history_state_1HS: Tensor,
        history_reference_1A: Tensor,
        history_mask_1H: Tensor,
    ) -> Tensor:
        """Compute z′ from the fields of ``Observation`` and of its history.

        ``images`` are uint8 (1, C, 3, Y, X), or one tensor (1, 3, Y, X) per camera.
        """
        views = images.unbind(1) if isinstance(images, Tensor) else images
        shape = self.network.image_shape
        images_1CKYX = torch.stack([shape.apply(v) if shape else v for v in views], dim=1)
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


class ActGraph(nn.Module):
    """Compute actions (1, H, A) in robot units, with unrolled integration steps."""

    def __init__(self, network: PolicyNetwork, robot: int) -> None:
        super().__init__()
        self.prior, self.steps = network.prior, network.integration_steps
        self.integrator = network.integrator
        row = network.prior_rows(torch.tensor([robot]))
        self.register_buffer("embodiment_B", row, persistent=False)

    def forward(
        self, z_1Z: Tensor, state_1S: Tensor, reference_1A: Tensor, noise_1HA: Tensor
    ) -> Tensor:
        """Compute the actions of ``PolicyNetwork.predict_chunk``."""
        robot = cast(Tensor, self.embodiment_B)
        relative_1HA = self.prior.sample_relative(
            z_1Z, state_1S, robot, noise_1HA, self.steps, self.integrator
        )
        return self.prior.normalizer.absolute_action(relative_1HA, reference_1A, robot)


def export_onnx(
    network: PolicyNetwork, folder: Path, robot: int, task: str, image_size: ImageSizes
) -> None:
    """Write ``see.onnx`` and ``act.onnx`` for one robot and one instruction.

    Args:
        network: Policy to write.
        folder: Folder to write to.
        robot: Index of the robot among the policy's.
        task: Instruction, which becomes a constant of the graph.
        image_size: Rows and columns of the images [pixels], the same for all cameras or by camera.
            With several sizes, the graph has the inputs ``image_0``, ``image_1``, … in the order of
            the robot's cameras in place of ``images``.

    Raises:
        OnnxError: The packages of the extra ``onnx`` are missing, the sizes are not those of the
            robot's cameras, or torch cannot turn the policy's trunk into a graph.
    """
    try:
        import onnxscript  # noqa: F401  # torch.onnx needs it
    except ModuleNotFoundError as error:
        raise OnnxError(missing_extra(error.name or "onnxscript", "onnx")) from error
    network = network.eval().cpu()
    see, sizes = SeeGraph(network, robot, task), network.prior.architecture
    observed = (
        _blank_images(network, robot, image_size),
        torch.zeros(1, STATE_WIDTH),
        torch.zeros(1, sizes.history_length, ACTION_WIDTH),
        torch.zeros(1, sizes.history_length, STATE_WIDTH),
        torch.zeros(1, ACTION_WIDTH),
        torch.ones(1, sizes.history_length, dtype=torch.bool),
    )
    # Fill the cache of text features, so that the graph does not contain the tokeniser.
    with torch.no_grad():
        see(*observed)
    decoded = (
        torch.zeros(1, sizes.latent_width),
        torch.zeros(1, STATE_WIDTH),
        torch.zeros(1, ACTION_WIDTH),
        torch.randn(1, sizes.chunk_length, ACTION_WIDTH),
    )
    folder.mkdir(parents=True, exist_ok=True)
    trunk = type(network.trunk).__name__
    _write(see, observed, "latent", folder / SEE, trunk)
    _write(ActGraph(network, robot), decoded, "action", folder / ACT, trunk)


def _blank_images(
    network: PolicyNetwork, robot: int, image_size: ImageSizes
) -> Tensor | tuple[Tensor, ...]:
    """Return black images in the form in which the graph takes them."""
    cameras = network.embodiments[robot].cameras
    if not isinstance(image_size, dict):
        return torch.zeros(1, len(cameras), 3, *image_size, dtype=torch.uint8)
    if sorted(image_size) != sorted(cameras):
        raise OnnxError(
            f"onnx_image_size has sizes of {sorted(image_size)}, expected those of the robot's "
            f"cameras: {sorted(cameras)}"
        )
    if network.image_shape is None and len(set(map(tuple, image_size.values()))) > 1:
        raise OnnxError(
            f"onnx_image_size is {image_size}, and the checkpoint does not say at which size the "
            "policy sees its cameras; expected one size for all"
        )
    return tuple(torch.zeros(1, 3, *image_size[c], dtype=torch.uint8) for c in cameras)


def _write(graph: nn.Module, inputs: tuple[Any, ...], output: str, path: Path, trunk: str) -> None:
    # Name the inputs as the arguments, without the axes at the end (state_1S becomes state).
    arguments = [name for name in graph.forward.__annotations__ if name != "return"]
    names = [name.rpartition("_")[0] or name for name in arguments]
    if isinstance(inputs[0], tuple):
        names[:1] = [f"image_{number}" for number in range(len(inputs[0]))]
    try:
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
    except torch.onnx.OnnxExporterError as error:
        raise OnnxError(
            f"{path.name} cannot be written: torch cannot turn a policy with {trunk} into an ONNX "
            f"graph ({shorten(error.__cause__ or error, 80)}); export without onnx_image_size"
        ) from error
