"""Test that faults of a dataset are reported in one sentence that names their place."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actionprior.data import DataError
from actionprior.embodiment import StateGroup
from data_modules.lerobot.columns import read_columns
from data_modules.lerobot.names import feature_names
from data_modules.lerobot.store import cache_folder
from tests.helpers.datasets import arm, write_dataset

Damage = Callable[[Path], None]


@pytest.fixture
def copy(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "broken"))


def data_file(root: Path) -> Path:
    return next((root / "data").glob("*/*.parquet"))


def edit_info(**changes) -> Damage:
    def damage(root: Path) -> None:
        path = root / "meta" / "info.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def edit_feature(key: str, **changes) -> Damage:
    def damage(root: Path) -> None:
        path = root / "meta" / "info.json"
        info = json.loads(path.read_text())
        info["features"][key] |= changes
        path.write_text(json.dumps(info))

    return damage


def edit_table(change: Callable[[pa.Table], pa.Table], where: str = "data") -> Damage:
    def damage(root: Path) -> None:
        path = next((root / where).glob("*/*.parquet"))
        pq.write_table(change(pq.read_table(path)), path)

    return damage


def edit_value(key: str, frame: int, entry: int, value: float) -> Damage:
    def change(table: pa.Table) -> pa.Table:
        rows = table[key].to_pylist()
        rows[frame][entry] = value
        column = pa.array(rows, table.schema.field(key).type)
        return table.set_column(table.schema.get_field_index(key), key, column)

    return edit_table(change)


def truncate(root: Path) -> None:
    data_file(root).write_bytes(data_file(root).read_bytes()[:-40])


def slow_clock(table: pa.Table) -> pa.Table:
    times = pa.array(table["timestamp"].to_numpy() * 1.08, pa.float32())
    return table.set_column(table.schema.get_field_index("timestamp"), "timestamp", times)


def stopped_clock(table: pa.Table) -> pa.Table:
    times = table["timestamp"].to_numpy().copy()
    times[4] = times[3]
    index = table.schema.get_field_index("timestamp")
    return table.set_column(index, "timestamp", pa.array(times))


def drop_episode(table: pa.Table) -> pa.Table:
    return table.slice(0, table.num_rows - 1)


def misnumber(table: pa.Table) -> pa.Table:
    episodes = table["episode_index"].to_numpy().copy()
    episodes[13] = 0
    index = table.schema.get_field_index("episode_index")
    return table.set_column(index, "episode_index", pa.array(episodes))


FAULTS: dict[str, tuple[Damage, str]] = {
    "no folder": (shutil.rmtree, "no such dataset folder"),
    "no info": (lambda r: (r / "meta/info.json").unlink(), "has no meta/info.json"),
    "bad info": (lambda r: (r / "meta/info.json").write_text("{"), "info.json is damaged"),
    "v1.6": (edit_info(codebase_version="v1.6"), r"is a LeRobot v1\.6 dataset.*convert it"),
    "empty": (edit_info(total_episodes=0, total_frames=0), "the dataset is empty"),
    "no rows": (edit_table(lambda t: t.slice(0, 0)), "the dataset is empty"),
    "fps": (edit_info(fps=30), r"has 30 frames per second, but embodiment 'arm' has control_hz 10"),
    "timestamps": (edit_table(slow_clock), r"timestamps of episode 0 say 9\.26; on embodiment"),
    "unknown feature": (
        edit_feature("action", names=["a", "j2", "grip"]),
        r"'action' has no feature 'j1'; it has \['a', 'j2', 'grip'\]",
    ),
    "name count": (edit_feature("action", names=["j1", "j2"]), "has 2 names for 3 entries"),
    "wrong dims": (
        edit_feature("action", names=["j1", "j2", "grip", "x"], shape=[4]),
        r"'x' of 'action' is neither mapped .* set `ignored: \[x\]` on the robot",
    ),
    "no action": (
        lambda r: edit_info(features={})(r),
        r"has no 'action'; it has \[\]",
    ),
    "nan": (
        edit_value("action", 14, 1, float("nan")),
        r"'action' feature 'j2' is nan at frame 2 of episode 1 \(1 such values\)",
    ),
    "inf": (
        edit_value("observation.state", 0, 2, float("inf")),
        r"'observation\.state' feature 'grip' is inf at frame 0 of episode 0",
    ),
    "truncated": (truncate, "is truncated or not a parquet file"),
    "not parquet": (lambda r: data_file(r).write_text("no"), "is truncated or not a parquet file"),
    "no data": (lambda r: shutil.rmtree(r / "data"), r"has no data/\*/\*\.parquet"),
    "no column": (
        edit_table(lambda t: t.drop_columns(["timestamp"])),
        "has no column 'timestamp'",
    ),
    "fewer frames": (
        edit_table(drop_episode),
        "counts 28 frames, but the files below data/ have 27",
    ),
    "episode order": (edit_table(misnumber), "frame 13 is of episode 0 in the data, but of epis"),
    "claimed count": (edit_info(total_episodes=105), "claims 105 episodes, but .* lists 3"),
    "no episodes": (lambda r: shutil.rmtree(r / "meta/episodes"), "has no episode table"),
    "no tasks": (lambda r: (r / "meta/tasks.parquet").unlink(), r"has no meta/tasks\.parquet"),
    "bad metadata": (
        lambda r: (r / "meta/tasks.parquet").write_text("no"),
        "the metadata cannot be read",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_reported_in_one_sentence_that_names_the_dataset(fault: str, copy: Path) -> None:
    damage, message = FAULTS[fault]
    damage(copy)
    with pytest.raises(DataError, match=message) as error:
        read_columns(copy, arm())
    assert str(copy) in str(error.value)


def test_a_wrong_width_of_the_data_is_reported(copy: Path) -> None:
    def narrow(table: pa.Table) -> pa.Table:
        rows = [row[:2] for row in table["action"].to_pylist()]
        index = table.schema.get_field_index("action")
        return table.set_column(index, "action", pa.array(rows))

    edit_table(narrow)(copy)
    with pytest.raises(DataError, match=r"'action' has 2 entries in the data, but 3 in"):
        read_columns(copy, arm())


def test_a_contradicted_rate_is_used_with_trust_fps(copy: Path) -> None:
    edit_table(slow_clock)(copy)
    assert len(read_columns(copy, arm(trust_fps=True)).action_Na) == 28


def test_another_rate_is_resampled_on_request(plain: Path) -> None:
    straight = read_columns(plain, arm())
    with pytest.raises(
        DataError, match=r"10 frames per second, but .* 5; set `control_hz: 10` or `resample: true`"
    ):
        read_columns(plain, arm(control_hz=5))
    half = read_columns(plain, arm(control_hz=5, resample=True))
    assert half.lengths_E.tolist() == [6, 4, 5]
    np.testing.assert_array_equal(half.action_Na[:6], straight.action_Na[:12:2])
    np.testing.assert_array_equal(half.state_Ns[6:10], straight.state_Ns[12:19:2])
    np.testing.assert_allclose(half.timestamp_N[:6], np.arange(6) / 5)
    assert half.tasks_E == straight.tasks_E
    assert half.recorded is not half
    assert [half.recorded_row(frame) for frame in (0, 5, 6, 9)] == [0, 10, 0, 6]
    stored = set(cache_folder("trajectories").rglob("*.safetensors"))
    read_columns(plain, arm(control_hz=5, resample=True))
    assert set(cache_folder("trajectories").rglob("*.safetensors")) == stored
    double = read_columns(plain, arm(control_hz=20, resample=True))
    np.testing.assert_array_equal(double.action_Na[0:23:2], straight.action_Na[:12])
    assert read_columns(plain, arm(resample=True)).recorded_row(13) == 1  # it already has that rate


def test_resampling_uses_the_timestamps(copy: Path) -> None:
    edit_table(slow_clock)(copy)
    by_clock = read_columns(copy, arm(resample=True))
    by_rate = read_columns(copy, arm(resample=True, trust_fps=True))
    assert by_rate.lengths_E.tolist() == [12, 7, 9]
    assert by_clock.recorded_row(1) == 0  # frame 1 was recorded at 0.108 s
    first, second = by_rate.action_Na[0], by_rate.action_Na[1]
    np.testing.assert_allclose(
        by_clock.action_Na[1][:2], (first + (second - first) / 1.08)[:2], rtol=1e-4, atol=1e-6
    )
    assert by_clock.action_Na[1][2] == first[2]  # the gripper keeps its last command
    edit_table(stopped_clock)(copy)
    with pytest.raises(DataError, match=r"episode 0: time does not increase after frame 3"):
        read_columns(copy, arm(resample=True))


def test_columns_hold_what_lerobot_reads(plain: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("plain", root=plain)
    columns = read_columns(plain, arm())
    assert columns.lengths_E.tolist() == [12, 7, 9]
    for i in range(len(dataset)):
        item = dataset[i]
        np.testing.assert_array_equal(columns.action_Na[i], item["action"])
        np.testing.assert_array_equal(columns.state_Ns[i], item["observation.state"])
        assert columns.tasks[columns.task_N[i]] == item["task"]
    assert columns.tasks_E == ["push the cube", "lift the cube", "push the cube"]


def test_features_are_selected_and_ignored_by_name(plain: Path) -> None:
    from actionprior.embodiment import ActionGroup

    robot = arm(ignored=["j2"])
    robot.action = [ActionGroup("part", "joints", ["grip", "j1"], "joint_position")]
    columns, straight = read_columns(plain, robot), read_columns(plain, arm())
    np.testing.assert_array_equal(columns.action_Na[:], straight.action_Na[:][:, [2, 0]])


@pytest.mark.parametrize(
    "names",
    [["a", "b", "c"], [["a", "b", "c"]], {"motors": ["a", "b", "c"]}, {"b": 1, "a": 0, "c": 2}],
)
def test_feature_names_in_all_spellings(names: object) -> None:
    assert feature_names({"shape": [3], "names": names}) == ["a", "b", "c"]


def test_nameless_features_are_numbered() -> None:
    assert feature_names({"shape": [3], "names": None}) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        ({"shape": [3], "names": ["state"]}, ["0", "1", "2"]),  # one label for the whole vector
        ({"shape": [1], "names": ["grip"]}, ["grip"]),
        (
            {"shape": [4], "names": {"left": ["j0", "j1"], "right": ["j0", "j1"]}},
            ["left.j0", "left.j1", "right.j0", "right.j1"],
        ),
    ],
)
def test_labels_of_whole_vectors_and_of_parts(
    feature: dict[str, object], expected: list[str]
) -> None:
    assert feature_names(feature) == expected


def test_resampled_stores_of_other_vectors_are_separate(plain: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(plain, tmp_path / "two"))
    path = root / "meta" / "info.json"
    info = json.loads(path.read_text())
    info["features"]["action_rel"] = info["features"]["action"]
    path.write_text(json.dumps(info))
    edit_table(lambda t: t.append_column("action_rel", t["observation.state"]))(root)
    slow = arm(control_hz=5, resample=True)
    first = read_columns(root, slow)
    second = read_columns(root, replace(slow, action_key="action_rel"))
    np.testing.assert_array_equal(second.action_Na[:], first.state_Ns[:])


def test_zeros_are_no_orientation(tmp_path: Path) -> None:
    names = ["qx", "qy", "qz", "qw"]
    rows = np.tile(np.array([0, 0, 0, 1], dtype=np.float32), (28, 1))
    root = write_dataset(tmp_path / "turns")
    edit_feature("observation.state", names=names, shape=[4])(root)

    def change(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index("observation.state")
        return table.set_column(index, "observation.state", pa.array(rows.tolist()))

    robot = arm()
    robot.action[0] = replace(robot.action[0], relative_to="")
    turn = StateGroup("turn", "end_effector", names, "rotation_quaternion", "rad")
    robot.state = [replace(turn, encoding="quaternion_xyzw")]
    edit_table(change)(root)
    assert read_columns(root, robot).state_Ns[:].shape == (28, 4)
    rows[14] = 0
    edit_table(change)(root)
    with pytest.raises(DataError, match=r"group 'turn' is no orientation at frame 2 of episode 1"):
        read_columns(root, robot)
