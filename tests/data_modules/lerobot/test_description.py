"""A description is guessed from feature names, or refused if they say too little."""

import json
from pathlib import Path

import pytest

from actionprior.errors import UserError
from data_modules.lerobot.description import describe


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def named(*action: str, state: tuple[str, ...] | None = None, high: float = 1.0) -> Path:
    """Write a dataset's metadata; nothing else is read."""
    root = Path("set")
    (root / "meta").mkdir(parents=True)
    features = {"action": action, "observation.state": state or action}
    info = {
        "codebase_version": "v3.0", "fps": 20, "total_episodes": 1, "total_frames": 9,
        "robot_type": "My Arm-7",
        "features": {
            k: {"dtype": "float32", "shape": [len(n)], "names": list(n)}
            for k, n in features.items()
        },
    }  # fmt: skip
    (root / "meta" / "info.json").write_text(json.dumps(info))
    stats = {k: {"min": [0.0] * len(n), "max": [high] * len(n)} for k, n in features.items()}
    (root / "meta" / "stats.json").write_text(json.dumps(stats))
    return root


def test_two_arms_with_hands_go_to_their_sides() -> None:
    arms = [f"{side}_joint_{i}" for side in ("left", "right") for i in range(6)]
    found = describe(str(named(*arms, "left_gripper", "right_gripper", "right_hand_thumb")))
    assert found["name"] == "my_arm_7"
    slots = {g["name"]: (g["slot"], g.get("offset", 0)) for g in found["action"]}
    assert slots == {
        "left_arm": ("left_arm", 0),
        "right_arm": ("right_arm", 0),
        "right_hand": ("right_hand", 0),
        "left_gripper": ("left_arm", 6),
        "right_gripper": ("right_arm", 6),
    }
    assert {g["slot"] for g in found["state"]} == {"body"}
    assert found["ignored"] == []


@pytest.mark.parametrize(("high", "unit"), [(3.1, "rad"), (97.0, "normalised"), (170.0, "deg")])
def test_units_are_read_off_the_values(high: float, unit: str) -> None:
    found = describe(str(named("shoulder.pos", "elbow.pos", high=high)))
    assert found["action"][0]["unit"] == unit


def test_numbered_joints_of_one_arm_stay_one_arm() -> None:
    found = describe(str(named("torso_lift_joint", *(f"arm_{i}_joint" for i in range(1, 8)))))
    assert [(g["name"], len(g["features"])) for g in found["action"]] == [("waist", 1), ("arm", 7)]


def test_features_that_fit_no_slot_are_ignored() -> None:
    found = describe(str(named("joint_1", "joint_2", "x", "y", "z", "qw")))
    assert found["ignored"] == ["qw", "x", "y", "z"]


def test_names_that_say_too_little_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"actions \(x, y, z\) do not say where they belong; describe it"
    ):
        describe(str(named("x", "y", "z")))


def test_a_missing_dataset_is_refused() -> None:
    with pytest.raises(UserError, match=r"none: has no meta/info\.json"):
        describe("none")
