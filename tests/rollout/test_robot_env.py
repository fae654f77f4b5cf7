"""Test what environments by others may hold, and that the rest is named in one sentence."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from actionprior.embodiment import StateGroup
from actionprior.recording.scripted import environment_robot
from actionprior.rollout import ObservationMap, RolloutError
from actionprior.rollout import robot_env as robot_env_module
from actionprior.rollout.compatibility import find_entry, find_space
from actionprior.rollout.robot_env import RobotEnv
from callbacks.rollout_report import print_table
from tests.helpers.point_env import Wanderer, point_robot, roll

IMAGE = np.zeros((4, 6, 3), np.uint8)
SPACES = {
    "panda/pos": Box(-9, 9, (2,)),
    "grip": Box(-9, 9, ()),
    "flags": MultiBinary(2),
    "mode": Discrete(3),
    "image": Box(0, 255, IMAGE.shape, np.uint8),
}
VALUES: dict[str, Any] = {
    "panda/pos": np.array([1, 2], np.float32),
    "grip": np.float32(3),
    "flags": np.array([1, 0], np.int8),
    "mode": np.int64(2),
    "image": IMAGE,
}
MAP = ObservationMap(
    state=["panda/pos", "grip", "flags", "mode"], images={"top": "image"}, text="go"
)
NAMES = ["x", "y", "grip", "flag_1", "flag_2", "mode"]


class Others(gymnasium.Env[Any, Any]):
    """Environment whose observation has parts of many kinds."""

    def __init__(self, change: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> None:
        self.change = change
        self.observation_space = Dict(SPACES)
        self.action_space = Box(-0.01, 0.01, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.change(VALUES), {"success": False}

    def step(self, action: Any) -> Any:
        return self.change(VALUES), 0.0, False, False, {"success": False}


gymnasium.register("test/Others-v0", Others)


def robot(**changes: Any) -> Any:
    state = [StateGroup("all", "joints", NAMES, unit="m")]
    return point_robot(**{"state": state, "cameras": ["top"], **changes})


def env(change: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> RobotEnv:
    made = gymnasium.make("test/Others-v0", disable_env_checker=True, change=change)
    return RobotEnv(made, "test/Others-v0", robot(), MAP)


def test_parts_of_any_kind_become_the_state() -> None:
    observation, _ = env().reset(seed=0)
    assert observation["state"].tolist() == [1, 2, 3, 1, 0, 2]
    assert environment_robot(Others(), "x", MAP, control_hz=5).state_features == [
        f"state_{i}" for i in range(6)
    ]


@pytest.mark.parametrize("change", [
    lambda v: v | {"panda/pos": [1.0, 2.0], "image": IMAGE.tolist()} | {"image": IMAGE},
    lambda v: v | {"panda/pos": np.array([1, 2], np.float64)},
    lambda v: v | {"grip": 3.0},
])  # fmt: skip
def test_other_types_of_the_same_values_are_read(change: Any) -> None:
    observation, _ = env(change).reset(seed=0)
    assert observation["state"].tolist() == [1, 2, 3, 1, 0, 2]


def test_keys_may_have_slashes_and_may_be_nested() -> None:
    nested = {"a/b": {"c": 1, "c/d": 2}, "a": {"b": {"e": 3}}}
    for key, value in (("a/b/c", 1), ("a/b/c/d", 2)):
        assert find_entry(nested, key) == value
    space = Dict({"a/b": Dict({"c": Discrete(2)}), "a": Discrete(3)})
    assert find_space(space, "a/b/c") == Discrete(2)
    assert find_space(space, "a/x") is None
    with pytest.raises(KeyError):
        find_entry(nested, "a/x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"panda/pos": np.array([np.nan, 1])}, "returns NaN or infinite states after step 0: x"),
        ({"panda/pos": np.array([1e300, 1])}, "returns NaN or infinite states after step 0: x"),
        ({"panda/pos": np.zeros((1, 2))}, r"float64 of shape \(1, 2\) as state 'panda/pos', but"),
        ({"panda/pos": np.float32(1)}, r"float32 of shape \(\) as state 'panda/pos'"),
        ({"panda/pos": ["a", "b"]}, "as state 'panda/pos', but its observation space says Box"),
        ({"panda/pos": None}, "object of shape .* as state 'panda/pos'"),
        ({"image": IMAGE.astype(np.float32)}, r"float32 of shape \(4, 6, 3\) as image 'image'"),
        ({"image": IMAGE.astype(np.int64)}, r"int64 of shape .* as image 'image', but .* uint8"),
        ({"image": IMAGE[..., 0]}, r"uint8 of shape \(4, 6\) as image 'image'"),
        ({"image": None}, "object of shape .* as image 'image'"),
    ],
)
def test_values_other_than_declared_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RolloutError, match=f"'test/Others-v0' returns.*{message}|{message}"):
        env(lambda v: v | change).reset(seed=0)


def test_a_missing_entry_is_named() -> None:
    with pytest.raises(RolloutError, match="an observation without 'grip', which its"):
        env(lambda v: {k: x for k, x in v.items() if k != "grip"}).reset(seed=0)


def test_an_episode_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robot_env_module, "ENDLESS", 30)
    policy = Wanderer(robot())
    endless: dict[str, Any] = {"observation_map": MAP, "episodes": 1}
    with pytest.raises(RolloutError, match="has not ended after 30 steps; set max_steps"):
        roll(policy, "test/Others-v0", **endless)
    assert roll(policy, "test/Others-v0", **endless, max_steps=40).episodes[0].length == 40


def test_the_table_has_the_clipped_share(capsys: pytest.CaptureFixture[str]) -> None:
    result = roll(Wanderer(robot()), "test/Others-v0", observation_map=MAP, episodes=1, max_steps=9)
    print_table([result])
    printed = capsys.readouterr().out
    assert "clipped" in printed
    assert f"{100 * result.clipped_share:.1f} %" in printed
    assert result.clipped_share > 0.5
