"""Test how success and instructions of any type are read, also in rollouts and recordings."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from actionprior.recording.scripted import ScriptedTask, environment_robot
from actionprior.rollout import RolloutError
from actionprior.rollout.info import read_instruction, read_success
from tests.helpers import experts, point_env
from tests.helpers.point_env import VECTOR, Solver, Wanderer, roll

FORMS = [
    bool,
    int,
    float,
    np.bool_,
    np.float32,
    np.uint8,
    lambda v: np.array(v),
    lambda v: np.array([[v]], np.float64),
    lambda v: np.array([v], dtype=object),
    lambda v: [v],
    lambda v: (np.array([v]),),
    torch.tensor,
    lambda v: {"task": v},
    lambda v: {"grasp": True, "task": np.array([v])},
]
REFUSED = [
    "False",
    "failure",
    b"0",
    float("nan"),
    np.float32("nan"),
    float("inf"),
    -1,
    2,
    0.4,
    np.float32(0.999),
    None,
    [],
    [False, True],
    np.array([True, True]),
    np.array(["True"]),
    np.zeros((0,)),
    [[True], [True]],
    {"grasp": True},
    {"task": "yes"},
    {"task": {"task": True}},
    {True},
    object(),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("success", [False, True])
def test_success_is_read_from_any_form_of_a_truth_value(form: Any, success: bool) -> None:
    assert read_success(form(success), "my/Env-v0", "is_success") is success


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_other_values_are_no_success(value: Any) -> None:
    with pytest.raises(RolloutError, match="'my/Env-v0' reports success as") as error:
        read_success(value, "my/Env-v0", "is_success")
    assert "'is_success'" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        "pick 日本",
        "pick 日本".encode(),
        np.str_("pick 日本"),
        ["pick 日本"],
        np.array(["pick 日本"]),
        np.array(["pick 日本".encode()], dtype=object),
    ],
)
def test_instructions_are_decoded(value: Any) -> None:
    found = read_instruction(value, "my/Env-v0", "instruction")
    assert found == "pick 日本"
    assert type(found) is str


@pytest.mark.parametrize("value", [["a", "b"], b"\xff", None, 3, {"text": "a"}, np.zeros(3)])
def test_other_values_are_no_instruction(value: Any) -> None:
    with pytest.raises(RolloutError, match="expected one text; set"):
        read_instruction(value, "my/Env-v0", "instruction")


def reports(monkeypatch: pytest.MonkeyPatch, form: Any) -> None:
    """Let the point's environment report success in another form."""
    plain = point_env.PointEnv._info
    monkeypatch.setattr(
        point_env.PointEnv,
        "_info",
        lambda env: plain(env) | {"is_success": form(bool(plain(env)["is_success"]))},
    )


@pytest.mark.parametrize("form", [lambda v: {"task": v}, lambda v: [v], lambda v: np.array([v])])
def test_rollouts_and_recordings_count_what_the_environment_says(
    form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = roll(Wanderer(), episodes=20).success_rate
    env = gymnasium.make("test/Point-v0")
    robot = environment_robot(env, "test/Point-v0", VECTOR)
    still = ScriptedTask(env, "test/Point-v0", experts.stands_still, robot, VECTOR)
    walker = ScriptedTask(env, "test/Point-v0", experts.Walker, robot, VECTOR)
    reports(monkeypatch, form)
    assert roll(Wanderer(), episodes=20).success_rate == expected
    assert roll(Solver()).success_rate == 1
    assert still.demonstrate(3) is None
    assert walker.demonstrate(3) is not None


def test_rollouts_and_recordings_refuse_what_is_no_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = gymnasium.make("test/Point-v0")
    robot = environment_robot(env, "test/Point-v0", VECTOR)
    walker = ScriptedTask(env, "test/Point-v0", experts.Walker, robot, VECTOR)
    reports(monkeypatch, lambda v: "success" if v else "failure")
    for run in (lambda: roll(Solver()), lambda: walker.demonstrate(3)):
        with pytest.raises(RolloutError, match=r"info\['is_success'\] = 'failure'"):
            run()


@pytest.mark.slow
def test_processes_refuse_it_in_the_same_sentence() -> None:
    with pytest.raises(RolloutError, match="reports success as"):
        roll(
            Solver(),
            episodes=2,
            num_envs=2,
            vectorization="async",
            success_key="instruction",
        )
