"""Read a dataset for a report, with single images of its cameras."""

from functools import partial
from typing import Any, NamedTuple

from actionprior.data import Contents, DataError
from actionprior.data.contents import ImageReader
from actionprior.data.store import Recording
from actionprior.embodiment.image_shape import ImageShape
from actionprior.errors import UserError
from data_modules.images.camera_files import CameraFiles, Size, image_keys
from data_modules.images.frames import FrameImages
from data_modules.images.video import choose_decoder
from data_modules.lerobot.columns import Columns, LeRobotEmbodiment
from data_modules.lerobot.names import feature_names, has_names
from data_modules.lerobot.remote import hub_snapshot_url, is_url, source_url

LONGEST_EDGE = 256  # of the images that are looked at [pixels]


class VideoAccess(NamedTuple):
    """How a data module reads videos.

    Attributes:
        on_hub: The dataset is on the hub, and its snapshot on this machine.
        has_videos: The snapshot has the videos.
        reads_images: The data module reads images, from wherever they are.
    """

    on_hub: bool
    has_videos: bool
    reads_images: bool


def report_contents(
    columns: Columns,
    robot: LeRobotEmbodiment,
    place: str,
    recorded_hz: float | None,
    excluded: list[int],
    access: VideoAccess,
) -> Contents:
    """Describe a dataset for a report.

    Args:
        columns: The dataset as recorded.
        robot: Its robot.
        place: Name of the dataset in the recipe.
        recorded_hz: The recording's own rate [Hz], if training resamples it.
        excluded: Episodes that neither train nor validate.
        access: How the data module reads videos.
    """
    remote = access.on_hub or is_url(place) or bool(robot.video_urls)
    sizes, absent = {}, {}
    for camera in image_keys(columns.recorded):
        files = CameraFiles(columns.recorded, [camera])
        sizes[camera] = files.size(camera)
        # Videos on the hub or behind a URL are downloaded or read when they are needed.
        if not remote and (lacking := files.episodes_without_video()):
            absent[camera] = lacking
    url = source_url(columns.root)
    if robot.video_urls and place in robot.roots:
        url = robot.video_urls[robot.roots.index(place)]
    elif access.on_hub and not access.has_videos:
        url = hub_snapshot_url(columns.root)
    images, unread = _readers(columns, robot, url, access.reads_images or not remote)
    return Contents(
        Recording(columns.action_Na, columns.state_Ns, columns.lengths_E, place),
        columns.timestamp_N,
        columns.task_N,
        columns.tasks,
        robot.trust_fps or robot.resample,
        recorded_hz,
        absent,
        sizes,
        excluded,
        images,
        unread,
        robot.trust_fps,
        _other_actions(columns.info["features"], robot),
    )


def _other_actions(features: dict[str, Any], robot: LeRobotEmbodiment) -> list[str]:
    """List the vectors besides the action and the state that have the action's features."""
    return [
        key
        for key, feature in features.items()
        if key not in (robot.action_key, robot.state_key)
        and set(robot.action_features) <= _names(feature)
    ]


def _names(feature: dict[str, Any]) -> set[str]:
    """Names of a vector's entries; empty for images, and for what has no names."""
    try:
        return set(feature_names(feature)) if has_names(feature) else set()
    except DataError:
        return set()


def _readers(
    columns: Columns, robot: LeRobotEmbodiment, url: str | None, with_videos: bool
) -> tuple[dict[str, ImageReader], dict[str, str]]:
    """Make readers of the robot's cameras, or of all; and give the reasons why others have none."""
    known = image_keys(columns)
    images: dict[str, ImageReader] = {}
    unread: dict[str, str] = {}
    decoder = choose_decoder("auto") if known else ""
    for camera in [c for c in robot.cameras if c in known] or known:
        ranges = {c: r for c, r in robot.depth_ranges.items() if c == camera}
        files = CameraFiles(columns.recorded, [camera], url, ranges)
        if files.is_video(camera) and not with_videos:
            unread[camera] = (
                "Stage 1 needs no video and reads none from the hub or a URL; use the recipe of "
                "Stage 2 to look at it"
            )
            continue
        try:
            files.check_pixels()
        except UserError as error:
            unread[camera] = str(error)
            continue
        shape = _shrunk(files.size(camera))
        images[camera] = partial(FrameImages(files, shape, decoder).read, camera=camera)
    return images, unread


def _shrunk(size: Size) -> ImageShape:
    scale = min(1.0, LONGEST_EDGE / max(size))
    rows, columns = (max(1, round(edge * scale)) for edge in size)
    return ImageShape(rows, columns)
