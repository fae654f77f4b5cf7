"""A description is guessed from feature names; what they do not say is left out, and said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actionprior.errors import UserError
from data_modules.lerobot.description import Description, describe

Names = tuple[str, ...]
ALOHA = [
    f"{side}_{part}"
    for side in ("left", "right")
    for part in ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate",
                 "gripper")
]  # fmt: skip
POSE = ("x", "y", "z")
QUATERNION = ("qx", "qy", "qz", "qw")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def dataset(
    action: Any,
    state: Any = None,
    low: float = 0.0,
    high: float = 1.0,
    keys: tuple[str, str] = ("action", "observation.state"),
    state_range: tuple[float, float] | None = None,
    **more: Any,
) -> Path:
    """Write a dataset's metadata; nothing else is read. An integer is a vector without names."""
    root = Path("set")
    (root / "meta").mkdir(parents=True)
    vectors = dict(zip(keys, (action, action if state is None else state), strict=True))
    widths = {k: n if isinstance(n, int) else len(n) for k, n in vectors.items()}
    info = {
        "codebase_version": "v3.0", "fps": 20, "total_episodes": 1, "total_frames": 9,
        "robot_type": "My Arm-7",
        "features": {
            k: {
                "dtype": "float32",
                "shape": [widths[k]],
                "names": None if isinstance(n, int) else list(n),
            }
            for k, n in vectors.items()
        },
    }  # fmt: skip
    (root / "meta" / "info.json").write_text(json.dumps(info | more))
    ranges = {keys[0]: (low, high), keys[1]: state_range or (low, high)}
    stats = {
        k: {"min": [ranges[k][0]] * widths[k], "max": [ranges[k][1]] * widths[k]} for k in vectors
    }
    (root / "meta" / "stats.json").write_text(json.dumps(stats))
    return root


def guess(*action: str, state: Names | None = None, **more: Any) -> Description:
    return describe(str(dataset(action, state, **more)))


