"""Study files: priors, arms and cells of the grid."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from actionprior.study.recipe import StudyError, read_yaml

ROLES = (
    "prior",
    "no_prior",
    "history",
    "history_mlp",
    "shuffled",
    "noise",
    "decay_10",
    "whole_run",
    "reference",
)
"""Roles of arms in the targets. Other arms are compared with ``reference`` (default: no prior)."""


@dataclass(frozen=True)
class StageRecipe:
    """Recipe of ``lightning fit``, with changes by dotted names for all its runs."""

    recipe: str
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyArm:
    """One of the compared settings: a prior, and changes of Stage 2 by dotted names.

    Attributes:
        prior: Name of the prior. An arm that does not use it still needs its statistics and sizes.
        overrides: Changes of the Stage-2 recipe.
        label: Name in tables and figures; by default the arm's name.
        tuning: Effort spent on tuning the arm, in words, for the report.
    """

    prior: str
    overrides: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    tuning: str = ""


@dataclass(frozen=True)
class CellBlock:
    """Full grid of cells: arms × seeds × demonstrations × steps.

    Attributes:
        arms: Names of arms.
        seeds: Seeds of Stage 2, and of Stage 1 with ``prior_per_seed``.
        demonstrations: Numbers of demonstrations per task.
        steps: Numbers of Stage-2 steps, each with a completed learning-rate schedule.
        curve: True also measures success during the run.
    """

    arms: list[str]
    seeds: list[int]
    demonstrations: list[int]
    steps: list[int]
    curve: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Measurements of every cell.

    Attributes:
        rollouts: Rollouts per task at the end of a cell.
        first_scene: Seed of the first scene; None uses the recipe's. Arms and seeds share the
            scenes, so that results are paired.
        validations: Number of validations during a run.
        curve_every: Share of a run between two measurements of success during it.
        curve_rollouts: Rollouts per task in each of these measurements.
    """

    rollouts: int = 50
    first_scene: int | None = None
    validations: int = 20
    curve_every: float = 0.1
    curve_rollouts: int = 10


