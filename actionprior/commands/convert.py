"""Convert CSV, npz, HDF5 (robomimic, ALOHA) or ROS bags to a LeRobot dataset."""

from pathlib import Path

from actionprior.commands._parser import call
from actionprior.errors import UserError
from actionprior.recording.alignment import Clock, TimeUnit
from actionprior.recording.conversion import Choice, ConvertedDataset, write_dataset
from actionprior.recording.formats.files import find_episodes


def convert(
    source: str,
    out: str,
    control_hz: int,
    state: list[str] | None = None,
    action: list[str] | None = None,
    next_state: int = 0,
    cameras: dict[str, str] | None = None,
    task: str = "",
    robot: str = "unknown",
    state_names: list[str] | None = None,
    action_names: list[str] | None = None,
    episode_key: str = "",
    time_key: str = "",
    time_unit: TimeUnit = "s",
    max_gap: float = 1.0,
    swap_red_blue: bool = False,
    use_videos: bool = False,
    overwrite: bool = False,
) -> ConvertedDataset:
    """Convert recordings to a LeRobot v3 dataset.

    An episode is a file (CSV, npz, ALOHA's HDF5), a demonstration in a file (robomimic's HDF5), or
    a ROS bag. HDF5 files in these two layouts need no keys. Nothing is unpickled.

    Args:
        source: File, folder, or pattern in quotes, such as "recordings/*.csv".
        out: Folder of the dataset; it is written completely or not at all.
        control_hz: Frames per second of the dataset.
        state: Keys of the robot's state, joined in this order: columns (also patterns such as
            joint_*), arrays, or topics such as /joint_states or /pose:pose.position.x. [] if there
            is none.
        action: Keys of the action.
        next_state: For demonstrations that were guided by hand, which have no commands: the action
            is the state this many frames later. 0: the action is recorded.
        cameras: Key of each camera's images, such as {front: obs/front_image}: an array, a topic,
            a column of file names, or for CSV a folder or video such as "{stem}_front.mp4".
        task: Instruction of all episodes; by default the one in the recording.
        robot: Name of the robot in the dataset.
        state_names: Names of the state's entries, by default those of the recording.
        action_names: Names of the action's entries, by default those of the recording.
        episode_key: Column of a CSV file that numbers its episodes; by default a file is one.
        time_key: Key of the time. Each frame then takes the newest sample; by default each sample
            is a frame. Bags have times of their own.
        time_unit: Unit of that time: s, ms, us or ns.
        max_gap: Longest time for which a sample stands before the next one [s].
        swap_red_blue: Exchange red and blue, for images that OpenCV wrote from RGB (ALOHA's
            compressed ones).
        use_videos: Store AV1 video instead of lossless images.
        overwrite: Replace an existing folder at `out`.

    Raises:
        UserError: A recording cannot be read or a key is missing, or `out` exists.
    """
    root = Path(out).expanduser().absolute()
    if root.exists() and not overwrite:
        raise UserError(f"{root} exists already; choose another --out, or pass --overwrite")
    for name, value, least in (("control_hz", control_hz, 1), ("next_state", next_state, 0)):
        if value < least:
            raise UserError(f"{name} is {value}; it must be {least} or more")
    if not max_gap > 0:
        raise UserError(f"max_gap is {max_gap}; it must be above 0")
    choice = Choice(
        Clock(control_hz, time_key, time_unit, max_gap),
        state,
        action or [],
        cameras,
        state_names or [],
        action_names or [],
        next_state,
        task,
        swap_red_blue,
    )
    return write_dataset(find_episodes(source, episode_key), choice, root, robot, use_videos)


def main(args: list[str]) -> None:
    """Run the verb: see :func:`convert` for its options."""
    done = call(convert, args, "lightning convert")
    print(f"{done.root}: {done.episodes} episodes, {done.frames} frames")
    print(f"next: lightning describe {done.root} --out robot.yaml")
