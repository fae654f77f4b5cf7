"""An auxiliary task that makes the latent say where the robot goes next.

Axes: B batch, S = 74 state slots, Z latent width.
"""

from typing import cast

from torch import Tensor, nn

from actionprior.embodiment import STATE_WIDTH
from actionprior.embodiment.normalization import Normalizer
from actionprior.errors import UserError


class KeyframeHead(nn.Module):
    """Predicts the state at the next keyframe from the latent z′.

    A chunk is often known from the robot's state only, and the policy then does not learn to see.
    Where the hand will grasp or end must be seen.
    """

    def __init__(self, latent_width: int, width: int) -> None:
        """Create the layers.

        Args:
            latent_width: Number Z of entries of the latent.
            width: Width of the hidden layer.
        """
        super().__init__()
        self.gain = latent_width**0.5
        self.layers = nn.Sequential(
            nn.Linear(latent_width, width), nn.GELU(), nn.Linear(width, STATE_WIDTH)
        )

    def forward(self, z_BZ: Tensor) -> Tensor:
        """Predict normalised states (B, S) from latents; only the robot's slots mean anything."""
        return cast(Tensor, self.layers(z_BZ * self.gain))

    def loss(
        self, z_BZ: Tensor, keyframe_BS: Tensor | None, normalizer: Normalizer, rows_B: Tensor
    ) -> Tensor:
        """Return the mean squared error over the slots that each robot has.

        Args:
            z_BZ: Latents; with a multiple of B rows, several passes over the same observations.
            keyframe_BS: States at the next keyframe, in the robots' units.
            normalizer: Statistics of the states.
            rows_B: Row of each robot in ``normalizer``.

        Raises:
            UserError: The data give no keyframes.
        """
        if keyframe_BS is None:
            raise UserError(
                "fusion.keyframe_weight is set, but the batches of the data have no keyframe_BS; "
                "set it to 0, or fill VLABatch.keyframe_BS as data_modules.LeRobotVLA does"
            )
        target_BS = normalizer.normalize_state(keyframe_BS[:, None], rows_B)[:, 0]
        mask_BS = normalizer.state_mask_ES[rows_B]
        passes = len(z_BZ) // max(1, len(keyframe_BS))
        error_BS = (self(z_BZ) - target_BS.repeat(passes, 1)).square()
        mask_BS = mask_BS.repeat(passes, 1)
        mean: Tensor = (error_BS * mask_BS).sum() / mask_BS.sum().clamp(min=1)
        return mean
