"""Slots, masks, references and refusals of embodiments."""

from dataclasses import replace

import numpy as np
import pytest

from actionprior.embodiment import ActionGroup, Embodiment, EmbodimentError, StateGroup
from tests.helpers.robots import JOINTS, delta_arm, position_arm, tool_arm


def test_actions_return_from_their_slots() -> None:
    for robot in (delta_arm(), position_arm()):
        raw = np.random.default_rng(0).normal(size=(3, 5, len(robot.action_features)))
        unified = robot.action_to_unified(raw.astype(np.float32))
        np.testing.assert_array_equal(robot.action_from_unified(unified), raw.astype(np.float32))
        assert not unified[..., ~robot.action_mask()].any()


def test_the_papers_slots() -> None:
    assert delta_arm().action_mask().nonzero()[0].tolist() == list(range(29, 37))
    assert position_arm().action_mask().nonzero()[0].tolist() == list(range(7, 13))
    assert delta_arm().state_mask().nonzero()[0].tolist() == list(range(8, 16))
    assert position_arm().state_mask().nonzero()[0].tolist() == list(range(16, 28))
    assert delta_arm().delta_mask().nonzero()[0].tolist() == list(range(29, 36))
    assert not position_arm().delta_mask().any()


def test_body_angles_become_sine_and_cosine_and_the_reference_stays_an_angle() -> None:
    robot = position_arm()
    angles = np.linspace(-3, 3, 6, dtype=np.float32)
    unified = robot.state_to_unified(angles)
    np.testing.assert_allclose(unified[16:28:2], np.sin(angles))
    np.testing.assert_allclose(unified[17:28:2], np.cos(angles))
    np.testing.assert_array_equal(robot.reference(angles)[7:13], angles)
    assert not delta_arm().reference(np.ones(8, np.float32)).any()


def test_orientations_are_vectors_for_actions_and_continuous_for_states() -> None:
    robot = tool_arm()
    assert robot.action_mask().nonzero()[0].tolist() == [7, 8, 9, 10, 11, 12]
    assert robot.state_mask().nonzero()[0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    half = np.float32(np.sqrt(0.5))
    pose = np.array([1, 2, 3, 0, 0, -half, -half], np.float32)  # w < 0: a quarter turn about z
    np.testing.assert_allclose(robot.state_to_unified(pose)[3:7], [0, 0, half, half], atol=1e-6)
    reference = robot.reference(pose)[7:13]
    np.testing.assert_allclose(reference, [1, 2, 3, 0, 0, np.pi / 2], atol=1e-6)
    euler = np.array([[0.1, 0.2, 0.3, 0.5, -0.4, 3.0]], np.float32)
    np.testing.assert_allclose(
        robot.action_from_unified(robot.action_to_unified(euler)), euler, atol=1e-5
    )


def test_plain_data_round_trip() -> None:
    for robot in (delta_arm(), position_arm(), tool_arm()):
        assert Embodiment.from_dict(robot.to_dict()) == robot
    with pytest.raises(EmbodimentError, match="unknown keys \\['colour'\\]"):
        Embodiment.from_dict({**delta_arm().to_dict(), "colour": "red"})


def test_differences_name_what_a_prior_cannot_serve() -> None:
    assert delta_arm().differences(replace(delta_arm(), cameras=[])) == []
    (difference,) = delta_arm().differences(replace(delta_arm(), control_hz=30))
    assert difference == "control_hz is 30 in the checkpoint and 10 in the recipe"
    mine, recorded = delta_arm(), delta_arm()
    recorded.action[0] = replace(recorded.action[0], unit="deg")
    recorded.state[0] = replace(recorded.state[0], offset=1, features=["a"])
    assert mine.differences(recorded) == [
        "action arm.unit is 'deg' in the checkpoint and 'rad' in the recipe",
        f"state arm.features is ['a'] in the checkpoint and {JOINTS} in the recipe",
        "state arm.offset is 1 in the checkpoint and 0 in the recipe",
    ]
    fewer = replace(delta_arm(), action=delta_arm().action[:1])
    (difference,) = delta_arm().differences(fewer)
    assert "groups is ['arm'] in the checkpoint and ['arm', 'gripper'] in the recipe" in difference


ARM = ActionGroup("arm", "joints", JOINTS, "joint_delta", "rad")
POSE = StateGroup("arm", "joints", JOINTS, "position", "rad")
TURN = ActionGroup(
    "turn", "joints", ["r", "p", "y"], "end_effector_rotation", "rad", encoding="euler_xyz"
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "has no name"),
        ({"control_hz": 0}, "control_hz is 0"),
        ({"action": []}, "has no action group"),
        ({"action": [replace(ARM, slot="tail")]}, "slot 'tail' is unknown"),
        ({"action": [replace(ARM, features=[])]}, "names no feature"),
        ({"action": [replace(ARM, offset=2)]}, "needs 7 entries from offset 2"),
        ({"action": [replace(ARM, features=["joint_1"] * 2)]}, "'joint_1' is mapped twice"),
        ({"action": [ARM, replace(ARM, features=["x"])]}, "group name 'arm' is empty or used"),
        (
            {"action": [ARM, ActionGroup("hand", "joints", ["grip"], "gripper", offset=6)]},
            "'hand' overlaps group 'arm'",
        ),
        ({"action": [replace(ARM, representation="wiggle")]}, "representation 'wiggle'"),
        ({"action": [replace(ARM, relative_to="arm")]}, "relative_to is for positions"),
        (
            {"action": [replace(ARM, representation="joint_position", relative_to="leg")]},
            "names state group 'leg'",
        ),
        (
            {
                "action": [replace(ARM, representation="joint_position", relative_to="arm")],
                "state": [replace(POSE, unit="deg")],
            },
            "in 'rad', but its relative_to 'arm' has 7 in 'deg'",
        ),
        ({"state": [replace(POSE, representation="wiggle")]}, "representation 'wiggle'"),
        ({"action": [replace(ARM, encoding="axis_angle")]}, "encoding 'axis_angle' is for rotat"),
        ({"action": [replace(TURN, encoding="euler_xx")]}, "encoding 'euler_xx' of a rotation is"),
        ({"action": [replace(TURN, encoding="rotation_6d")]}, "has 3 features, but 'rotation_6d'"),
        ({"action": [replace(TURN, unit="deg")]}, "a rotation's unit is 'rad', found 'deg'"),
        ({"action": [replace(TURN, relative_to="arm")]}, "one is a rotation, the other is not"),
        (
            {"state": [replace(POSE, representation="angle_sincos")]},
            "needs 14 entries from offset 0, but 'joints' has 8",
        ),
        (
            {"state": [replace(POSE, slot="body", representation="angle_sincos", unit="deg")]},
            "angle_sincos needs unit 'rad', found 'deg'",
        ),
    ],
)
def test_bad_specs_are_refused_by_name(changes: dict[str, object], message: str) -> None:
    good = {"name": "bot", "control_hz": 10.0, "action": [ARM], "state": [POSE]}
    Embodiment(**good)
    with pytest.raises(EmbodimentError, match=message):
        Embodiment(**{**good, **changes})


def test_wrong_widths_are_refused() -> None:
    with pytest.raises(EmbodimentError, match="'panda': action vector has 5 entries, expected 8"):
        delta_arm().action_to_unified(np.zeros(5, np.float32))
    with pytest.raises(EmbodimentError, match="'panda': state vector has 9 entries, expected 8"):
        delta_arm().state_to_unified(np.zeros(9, np.float32))
