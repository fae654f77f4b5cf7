"""Encodings of orientations: round trips, conventions, and turns relative to a reference."""

import math

import pytest
import roma
import torch

from actionprior.embodiment import rotations

ENCODINGS = [
    "quaternion_xyzw",
    "quaternion_wxyz",
    "axis_angle",
    "rotation_6d",
    "rotation_6d_rows",
    "euler_xyz",
    "euler_ZYX",
    "euler_zxz",
]


def orientations(count: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(
        torch.randn(count, 4, generator=generator, dtype=torch.float64), dim=-1
    )


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equal as rotations: a quaternion and its negative are one."""
    return bool(((first * second).sum(-1).abs() > 1 - 1e-9).all())


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_encoding_round_trips(encoding: str) -> None:
    quaternion = orientations()
    values = rotations.from_quaternion(quaternion, encoding)
    assert values.shape == (64, rotations.encoding_width(encoding))
    assert same(rotations.to_quaternion(values, encoding), quaternion)


@pytest.mark.parametrize("encoding", ["euler", "euler_xxy", "euler_xYz", "quaternion", "", "xyz"])
def test_what_is_no_encoding_has_no_width(encoding: str) -> None:
    assert rotations.encoding_width(encoding) is None


def test_a_quarter_turn_about_z_in_every_encoding() -> None:
    half = math.sqrt(0.5)
    written = {
        "quaternion_xyzw": [0, 0, half, half],
        "quaternion_wxyz": [half, 0, 0, half],
        "axis_angle": [0, 0, math.pi / 2],
        "rotation_6d": [0, 1, 0, -1, 0, 0],  # x goes to y, y to -x
        "rotation_6d_rows": [0, -1, 0, 1, 0, 0],
        "euler_xyz": [0, 0, math.pi / 2],
        "euler_ZYX": [math.pi / 2, 0, 0],
    }
    for encoding, values in written.items():
        found = rotations.to_quaternion(torch.tensor(values, dtype=torch.float64), encoding)
        assert same(found, torch.tensor([0, 0, half, half], dtype=torch.float64)), encoding


def test_euler_xyz_is_roll_pitch_yaw_as_in_a_urdf() -> None:
    pybullet = pytest.importorskip("pybullet")
    angles = [0.3, -0.7, 2.1]
    expected = torch.tensor(pybullet.getQuaternionFromEuler(angles), dtype=torch.float64)
    assert same(rotations.to_quaternion(torch.tensor(angles).double(), "euler_xyz"), expected)


def test_relative_turns_are_undone_and_stay_near_zero_where_vectors_wrap() -> None:
    vector = rotations.from_quaternion(orientations(), "axis_angle")
    reference = vector.roll(1, 0)
    back = rotations.absolute_vector(rotations.relative_vector(vector, reference), reference)
    assert same(
        rotations.to_quaternion(back, "axis_angle"), rotations.to_quaternion(vector, "axis_angle")
    )
    # Either side of half a turn: 0.02 rad apart, though the vectors are 6.26 apart.
    near = torch.tensor([[0, 0, math.pi - 0.01]], dtype=torch.float64)
    past = torch.tensor([[0, 0, -math.pi + 0.01]], dtype=torch.float64)
    torch.testing.assert_close(
        rotations.relative_vector(past, near), torch.tensor([[0, 0, 0.02]], dtype=torch.float64)
    )


def test_a_relative_turn_is_in_the_references_own_frame() -> None:
    quarter_about_z = torch.tensor([0, 0, math.pi / 2], dtype=torch.float64)
    half = math.sqrt(0.5)
    # Tilted about its own x axis, which is the world's y axis after the quarter turn.
    tilt = rotations.to_quaternion(torch.tensor([0, 0.1, 0], dtype=torch.float64), "axis_angle")
    tilted = roma.quat_product(tilt, torch.tensor([0, 0, half, half], dtype=torch.float64))
    torch.testing.assert_close(
        rotations.relative_vector(rotations.from_quaternion(tilted, "axis_angle"), quarter_about_z),
        torch.tensor([0.1, 0, 0], dtype=torch.float64),
    )


def test_between_two_orientations_the_way_is_short_and_even() -> None:
    first, second = orientations(32), orientations(64)[32:]
    second = torch.where((first * second).sum(-1, keepdim=True) < 0, second, -second)  # long way
    share = torch.full((32,), 0.25).double()
    part = rotations.between(first, second, share)
    whole = 2 * (first * second).sum(-1).abs().clamp(max=1).acos()
    angle = 2 * (first * part).sum(-1).abs().clamp(max=1).acos()
    torch.testing.assert_close(angle, whole / 4)
    assert same(rotations.between(first, second, torch.ones(32).double()), second)
