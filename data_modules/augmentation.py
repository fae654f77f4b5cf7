"""Random changes to training images; a run and its resumption draw the same ones."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from actionprior.batch import Observation
from actionprior.data import DataError


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

    def forward(self, image: Tensor) -> Tensor:
        """Change one image, uint8 (3, Y, X)."""
        from torchvision.transforms import v2

        rows, columns = image.shape[-2:]
        shape = columns / rows
        crop = v2.RandomResizedCrop(
            (rows, columns), scale=(self.crop, 1.0), ratio=(0.95 * shape, 1.05 * shape)
        )
        changed: Tensor = self.look(crop(image))
        return changed


@torch.no_grad()
def augment(
    observation: Observation, transforms: Sequence[nn.Module], key: Sequence[int]
) -> Observation:
    """Apply ``transforms`` to each camera's image on its own.

    Args:
        observation: its images are not changed in place; those of masked cameras stay.
        transforms: of torchvision.transforms.v2 or like them, one after the other; they draw
            from torch's global generators.
        key: the draws are a function of it alone.

    Raises:
        DataError: a transform changes the size or the type of an image.
    """
    images_BCKYX = observation.images_BCKYX.clone()
    seed = int(np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0] >> 1)
    cuda = images_BCKYX.is_cuda
    with torch.random.fork_rng(devices=[images_BCKYX.device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        for row, cameras in enumerate(observation.camera_mask_BC.tolist()):
            for camera in np.nonzero(cameras)[0]:
                image_KYX = images_BCKYX[row, camera]
                changed_KYX = image_KYX
                for transform in transforms:
                    changed_KYX = transform(changed_KYX)
                if (changed_KYX.dtype, changed_KYX.shape) != (torch.uint8, image_KYX.shape):
                    raise DataError(
                        f"image_transforms make {changed_KYX.dtype} {tuple(changed_KYX.shape)} of "
                        f"torch.uint8 {tuple(image_KYX.shape)}, expected the same type and size"
                    )
                images_BCKYX[row, camera] = changed_KYX
    return observation._replace(images_BCKYX=images_BCKYX)
