"""Parts of the cameras' images that a trunk looks at.

Axes: I images, K = 3 colours, Y rows, X columns.
"""

from collections.abc import Sequence

from torch import Tensor

from actionprior.errors import UserError

Region = tuple[float, float, float, float]
"""Top, left, bottom and right edge as shares of an image's height and width, 0 to 1."""


def check_regions(regions: Sequence[Region | None] | None) -> list[Region | None]:
    """Return the regions of the cameras, as a list; None stands for a whole image.

    Raises:
        UserError: A region is not four shares with top < bottom and left < right.
    """
    for number, region in enumerate(regions or ()):
        if region is None:
            continue
        ordered = len(region) == 4 and region[0] < region[2] and region[1] < region[3]
        if not ordered or not all(0 <= edge <= 1 for edge in region):
            raise UserError(
                f"regions[{number}] is {list(region)}; expected [top, left, bottom, right] as "
                "shares of the image from 0 to 1, with top < bottom and left < right, or null for "
                "the whole image"
            )
    return [None if region is None else (*region,) for region in regions or ()]


def region_box(region: Region, rows: int, columns: int) -> tuple[slice, slice]:
    """Return the rows and columns of an image's region, at least one pixel of each."""
    top, left = round(region[0] * rows), round(region[1] * columns)
    bottom, right = round(region[2] * rows), round(region[3] * columns)
    top, left = min(top, rows - 1), min(left, columns - 1)
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def crop_region(images_IKYX: Tensor, region: Region | None) -> Tensor:
    """Return the region of images, (I, 3, any, any), which is at least one pixel; a view."""
    if region is None:
        return images_IKYX
    box = region_box(region, *images_IKYX.shape[-2:])
    return images_IKYX[..., box[0], box[1]]