def places(groups: list[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    return {g["name"]: (g["slot"], g.get("offset", 0), len(g["features"])) for g in groups}


def kinds(groups: list[dict[str, Any]]) -> dict[str, str]:
    return {g["name"]: g.get("representation", "") for g in groups}


def test_two_arms_with_hands_go_to_their_sides() -> None:
    arms = [f"{side}_joint_{i}" for side in ("left", "right") for i in range(6)]
    found = guess(*arms, "left_gripper", "right_gripper", "right_hand_thumb").robot
    assert found["name"] == "my_arm_7"
    assert places(found["action"]) == {
        "left_arm": ("left_arm", 0, 6),
        "right_arm": ("right_arm", 0, 6),
        "right_hand": ("right_hand", 0, 1),
        "left_gripper": ("left_arm", 6, 1),
        "right_gripper": ("right_arm", 6, 1),
    }
    assert {g["slot"] for g in found["state"]} == {"body"}
    assert found["ignored"] == []


def test_the_waist_of_an_arm_is_its_first_joint() -> None:
    found, notes, _ = guess(*ALOHA)
    assert places(found["action"]) == {
        "left_arm": ("left_arm", 0, 6),
        "right_arm": ("right_arm", 0, 6),
        "left_gripper": ("left_arm", 6, 1),
        "right_gripper": ("right_arm", 6, 1),
    }
    assert notes == []


def test_one_arm_with_a_waist_is_one_arm() -> None:
    found = guess("waist", "shoulder", "elbow", "gripper").robot
    assert places(found["action"]) == {"arm": ("joints", 0, 3), "gripper": ("joints", 7, 1)}


def test_a_bodys_waist_has_its_own_slot() -> None:
    arms = [f"{side}_shoulder_pitch" for side in ("left", "right")]
    found = guess(*arms, "waist_yaw", "waist_roll", "waist_pitch").robot
    assert places(found["action"])["waist"] == ("waist", 0, 3)


@pytest.mark.parametrize(
    ("high", "unit"), [(3.1, "rad"), (97.0, "normalised"), (170.0, "deg"), (4095.0, "ticks")]
)
def test_units_are_read_off_the_values(high: float, unit: str) -> None:
    assert guess("shoulder.pos", "elbow.pos", high=high).robot["action"][0]["unit"] == unit


def test_numbered_joints_of_one_arm_stay_one_arm() -> None:
    found = guess("torso_lift_joint", *(f"arm_{i}_joint" for i in range(1, 8))).robot
    assert [(g["name"], len(g["features"])) for g in found["action"]] == [("waist", 1), ("arm", 7)]


@pytest.mark.parametrize(
    "names",
    [
        (*POSE, *QUATERNION, "gripper"),
        ("pos_x", "pos_y", "pos_z", "quat_x", "quat_y", "quat_z", "quat_w", "gripper"),
        tuple(f"ee.{n}" for n in (*POSE, *QUATERNION, "gripper_pos")),
        tuple(f"eef_{n}" for n in (*POSE, "quat_x", "quat_y", "quat_z", "quat_w", "jaw")),
    ],
)
def test_poses_with_quaternions_go_to_the_tool(names: Names) -> None:
    found, notes, _ = guess(*names)
    assert places(found["action"]) == {
        "tool_position": ("right_arm", 0, 3),
        "tool_rotation": ("right_arm", 3, 4),
        "gripper": ("right_arm", 6, 1),
    }
    assert places(found["state"]) == {
        "tool_position": ("end_effector", 0, 3),
        "tool_rotation": ("end_effector", 3, 4),
        "gripper": ("end_effector", 7, 1),
    }
    assert kinds(found["action"])["tool_position"] == "end_effector_position"
    assert found["action"][1]["encoding"] == "quaternion_xyzw"
    assert [g.get("relative_to") for g in found["action"]] == [
        "tool_position",
        "tool_rotation",
        None,
    ]
    assert notes == []


def test_the_order_of_a_quaternion_counts() -> None:
    names = [*POSE, "quat_w", "quat_x", "quat_y", "quat_z"]
    assert guess(*names).robot["action"][1]["encoding"] == "quaternion_wxyz"


@pytest.mark.parametrize(
    ("rotation", "reason"),
    [
        (("rx", "ry", "rz"), "axis_angle, or euler_xyz, or another order"),
        (("roll", "pitch", "yaw"), "axis_angle, or euler_xyz, or another order"),
        (("wx", "wy", "wz"), "axis_angle, or euler_xyz, or another order"),
        (tuple(f"rot6d_{i}" for i in range(6)), "rotation_6d .* or rotation_6d_rows"),
        (("qx", "qy", "qz"), "a quaternion that is not complete"),
    ],
)
def test_orientations_whose_encoding_is_uncertain_are_left_out(
    rotation: Names, reason: str
) -> None:
    found, notes, _ = guess(*POSE, *rotation, "gripper")
    assert set(places(found["action"])) == {"tool_position", "gripper"}
    assert found["ignored"] == sorted(rotation)
    assert len(notes) == 2
    for note, key in zip(notes, ("observation.state", "action"), strict=True):
        assert f"'{key}': left out {', '.join(rotation)}: " in note
        assert reason.split(" .* ")[0] in note


def test_named_rotation_vectors_are_certain() -> None:
    names = ("x", "y", "z", "axis_angle1", "axis_angle2", "axis_angle3", "gripper_openness")
    found, notes, _ = guess(*names)
    assert found["action"][1]["encoding"] == "axis_angle"
    assert notes == []


@pytest.mark.parametrize(
    "names",
    [
        ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "grip"),
        (*(f"delta_{n}" for n in ("x", "y", "z", "rx", "ry", "rz")), "gripper"),
        ("d_x", "d_y", "d_z", "d_roll", "d_pitch", "d_yaw", "gripper"),
    ],
)
def test_deltas_are_changes_per_step(names: Names) -> None:
    found, notes, _ = guess(*names, low=-0.04, high=0.04, state=("x", "y", "z", "j_0"))
    assert kinds(found["action"]) == {
        "tool_position": "end_effector_delta",
        "tool_rotation": "end_effector_delta",
        "gripper": "gripper",
    }
    assert [g.get("unit") for g in found["action"]] == ["m", "rad", None]
    assert not any("relative_to" in g for g in found["action"])
    assert notes == []


def test_changes_are_recognised_by_their_values() -> None:
    """LIBERO's actions have the names of a pose, and are normalised changes of it."""
    found, notes, _ = guess(*POSE, "gripper", low=-0.94, high=0.94, state_range=(-0.4, 0.2))
    assert kinds(found["action"])["tool_position"] == "end_effector_delta"
    assert found["action"][0]["unit"] == "normalised"
    assert "they are taken for changes per step" in notes[0]


def test_small_changes_of_joints_are_recognised_by_their_values() -> None:
    found, notes, _ = guess("j1", "j2", low=-0.05, high=0.05, state_range=(-1.5, 2))
    assert kinds(found["action"]) == {"arm": "joint_delta"}
    assert "changes per step" in notes[0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("base_x", "motion of a base"),
        ("linear_vel", "a velocity"),
        ("joint_1_velocity", "a velocity"),
        ("gripper_effort", "a velocity, force"),
        ("steering", "motion of a base"),
        ("mystery", "nothing that is known by its name"),
        ("head_pan", "no slot has room for them"),
    ],
)
def test_what_has_no_slot_is_left_out(name: str, reason: str) -> None:
    found, notes, _ = guess("j1", "j2", "gripper", name)
    assert places(found["action"]) == {"arm": ("joints", 0, 2), "gripper": ("joints", 7, 1)}
    assert name in found["ignored"]
    assert any(f"'action': left out {name}: {reason}" in note for note in notes)


