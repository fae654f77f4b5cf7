"""What an advice of the doctor names: options, lines of a robot, and lines of its groups."""

import contextlib
import io
import re
import shlex
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from actionprior.checkup import Finding
from actionprior.cli import main
from actionprior.commands._parser import make_parser
from actionprior.commands.doctor import doctor
from actionprior.embodiment import Embodiment
from data_modules.lerobot.columns import LeRobotEmbodiment
from tests.helpers.recipes import ROBOT

ROOT = Path(__file__).parents[2]
LINE = r"`([^`]+)`"
INFORM = {"rate", "jitter", "timestamps"}
"""Warnings about the clock, without an advice once training resamples or trusts the frame rate."""


class Named(NamedTuple):
    """Settings in an advice.

    Attributes:
        words: Words of the command line.
        robot: Keys of the robot.
        groups: Keys of groups, by kind and name.
    """

    words: list[str]
    robot: dict[str, Any]
    groups: dict[tuple[str, str], dict[str, Any]]


def named(advice: str) -> Named:
    """Read an advice as a user would who pastes what stands between backticks."""
    words = [word for text in re.findall(r"`(--[^`]+)`", advice) for word in shlex.split(text)]
    robot: dict[str, Any] = {}
    for lines in re.findall(rf"({LINE}(?:, {LINE})*) on the robot", advice):
        robot |= _lines(lines[0])
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    found = re.findall(rf"({LINE}(?:, {LINE})*) in (action|state) group '([^']*)'", advice)
    for lines in found:
        groups.setdefault((lines[-2], lines[-1]), {}).update(_lines(lines[0]))
    return Named(words, robot, groups)


def _lines(text: str) -> dict[str, Any]:
    return {k: v for one in re.findall(LINE, text) for k, v in yaml.safe_load(one).items()}


def obeyed(robot: dict[str, Any], advice: str) -> dict[str, Any]:
    """Copy a robot of a recipe with the keys that an advice names."""
    settings = named(advice)
    changed = robot | settings.robot
    for kind in ("action", "state"):
        changed[kind] = [
            group | settings.groups.get((kind, group["name"]), {}) for group in changed[kind]
        ]
    missing = [
        name for kind, name in settings.groups if name not in {g["name"] for g in changed[kind]}
    ]
    assert not missing, advice
    return changed


def check_finding(robot: Embodiment, finding: Finding) -> None:
    """Check that a finding says what to do, and that all that it names is accepted.

    Raises:
        AssertionError: An error or a warning has no advice, or a parser refuses what it names.
    """
    if finding.level != "note" and finding.check not in INFORM:
        assert finding.advice, finding
    settings = named(finding.advice)
    LeRobotEmbodiment.from_dict(obeyed(robot.to_dict(), finding.advice))
    if settings.words:
        accept(tuple(settings.words))


@cache
def accept(words: tuple[str, ...]) -> None:
    """Parse words as the doctor does, and those of a model or a second recipe as ``fit`` does."""
    plain = robot_with_cameras()
    data = {"class_path": "data_modules.LeRobotVLA", "init_args": {"embodiments": [plain]}}
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder, "recipe.yaml")
        recipe.write_text(yaml.safe_dump({"data": data}))
        make_parser(doctor, "lightning doctor").parse_args(["--config", str(recipe), *words])
    if any(word.startswith(("--model.", "--config")) for word in words):
        finetune = str(ROOT / "recipes/finetune.yaml")
        silent = contextlib.redirect_stdout(io.StringIO())
        with contextlib.chdir(ROOT), pytest.raises(SystemExit) as stop, silent:
            main(["fit", "--config", finetune, *words, "--print_config"])
        assert stop.value.code == 0, words


def robot_with_cameras() -> dict[str, Any]:
    return ROBOT | {"roots": ["set"], "cameras": ["observation.images.front"]}
