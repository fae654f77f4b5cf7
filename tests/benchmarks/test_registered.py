"""Test what is registered without the packages, and the error if one is missing."""

import importlib.util
import subprocess
import sys

import gymnasium as gym
import pytest

from actionprior.benchmarks import ALOHA_IDS, LIBERO_IDS, METAWORLD_IDS
from actionprior.benchmarks.optional_import import BenchmarkError, import_benchmark


def test_every_task_has_its_own_id() -> None:
    ids = [*METAWORLD_IDS, *LIBERO_IDS, *ALOHA_IDS]
    assert len(set(ids)) == len(ids) == 50 + 130 + 2
    assert all(gym.spec(env_id).id == env_id for env_id in ids)


def test_registering_imports_no_benchmark() -> None:
    code = (
        "import sys, actionprior.benchmarks as b; "
        "print({'metaworld', 'libero', 'gym_aloha', 'mujoco'} & set(sys.modules))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "set()"


def test_a_missing_package_is_named_in_one_sentence() -> None:
    with pytest.raises(BenchmarkError, match=r"no_such is not installed.* '\.\[metaworld\]'"):
        import_benchmark("no_such.module", "metaworld")


@pytest.mark.skipif(importlib.util.find_spec("metaworld") is not None, reason="it is installed")
def test_an_environment_without_its_package_is_rejected() -> None:
    with pytest.raises(BenchmarkError, match=r"'\.\[metaworld\]'"):
        gym.make("metaworld/reach-v3")