@dataclass(frozen=True)
class Study:
    """A study file.

    Attributes:
        stage1: Recipe of the priors.
        stage2: Recipe of the cells.
        priors: Name → overrides of the Stage-1 recipe.
        arms: Name → arm.
        cells: Blocks of cells; a cell in two blocks belongs to the first.
        parts: Name → overrides of the Stage-2 recipe. Every cell runs once per part, such as one
            part per robot, and the tasks of all parts count as those of one run. None: one part.
        evaluation: Measurements of every cell.
        ground: Options of ``lightning ground`` for the trunk that all cells share; None uses the
            trunk of the Stage-2 recipe.
        prior_per_seed: True trains one prior per seed instead of one for all.
        demonstrations_key: Dotted name of the Stage-2 argument for demonstrations per task.
        roles: Role in the targets → arm; by default the arm with the role's name.
        groups: Name → tasks (environment ids), for targets on some of the tasks.
        sweeps: Title of a figure → {x label, arms: {arm: x}}, for curves over arms.
        title: Title of the report.
        notes: Text at the beginning of the report.
    """

    stage1: StageRecipe
    stage2: StageRecipe
    priors: dict[str, dict[str, Any]]
    arms: dict[str, StudyArm]
    cells: list[CellBlock]
    parts: dict[str, dict[str, Any]] = field(default_factory=lambda: {"": {}})
    evaluation: Evaluation = field(default_factory=Evaluation)
    ground: dict[str, Any] | None = None
    prior_per_seed: bool = False
    demonstrations_key: str = "data.demonstrations"
    roles: dict[str, str] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    sweeps: dict[str, dict[str, Any]] = field(default_factory=dict)
    title: str = "The study: what the motion prior gives"
    notes: str = ""

    @classmethod
    def read(cls, path: str) -> Self:
        """Read and check a study file.

        Raises:
            StudyError: Something is wrong in the file, which the message names.
        """
        try:
            return cls._from_plain(read_yaml(path))
        except StudyError as error:
            message = str(error)
            message = message if message.startswith(path) else f"{path}: {message}"
            raise StudyError(message) from None

    @classmethod
    def _from_plain(cls, plain: Mapping[str, Any]) -> Self:
        _known(plain, cls, "the study")
        for key in ("stage1", "stage2", "priors", "arms", "cells"):
            if not plain.get(key):
                raise StudyError(f"{key} is missing")
        fields = {key: value for key, value in plain.items() if value is not None}
        for key in ("stage1", "stage2"):
            fields[key] = _made(StageRecipe, plain[key], key)
        for key in ("priors", "parts"):
            if plain.get(key):
                fields[key] = {
                    name: _mapping(changes or {}, f"{key}.{name}")
                    for name, changes in _mapping(plain[key], key).items()
                }
        fields["arms"] = {
            name: _made(StudyArm, arm, f"arms.{name}")
            for name, arm in _mapping(plain["arms"], "arms").items()
        }
        fields["cells"] = [_made(CellBlock, b, f"cells[{k}]") for k, b in enumerate(plain["cells"])]
        fields["evaluation"] = _made(Evaluation, plain.get("evaluation") or {}, "evaluation")
        study = cls(**fields)
        study._check()
        return study

    def role(self, name: str) -> str:
        """Return the arm of a role; the study may lack it."""
        return self.roles.get(name, name)

    @property
    def reference(self) -> str:
        """Arm that every other arm is compared with; the study may lack it."""
        return self.roles.get("reference", self.role("no_prior"))

    def label(self, arm: str) -> str:
        """Return the name of an arm in tables and figures."""
        return (self.arms[arm].label if arm in self.arms else "") or arm.replace("_", " ")

    def _check(self) -> None:
        for name, arm in self.arms.items():
            _one_of(arm.prior, self.priors, f"arms.{name}.prior")
        for k, block in enumerate(self.cells):
            for name in block.arms:
                _one_of(name, self.arms, f"cells[{k}].arms")
            for key in ("seeds", "demonstrations", "steps"):
                _whole(getattr(block, key), f"cells[{k}].{key}", 0 if key == "seeds" else 1)
        e = self.evaluation
        _whole([e.rollouts, e.validations, e.curve_rollouts], "evaluation", 1)
        if not isinstance(e.curve_every, int | float) or not 0 < e.curve_every <= 1:
            raise StudyError(f"evaluation.curve_every is {e.curve_every!r}, expected above 0, to 1")
        if e.curve_rollouts > e.rollouts:
            raise StudyError(
                f"evaluation.curve_rollouts is {e.curve_rollouts}, expected at most rollouts"
            )
        for group, tasks in _mapping(self.groups, "groups").items():
            if not isinstance(tasks, list):
                raise StudyError(f"groups.{group} is {tasks!r}, expected a list of tasks")
        for role, name in _mapping(self.roles, "roles").items():
            _one_of(role, ROLES, "roles")
            _one_of(name, self.arms, f"roles.{role}")
        for title, sweep in _mapping(self.sweeps, "sweeps").items():
            if not isinstance(sweep, dict) or set(sweep) != {"x", "arms"}:
                raise StudyError(f"sweeps.{title} is {sweep!r}, expected a mapping of x and arms")
            for name in _mapping(sweep["arms"], f"sweeps.{title}.arms"):
                _one_of(name, self.arms, f"sweeps.{title}.arms")


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise StudyError(f"{where} is {value!r}, expected a mapping")
    for name in value:
        if not isinstance(name, str):
            raise StudyError(f"{where} names {name!r}, expected text; put it in quotes")
    return value


def _known(plain: object, kind: type, where: str) -> None:
    names = list(kind.__dataclass_fields__)  # type: ignore[attr-defined]  # all are dataclasses
    for name in _mapping(plain, where):
        _one_of(name, names, where)


def _made[T](kind: type[T], plain: object, where: str) -> T:
    _known(plain, kind, where)
    fields = _mapping(plain, where)
    fields = {k: v for k, v in fields.items() if v is not None}
    _mapping(fields.get("overrides", {}), f"{where}.overrides")
    for key in ("arms", "seeds", "demonstrations", "steps"):
        if key in fields and (not isinstance(fields[key], list) or not fields[key]):
            raise StudyError(f"{where}.{key} is {fields[key]!r}, expected a list")
    try:
        return kind(**fields)
    except TypeError as error:
        raise StudyError(f"{where}: {str(error).partition(') ')[2]}") from None


def _one_of(name: object, allowed: Any, where: str) -> None:  # noqa: ANN401  a container of names
    if name not in allowed:
        raise StudyError(f"{where} names {name!r}, expected one of {sorted(allowed)}")


def _whole(values: list[Any], where: str, least: int) -> None:
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise StudyError(f"{where} holds {value!r}, expected whole numbers from {least} on")
