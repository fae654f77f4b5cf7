"""Stage-2 data modules of small datasets."""

from pathlib import Path

from actionprior.batch import VLABatch
from actionprior.training.settings import grouped_settings
from data_modules import LeRobotVLA
from data_modules.images.video import choose_decoder
from tests.helpers.datasets import CAMERAS, DATA_GROUPS, arm

FRONT = CAMERAS[0]


def module(root: Path, *, cameras: tuple[str, ...] = (FRONT,), **options) -> LeRobotVLA:
    options = {"batch_size": 4, "chunk_length": 5, "history_length": 3, **options}
    data = LeRobotVLA([arm(root, cameras=cameras)], **grouped_settings(options, DATA_GROUPS))
    data.prepare_data()
    data.setup("fit")
    return data


def everything(data: LeRobotVLA) -> VLABatch:
    frames = [*data.frames.train.frames().tolist(), *data.frames.val.frames().tolist()]
    batch = data.windows(training=True).__getitems__(sorted(frames))
    assert isinstance(batch, VLABatch)
    return batch


def decoders() -> list[str]:
    """List the video decoders that load on this machine."""
    return sorted({"pyav", choose_decoder("auto")})