def test_a_pose_beside_commanded_joints_is_left_out() -> None:
    found, notes, _ = guess("joint_1", "joint_2", *POSE, "qw")
    assert found["ignored"] == ["qw", *POSE]
    assert places(found["action"]) == {"arm": ("joints", 0, 2)}
    assert set(places(found["state"])) == {"arm", "tool_position"}
    assert "'action': left out x, y, z: a tool's pose beside the joints of the same arm" in notes


def test_two_poses_go_to_their_sides() -> None:
    names = [f"{side}_{n}" for side in ("left", "right") for n in (*POSE, *QUATERNION, "gripper")]
    found, notes, _ = guess(*names)
    assert places(found["action"])["left_tool_rotation"] == ("left_arm", 3, 4)
    assert places(found["action"])["right_gripper"] == ("right_arm", 6, 1)
    assert all(g["slot"] == "body" for g in found["state"])
    assert sum("relative_to" in g for g in found["action"]) == 4
    assert notes == []


def test_a_name_that_stands_twice_is_numbered() -> None:
    found = guess(*POSE, "gripper", state=(*POSE, "gripper", "gripper")).robot
    assert found["state"][-1]["features"] == ["gripper", "gripper_2"]


def test_the_keys_of_openpi_are_known() -> None:
    root = dataset(("j1", "j2"), keys=("actions", "state"))
    info = json.loads((root / "meta/info.json").read_text())
    info["features"] |= {
        "image": {"dtype": "image", "shape": [48, 64, 3], "names": None},
        "depth": {"dtype": "image", "shape": [48, 64, 1], "names": None},
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    found, notes, _ = describe(str(root))
    assert (found["action_key"], found["state_key"]) == ("actions", "state")
    assert found["cameras"] == ["image"]
    assert notes == ["depth is not listed as a camera: images of 1 channel"]


def test_entries_without_names_are_joints_only_if_the_state_agrees() -> None:
    found, notes, _ = describe(str(dataset(6)))
    assert places(found["action"]) == {"arm": ("joints", 0, 6)}
    assert "have no names: they are taken for the joints" in notes[0]


def test_entries_without_names_are_refused_otherwise() -> None:
    with pytest.raises(UserError, match=r"\(0, 1, .*left out .*: an entry without a name"):
        describe(str(dataset(7, 8)))


def test_a_robot_without_a_state_is_absolute() -> None:
    root = dataset(("j1", "j2"), keys=("action", "other"))
    found, notes, _ = describe(str(root))
    assert found["state"] == []
    assert "relative_to" not in found["action"][0]
    assert "the dataset has no state, so that actions are learnt absolute" in notes


def test_names_that_say_too_little_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"actions \(steering, throttle\) do not say where they belong; describe it"
    ):
        guess("steering", "throttle")


def test_units_of_v21_come_from_the_statistics_of_its_episodes() -> None:
    root = dataset(("main_shoulder_pan", "main_gripper"), codebase_version="v2.1")
    (root / "meta/stats.json").unlink()
    top = {"min": [-90.0] * 2, "max": [90.0] * 2}
    lines = [
        {"episode_index": e, "stats": {"action": top, "observation.state": top}} for e in (0, 1)
    ]
    (root / "meta/episodes_stats.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found, notes, _ = describe(str(root))
    assert found["action"][0]["unit"] == "deg"
    assert notes == []


def test_without_statistics_the_data_are_read() -> None:
    root = dataset(("shoulder", "elbow"))
    (root / "meta/stats.json").unlink()
    found, notes, _ = describe(str(root))
    assert notes == ["the unit of arm is a guess: no value could be read"] * 2
    (root / "data/chunk-000").mkdir(parents=True)
    values = (np.arange(18.0).reshape(9, 2) * 10).tolist()
    rows = {k: [0] * 9 for k in ("episode_index", "timestamp", "task_index")}
    table = pa.table({"action": values, "observation.state": values, **rows})
    pq.write_table(table, root / "data/chunk-000/file-000.parquet")
    found, notes, _ = describe(str(root))
    assert found["action"][0]["unit"] == "deg"
    assert notes == []


@pytest.mark.parametrize("kind", [["so101", "so101"], None, 7, {"a": 1}])
def test_a_robot_type_that_is_no_text_is_replaced_by_the_folder(kind: Any) -> None:
    assert guess("j1", "j2", robot_type=kind).robot["name"] == "set"


def test_a_frame_rate_may_be_a_text() -> None:
    assert guess("j1", "j2", fps="10").robot["control_hz"] == 10


@pytest.mark.parametrize("shape", [None, "7", [2.0], [-1], [2**40]])
def test_a_vector_without_a_usable_shape_is_named(shape: Any) -> None:
    root = dataset(("j1", "j2"))
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["action"]["shape"] = shape
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"^set: 'action': meta/info\.json has .* in the dataset$"):
        describe(str(root))


def test_a_missing_dataset_is_refused() -> None:
    with pytest.raises(UserError, match=r"none: has no meta/info\.json"):
        describe("none")
