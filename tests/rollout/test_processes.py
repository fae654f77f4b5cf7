"""Errors of environments in processes are those without processes."""

import os
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest

from actionprior.rollout import RolloutError
from tests.helpers.point_env import PointEnv, Wanderer, roll


class Failing(PointEnv):
    """Environment that fails at its third step, in one of several ways."""

    def __init__(self, how: str, **others: Any) -> None:
        super().__init__(**others)
        self.how = how

    def step(self, action: Any) -> Any:
        observation, *others = super().step(action)
        if self.steps == 3 and self.how == "nan":
            observation = observation * np.nan
        if self.steps == 3 and self.how == "bug":
            raise RuntimeError("simulator lost its robot")
        if self.steps == 3 and self.how == "killed":
            os._exit(9)
        return observation, *others


gymnasium.register("test/Failing-v0", Failing, max_episode_steps=40)


def error_of(how: str, vectorization: str) -> Exception:
    arguments = {"episodes": 2, "num_envs": 2, "env_kwargs": {"how": how}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            roll(Wanderer(), "test/Failing-v0", vectorization=vectorization, **arguments)
        except Exception as error:
            return error
    raise AssertionError("the environment did not fail")


@pytest.mark.slow
def test_a_process_reports_what_its_environment_would_report() -> None:
    here, there = (error_of("nan", kind) for kind in ("sync", "async"))
    assert type(here) is type(there) is RolloutError
    assert str(here) == str(there)
    assert "returns NaN or infinite states after step 3: x, y" in str(there)
    assert not hasattr(there, "__notes__")


@pytest.mark.slow
def test_a_bug_of_an_environment_keeps_its_traceback() -> None:
    error = error_of("bug", "async")
    assert (type(error), str(error)) == (RuntimeError, "simulator lost its robot")
    assert "test_processes.py" in error.__notes__[0]


@pytest.mark.slow
def test_a_killed_process_is_said_in_a_sentence() -> None:
    error = error_of("killed", "async")
    assert isinstance(error, RolloutError)
    assert "a process of an environment has ended (exit code 9); if it was killed" in str(error)
