"""Random changes to training images; a run and its resumption draw the same ones."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from actionprior.batch import Observation
from actionprior.data import DataError

PARTS = 16
"""Of a batch, at most; the images of one are changed alike."""


class CropColourBlur(nn.Module):
    """What differs between two days with one camera: its place, the light, the focus.

    Nothing is mirrored and no hue is turned: instructions speak of sides and colours.

    Args:
        crop: least share of the image's area that is kept; what is kept fills the image again.
        colour: how far brightness, contrast and saturation go, as a share of themselves.
        blur: how probable a blur is.
    """

    def __init__(self, crop: float = 0.8, colour: float = 0.2, blur: float = 0.2) -> None:
        from torchvision.transforms import v2

        super().__init__()
        if not (0 < crop <= 1 and 0 <= colour <= 1 and 0 <= blur <= 1):
            raise DataError(
                f"CropColourBlur has crop {crop}, colour {colour} and blur {blur}, expected each "
                "from 0 to 1, and crop above 0"
            )
        self.crop = crop
        self.look = v2.Compose(
            [
                v2.ColorJitter(brightness=colour, contrast=colour, saturation=colour),
                v2.RandomApply([v2.GaussianBlur(kernel_size=5, sigma=(0.1, 1.5))], p=blur),
            ]
        )

    def forward(self, images: Tensor) -> Tensor:
        """Change images (..., 3, Y, X), uint8, all alike."""
        from torchvision.transforms import v2

        rows, columns = images.shape[-2:]
        shape = columns / rows
        crop = v2.RandomResizedCrop(
            (rows, columns), scale=(self.crop, 1.0), ratio=(0.95 * shape, 1.05 * shape)
        )
        changed: Tensor = self.look(crop(images))
        return changed


@torch.no_grad()
def augment(
    observation: Observation, transforms: Sequence[nn.Module], key: Sequence[int]
) -> Observation:
    """Apply ``transforms``, each time to some of the images.

    A transform changes alike what it is given at once, and takes hardly longer for a few small
    images than for one. So a batch is cut into ``PARTS``, each with draws of its own; up to that
    many images each have their own.

    Args:
        observation: its images are not changed in place; those of masked cameras stay.
        transforms: of torchvision.transforms.v2 or like them, one after the other; they draw
            from torch's global generators.
        key: the draws are a function of it alone.

    Raises:
        DataError: a transform changes the size or the type of images.
    """
    images_BCKYX = observation.images_BCKYX.clone()
    seed = int(np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0] >> 1)
    cuda = images_BCKYX.is_cuda
    with torch.random.fork_rng(devices=[images_BCKYX.device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        row_N, camera_N = observation.camera_mask_BC.nonzero(as_tuple=True)
        for part in range(min(PARTS, len(row_N))):
            where = row_N[part::PARTS], camera_N[part::PARTS]
            given_NKYX = images_BCKYX[where]
            changed_NKYX = given_NKYX
            for transform in transforms:
                changed_NKYX = transform(changed_NKYX)
            if (changed_NKYX.dtype, changed_NKYX.shape) != (torch.uint8, given_NKYX.shape):
                raise DataError(
                    f"image_transforms make {changed_NKYX.dtype} {tuple(changed_NKYX.shape)} of "
                    f"torch.uint8 {tuple(given_NKYX.shape)}, expected the same type and size"
                )
            images_BCKYX[where] = changed_NKYX
    return observation._replace(images_BCKYX=images_BCKYX)
