"""Slots, masks, references and refusals of embodiments."""

from dataclasses import replace

import numpy as np
import pytest

from actionprior.embodiment import ActionGroup, Embodiment, EmbodimentError, StateGroup
from tests.robots import JOINTS, delta_arm, position_arm


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


def test_plain_data_round_trip() -> None:
    for robot in (delta_arm(), position_arm()):
        assert Embodiment.from_dict(robot.to_dict()) == robot
    with pytest.raises(EmbodimentError, match="unknown keys \\['colour'\\]"):
        Embodiment.from_dict({**delta_arm().to_dict(), "colour": "red"})


def test_differences_name_what_a_prior_cannot_serve() -> None:
    assert delta_arm().differences(replace(delta_arm(), cameras=[])) == []
    (difference,) = delta_arm().differences(replace(delta_arm(), control_hz=30))
    assert difference == "control_hz is 30 there and 10 here"


ARM = ActionGroup("arm", "joints", JOINTS, "joint_delta", "rad")
POSE = StateGroup("arm", "joints", JOINTS, "position", "rad")


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
        (
            {"state": [replace(POSE, representation="angle_sincos")]},
            "needs 14 entries from offset 0, but 'joints' has 8",
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
