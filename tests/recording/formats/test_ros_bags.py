"""ROS 2 bags with SQLite and MCAP files, and ROS 1 bags."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actionprior.recording.alignment import Clock
from actionprior.recording.conversion import Choice, convert_episode
from actionprior.recording.formats.episode import ConversionError
from actionprior.recording.formats.ros_bags import read_bag
from tests.helpers.recordings_elsewhere import JOINTS, pictures, states

rosbags = pytest.importorskip("rosbags.rosbag2")
from rosbags.typesys import Stores, get_typestore  # noqa: E402  optional

START = 1_700_000_000_000_000_000
FRAMES = 20


def write_bag(folder: Path, storage: str, **options: Any) -> Path:
    """Write joints at 100 Hz, commands and images at 20 Hz, the images 4 ms later."""
    types = get_typestore(Stores.ROS2_JAZZY)
    kind = types.types
    stamp = kind["builtin_interfaces/msg/Time"](0, 0)
    header = kind["std_msgs/msg/Header"](stamp, "base")
    plugin = rosbags.StoragePlugin[storage]
    with rosbags.Writer(folder / "bag", version=9, storage_plugin=plugin) as bag:
        topics = {
            "/joint_states": "sensor_msgs/msg/JointState",
            "/commands": "std_msgs/msg/Float64MultiArray",
            "/front": "sensor_msgs/msg/Image",
        }
        open_ = {t: bag.add_connection(t, k, typestore=types) for t, k in topics.items()}

        def write(topic: str, at: float, message: Any) -> None:
            raw = types.serialize_cdr(message, topics[topic])
            bag.write(open_[topic], START + int(1e9 * at), raw)

        none = np.zeros(0)
        for step in range(5 * FRAMES):
            names, row = list(JOINTS), states(5 * FRAMES)[step]
            if step % 2:  # drivers send joints in any order
                names, row = names[::-1], row[::-1].copy()
            joints = kind["sensor_msgs/msg/JointState"](header, names, row, none, none)
            write("/joint_states", step / 100, joints)
            if step % 5 == 0:
                layout = kind["std_msgs/msg/MultiArrayLayout"]([], 0)
                target = kind["std_msgs/msg/Float64MultiArray"](
                    layout, 2 * states(FRAMES)[step // 5]
                )
                write("/commands", step / 100, target)
                image = pictures(FRAMES)[step // 5][..., ::-1]
                padded = np.zeros((24, 100), np.uint8)
                padded[:, :96] = image.reshape(24, 96)
                picture = kind["sensor_msgs/msg/Image"](
                    header, 24, 32, options.get("encoding", "bgr8"), 0, 100, padded.reshape(-1)
                )
                write("/front", step / 100 + 0.004, picture)
    return folder / "bag"


@pytest.mark.parametrize("storage", ["SQLITE3", "MCAP"])
def test_topics_are_joined_by_time(tmp_path: Path, storage: str) -> None:
    bag = write_bag(tmp_path, storage)
    choice = Choice(Clock(20), ["/joint_states"], ["/commands"], {"front": "/front"}, task="reach")
    for recorded in read_bag(bag):
        found = convert_episode(recorded, choice)
        assert found.state.names == JOINTS
        assert found.action.names == [f"commands_{i}" for i in range(3)]
        count = len(found.state.values_Tn)
        assert count == FRAMES
        np.testing.assert_allclose(found.action.values_Tn, 2 * states(FRAMES))
        for row, frame in enumerate(found.frames(False)):
            assert frame.images["observation.images.front"][0, 5].tolist() == [row, 50, 5]
            at = 5 * row + 1  # joints arrive at 0.00, 0.01 …; frames begin at 0.004
            distance = np.abs(states(100)[at - 1 : at + 1] - frame.state).max(axis=1).min()
            assert distance < 1e-6


@pytest.mark.parametrize("storage", ["SQLITE3", "MCAP"])
def test_a_single_file_of_a_bag_is_read(tmp_path: Path, storage: str) -> None:
    bag = write_bag(tmp_path, storage)
    (file,) = (path for path in bag.iterdir() if path.suffix in (".db3", ".mcap"))
    for recorded in read_bag(file):
        np.testing.assert_allclose(recorded.vector("/commands").values_Tn, 2 * states(FRAMES))


def test_what_a_bag_lacks_is_one_sentence(tmp_path: Path) -> None:
    bag = write_bag(tmp_path, "MCAP", encoding="16UC1")
    for recorded in read_bag(bag):
        assert recorded.keys() == ["/commands", "/front", "/joint_states"]
        for key, message in (
            ("/none", "has no '/none'"),
            ("/front", "is of type sensor_msgs/msg/Image; name its field"),
            ("/front:data.x", "has no field 'data.x'"),
            ("/joint_states:header.frame_id", "holds no numbers"),
            ("/joint_states:__class__", "has no field '__class__'"),
        ):
            with pytest.raises(ConversionError, match=message):
                recorded.vector(key)
        with pytest.raises(ConversionError, match="has the encoding '16UC1', expected rgb8"):
            list(recorded.pictures("/front").read([0]))
    (tmp_path / "bag/bag.mcap").write_bytes(b"\x89MCAP0\r\n" + bytes(50))
    with pytest.raises(ConversionError, match="cannot be read as a bag"):
        list(read_bag(bag))
