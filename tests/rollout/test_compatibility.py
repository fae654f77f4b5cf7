"""Test that rollouts reject what does not fit, in one sentence that names it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from actionprior.batch import Observation
from actionprior.embodiment import ActionGroup, StateGroup
from actionprior.errors import UserError
from actionprior.rollout import ObservationMap
from tests.helpers import point_env
from tests.helpers.point_env import CAMERA, VECTOR, Policy, Solver, point_robot, roll


def check_rejected(match: str, policy: Policy | None = None, **changes: Any) -> None:
    with pytest.raises(UserError, match=match) as error:
        roll(policy or Solver(), **changes)
    assert "\n" not in str(error.value)


def test_an_action_space_that_does_not_fit_is_rejected() -> None:
    three = [ActionGroup("move", "right_arm", ["dx", "dy", "dz"], "end_effector_delta", "m")]
    check_rejected(
        r"'test/Point-v0' has an action space of shape \(2,\).*'point' has 3 actions: dx, dy, dz",
        Solver(point_robot(action=three)),
    )
    check_rejected(r"'CartPole-v1'.*Discrete\(2\)", env_id="CartPole-v1")


def test_a_state_that_does_not_fit_is_rejected() -> None:
    three = [StateGroup("place", "joints", ["x", "y", "z"], unit="m")]
    check_rejected(
        r"'test/Point-v0' has a state of shape \(4,\).*'point' expects 3 entries: x, y, z",
        Solver(point_robot(state=three)),
    )


def test_an_image_of_another_size_than_promised_is_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(point_env.PointEnv, "render", lambda _: np.zeros((8, 9, 3), np.uint8))
    check_rejected(
        r"returns uint8 of shape \(8, 9, 3\) as image 'image', but .* uint8 of shape \(20, 30, 3\)",
        Solver(point_robot(["top"])),
        env_id="test/PointCamera-v0",
        observation_map=point_env.CAMERA,
    )


def test_missing_keys_and_cameras_are_rejected() -> None:
    camera = {"env_id": "test/PointCamera-v0", "policy": Solver(point_robot(["top"]))}
    check_rejected(
        r"state is 'state', but.* keys \['arm', 'image'\]",
        **camera,
        observation_map=ObservationMap(),
    )
    check_rejected(r"state is 'state', but.*no keys", observation_map=ObservationMap())
    check_rejected(
        r"camera 'top' of embodiment 'point' is missing in observation_map.images",
        **camera,
        observation_map=replace(CAMERA, images={"front": "image"}),
    )
    check_rejected(
        r"camera 'top' is mapped to 'photo', which is missing; .* keys \['arm', 'image'\]",
        **camera,
        observation_map=replace(CAMERA, images={"top": "photo"}),
    )
    check_rejected(
        r"'top' is mapped to 'arm/state', which is Box.*expected a \(Y, X, 3\) uint8 image",
        **camera,
        observation_map=replace(CAMERA, images={"top": "arm/state"}),
    )


def test_an_environment_without_success_or_instruction_is_rejected() -> None:
    check_rejected("does not report success.*pass success_key", env_kwargs={"info_key": "done"})
    assert roll(Solver(), env_kwargs={"info_key": "success"}).success_rate == 1
    assert roll(Solver(), env_kwargs={"info_key": "done"}, success_key="done").success_rate == 1
    check_rejected(
        r"gives no instruction: info has keys \['instruction', 'is_success'\], expected 'task'",
        observation_map=replace(VECTOR, instruction="task"),
    )


def test_a_control_rate_that_does_not_fit_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_env.PointEnv, "control_hz", 25, raising=False)
    check_rejected("runs at 25 Hz, but embodiment 'point' is controlled at 10.0 Hz")


def test_wrong_arguments_are_rejected() -> None:
    check_rejected(r"no embodiment 'ur5'; it knows \['another', 'point'\]", embodiment="ur5")
    check_rejected("execute_steps is 7, expected 1 to the chunk length 6", execute_steps=7)
    check_rejected("found episodes=0", episodes=0)
    check_rejected("environment 'test/None-v0' cannot be found", env_id="test/None-v0")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_actions_that_are_not_finite_are_rejected(value: float) -> None:
    class Broken(Solver):
        def moves(self, observation: Observation, noise_BHA: Tensor) -> Tensor:
            moves = super().moves(observation, noise_BHA)
            if observation.history.step_mask_BH.any():
                moves[0, 0, 0] = value
            return moves

    check_rejected(
        r"NaN or inf actions at step 5 of the episode with seed 5\d in 'test/Point-v0'", Broken()
    )


def test_a_chunk_of_another_shape_is_rejected() -> None:
    class Short(Solver):
        def predict_chunk(self, observation: Observation, noise_BHA: Tensor) -> Tensor:
            return super().predict_chunk(observation, noise_BHA)[:, :3]

    check_rejected(r"chunk of shape \(3, 3, 37\), expected \(3, 6, 37\)", Short())
