"""From a study to its runs: every prior and every cell with its whole configuration.

A run's identity is a hash of that configuration: rename an arm, reorder the file, and what is
finished stays finished; change a learning rate, and exactly what it touches is run again.
"""

import copy
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from actionprior.study.identity import identity
from actionprior.study.plan import Study
from actionprior.study.recipe import Recipe, StudyError, changed, member, read_yaml

CURVE = "curve"  # tag of the rollouts along a run
ROLLOUTS = "RolloutEvaluation"


@dataclass(frozen=True)
class Prior:
    """One Stage-1 run; ``id`` names it."""

    name: str
    seed: int
    recipe: Recipe
    id: str


@dataclass(frozen=True)
class Cell:
    """One Stage-2 run; ``id`` names it.

    Attributes:
        arm: its name.
        part: its name; "" where the study has none.
        prior: what it starts from.
        seed: of weights, batches and noise.
        demonstrations: of each task.
        steps: of the run.
        recipe: without the places of prior and trunk, which depend on the machine.
        id: of the recipe, the prior's and the trunk's.
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
    """All runs of a study, in the order in which they are run; ``trunk`` is an identity or ""."""

    cells: list[Cell]
    trunk: str

    @property
    def priors(self) -> list[Prior]:
        """Each once."""
        return list({cell.prior.id: cell.prior for cell in self.cells}.values())


class _Key(NamedTuple):
    arm: str
    part: str
    seed: int
    demonstrations: int
    steps: int


def make_grid(study: Study) -> Grid:
    """Expand the study; the recipes that it names are read here.

    Raises:
        StudyError: a recipe is missing, or an override does not fit it.
    """
    stage1, stage2 = (
        changed(read_yaml(stage.recipe), stage.overrides) for stage in (study.stage1, study.stage2)
    )
    length = stage1.get("trainer", {}).get("max_steps")
    if not isinstance(length, int) or length < 1:
        raise StudyError(
            f"{study.stage1.recipe} has trainer.max_steps {length!r}; expected a whole number from "
            "1 on, which the cost of Stage 1 is told from"
        )
    trunk = "" if study.ground is None else identity(study.ground)
    cells: dict[_Key, Cell] = {}
    priors: dict[tuple[str, int], Prior] = {}
    # Seeds outermost: a study that is cut short has whole seeds.
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


def _check_groups(study: Study, cells: list[Cell]) -> None:
    played = set()
    for cell in cells:
        tasks = (member(cell.recipe, ROLLOUTS) or {}).get("init_args", {}).get("env_ids", [])
        played |= {tasks} if isinstance(tasks, str) else set(tasks)
    for group, names in study.groups.items():
        if unknown := sorted(set(names) - played):
            raise StudyError(
                f"groups.{group} names {unknown}, which no cell plays; expected of {sorted(played)}"
            )


def _prior(study: Study, stage1: Recipe, name: str, seed: int) -> Prior:
    changes = dict(study.priors[name])
    if study.prior_per_seed:
        changes |= {"seed_everything": seed, "data.seed": seed}
    recipe = changed(stage1, changes)
    return Prior(name, seed, recipe, identity(recipe))


def _stage2(study: Study, stage2: Recipe, key: _Key, curve: bool) -> Recipe:
    arm, part, seed, demonstrations, steps = key
    e = study.evaluation
    recipe = changed(
        changed(stage2, study.parts[part] | study.arms[arm].overrides),
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
