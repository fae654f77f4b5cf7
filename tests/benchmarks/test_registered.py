"""Test what is registered without the packages, and the error if one is missing."""

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import gymnasium as gym
import pytest

from actionprior.benchmarks import (
    ALOHA_IDS,
    DIFFICULTY_GROUPS,
    ENV_GROUPS,
    LIBERO_IDS,
    METAWORLD_IDS,
    expand_groups,
)
from actionprior.benchmarks.metaworld_tasks import METAWORLD_DESCRIPTIONS, METAWORLD_DIFFICULTY
from actionprior.benchmarks.optional_import import BenchmarkError, import_benchmark


def test_every_task_has_its_own_id() -> None:
    ids = [*METAWORLD_IDS, *LIBERO_IDS, *ALOHA_IDS]
    assert len(set(ids)) == len(ids) == 50 + 130 + 2
    assert all(gym.spec(env_id).id == env_id for env_id in ids)


def test_groups_stand_for_their_tasks() -> None:
    assert len(expand_groups(["metaworld/mt50"])) == 50
    assert len(expand_groups(["metaworld/mt10"])) == 10
    assert [len(DIFFICULTY_GROUPS[f"metaworld/{d}"]) for d in METAWORLD_DIFFICULTY] == [
        28,
        11,
        6,
        5,
    ]
    assert set(expand_groups(list(DIFFICULTY_GROUPS))) == set(METAWORLD_IDS)
    assert expand_groups(["CartPole-v1", "metaworld/hard", "CartPole-v1"]) == [
        "CartPole-v1",
        *DIFFICULTY_GROUPS["metaworld/hard"],
        "CartPole-v1",
    ]
    assert expand_groups(["libero_10"]) == [f"libero_10/{number}" for number in range(10)]
    assert not set(ENV_GROUPS) & set(gym.registry)


def test_descriptions_and_groups_equal_lerobots() -> None:
    spec = importlib.util.find_spec("lerobot")
    if spec is None or spec.origin is None:
        pytest.skip("lerobot is not installed")
    file = Path(spec.origin).parent / "envs" / "metaworld_config.json"
    published = json.loads(file.read_text())
    assert published["TASK_DESCRIPTIONS"] == METAWORLD_DESCRIPTIONS
    assert {k: list(v) for k, v in METAWORLD_DIFFICULTY.items()} == published["DIFFICULTY_TO_TASKS"]
    counts = Counter(METAWORLD_DESCRIPTIONS.values())
    assert [text for text, n in counts.items() if n > 1] == ["Push the puck to a goal"]


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
