"""Runs of a study: every prior and every cell with its complete configuration.

The identity of a run is a hash of that configuration. Renaming an arm or reordering the study file
keeps finished runs; changing a learning rate repeats exactly the runs that it affects.
"""

import copy
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from actionprior.benchmarks import expand_groups
from actionprior.study.identity import identity
from actionprior.study.plan import Study
from actionprior.study.recipe import Recipe, StudyError, member, read_yaml, with_changes

CURVE = "curve"  # tag of rollouts during a run
ROLLOUTS = "RolloutEvaluation"


@dataclass(frozen=True)
class Prior:
    """A Stage-1 run with its identity."""

    name: str
    seed: int
    recipe: Recipe
    id: str


@dataclass(frozen=True)
class Cell:
    """A Stage-2 run with its identity.

    Attributes:
        arm: Name of the arm.
        part: Name of the part; "" if the study has no parts.
        prior: Stage-1 run that it starts from.
        seed: Seed of weights, batches and noise.
        demonstrations: Demonstrations per task.
        steps: Training steps.
        recipe: Recipe without the paths of prior and trunk, which depend on the machine.
        id: Identity: hash of the recipe and of the identities of prior and trunk.
    """

    arm: str
    part: str
    prior: Prior
    seed: int
    demonstrations: int
    steps: int
    recipe: Recipe
    id: str


@dataclass(frozen=True)
class Grid:
    """All runs of a study in their order; ``trunk`` is the trunk's identity or ""."""

    cells: list[Cell]
    trunk: str

    @property
    def priors(self) -> list[Prior]:
        """Priors of all cells, each once."""
        return list({cell.prior.id: cell.prior for cell in self.cells}.values())


class _Key(NamedTuple):
    arm: str
    part: str
    seed: int
    demonstrations: int
    steps: int


def make_grid(study: Study) -> Grid:
    """Expand a study into its runs, reading the recipes that it names.

    Raises:
        StudyError: A recipe is missing, or an override does not fit it.
    """
    stage1, stage2 = (
        with_changes(_without_saves(read_yaml(stage.recipe)), stage.overrides)
        for stage in (study.stage1, study.stage2)
    )
    length = stage1.get("trainer", {}).get("max_steps")
    if not isinstance(length, int) or length < 1:
        raise StudyError(
            f"{study.stage1.recipe} has trainer.max_steps {length!r}; expected a whole number from "
            "1 on: the cost of Stage 1 follows from it"
        )
    trunk = "" if study.ground is None else identity(study.ground)
    cells: dict[_Key, Cell] = {}
    priors: dict[tuple[str, int], Prior] = {}
    # Seeds are the outer loop, so that an interrupted study has complete seeds.
    for block in study.cells:
        for seed in block.seeds:
            for steps in block.steps:
                for demonstrations in block.demonstrations:
                    for arm, part in product(block.arms, study.parts):
                        key = _Key(arm, part, seed, demonstrations, steps)
                        if key in cells:
                            continue
                        name, own = study.arms[arm].prior, seed if study.prior_per_seed else 0
                        if (name, own) not in priors:
                            priors[name, own] = _prior(study, stage1, name, own)
                        recipe = _stage2(study, stage2, key, block.curve)
                        known = identity([recipe, priors[name, own].id, trunk])
                        cells[key] = Cell(arm, part, priors[name, own], *key[2:], recipe, known)
    _check_groups(study, list(cells.values()))
    return Grid(list(cells.values()), trunk)


def _without_saves(recipe: Recipe) -> Recipe:
    """Leave out callbacks that save during a run: a cell of a study needs its end only.

    They change no result, and the identities of published cells have none.
    """
    callbacks = (recipe.get("trainer") or {}).get("callbacks")
    if not callbacks:
        return recipe
    saves = [member(recipe, name) for name in ("StepCheckpoint", "BestCheckpoint")]
    others = [callback for callback in callbacks if callback not in saves]
    return {**recipe, "trainer": {**recipe["trainer"], "callbacks": others}}


def _check_groups(study: Study, cells: list[Cell]) -> None:
    played = set()
    for cell in cells:
        tasks = (member(cell.recipe, ROLLOUTS) or {}).get("init_args", {}).get("env_ids", [])
        played |= set(expand_groups([tasks] if isinstance(tasks, str) else tasks))
    for group, names in study.groups.items():
        if unknown := sorted(set(names) - played):
            raise StudyError(
                f"groups.{group} names {unknown}, which no cell plays; expected of {sorted(played)}"
            )


def _prior(study: Study, stage1: Recipe, name: str, seed: int) -> Prior:
    changes = dict(study.priors[name])
    if study.prior_per_seed:
        changes |= {"seed_everything": seed, "data.seed": seed}
    recipe = with_changes(stage1, changes)
    return Prior(name, seed, recipe, identity(recipe))


def _stage2(study: Study, stage2: Recipe, key: _Key, curve: bool) -> Recipe:
    arm, part, seed, demonstrations, steps = key
    e = study.evaluation
    recipe = with_changes(
        with_changes(stage2, study.parts[part] | study.arms[arm].overrides),
        {
            "seed_everything": seed,
            "data.seed": seed,
            study.demonstrations_key: demonstrations,
            "trainer.max_steps": steps,
            "trainer.val_check_interval": max(1, steps // e.validations),
            "trainer.check_val_every_n_epoch": None,
            "trainer.log_every_n_steps": 1,
            "trainer.enable_progress_bar": False,
            "trainer.enable_model_summary": False,
        },
    )
    final = member(recipe, ROLLOUTS)
    if final is not None:
        settings: dict[str, Any] = final.setdefault("init_args", {})
        settings |= {"episodes": e.rollouts, "every_n_steps": 0}
        if e.first_scene is not None:
            settings["seed"] = e.first_scene
        if curve:
            along = copy.deepcopy(final)
            every = max(1, round(e.curve_every * steps))
            along["init_args"] |= {"tag": CURVE, "every_n_steps": every, "videos": 0}
            along["init_args"]["episodes"] = e.curve_rollouts
            recipe["trainer"]["callbacks"].append(along)
    elif curve:
        raise StudyError(f"{study.stage2.recipe} has no {ROLLOUTS}; a curve of success needs one")
    return recipe
