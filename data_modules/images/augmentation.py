"""Augment training images at random. A resumed run draws the same augmentations."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from actionprior.batch import Observation
from actionprior.data import DataError

GROUPS = 16
"""Most groups of images per batch. The images of a group get the same augmentation."""


class CropColourBlur(nn.Module):
    """Vary what differs between days with one camera: its position, the light and the focus.

    Images are not mirrored and hues do not change, since instructions mention sides and colours.

    Args:
        crop: Smallest share of the image's area that a crop keeps. The crop is resized to the
            image's size.
        colour: Largest relative change of brightness, contrast and saturation.
        blur: Probability of a blur.
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
        """Apply the same random change to all images (..., 3, Y, X), uint8."""
        from torchvision.transforms import v2

        rows, columns = images.shape[-2:]
        shape = columns / rows
        crop = v2.RandomResizedCrop(
            (rows, columns), scale=(self.crop, 1.0), ratio=(0.95 * shape, 1.05 * shape)
        )
        changed: Tensor = self.look(crop(images))
        return changed


def augment(
    observation: Observation, transforms: Sequence[nn.Module], key: Sequence[int]
) -> Observation:
    """Apply ``transforms`` to the images of observations, see :func:`augment_images`.

    The images are not changed in place, and images of masked cameras stay the same.
    """
    images_BCKYX = observation.images_BCKYX.clone()
    where = observation.camera_mask_BC.nonzero(as_tuple=True)
    images_BCKYX[where] = augment_images(images_BCKYX[where], transforms, key)
    return observation._replace(images_BCKYX=images_BCKYX)


@torch.no_grad()
def augment_images(
    images_NKYX: Tensor, transforms: Sequence[nn.Module], key: Sequence[int]
) -> Tensor:
    """Apply ``transforms`` with separate random draws for each group of images.

    A transform draws once per call, and takes hardly longer for a few small images than for one.
    So the images are split into at most ``GROUPS`` groups with one call each. Up to ``GROUPS``
    images have separate draws for each image.

    Args:
        images_NKYX: Images, uint8 (N, 3, Y, X). They are not changed in place.
        transforms: Transforms of torchvision.transforms.v2 or compatible ones, applied in order.
            They draw from torch's global generators.
        key: Numbers from which all draws are seeded.

    Raises:
        DataError: A transform changes the size or the type of images.
    """
    augmented_NKYX = images_NKYX.clone()
    seed = int(np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0] >> 1)
    cuda = images_NKYX.is_cuda
    with torch.random.fork_rng(devices=[images_NKYX.device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        for group in range(min(GROUPS, len(images_NKYX))):
            # A copy, because a transform may work in place.
            given_NKYX = changed_NKYX = images_NKYX[group::GROUPS].clone()
            for transform in transforms:
                changed_NKYX = transform(changed_NKYX)
            if (changed_NKYX.dtype, changed_NKYX.shape) != (torch.uint8, given_NKYX.shape):
                raise DataError(
                    f"image_transforms make {changed_NKYX.dtype} {tuple(changed_NKYX.shape)} of "
                    f"torch.uint8 {tuple(given_NKYX.shape)}, expected the same type and size"
                )
            augmented_NKYX[group::GROUPS] = changed_NKYX
    return augmented_NKYX
