"""Study files, the grid they span, and what makes a cell the same cell."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actionprior.envs import SUITE, env_id
from actionprior.study.grid import CURVE, make_grid
from actionprior.study.identity import identity
from actionprior.study.plan import Study
from actionprior.study.recipe import (
    Recipe,
    StudyError,
    member,
    read_yaml,
    with_changes,
)
from tests.helpers.synthetic_results import PLAIN, study

PROJECT = Path(__file__).parents[2]


def test_the_grid_is_the_blocks_with_nothing_twice(tmp_path: Path) -> None:
    grid = make_grid(study(tmp_path))
    keys = [(c.arm, c.seed, c.demonstrations, c.steps) for c in grid.cells]
    assert len(keys) == len(set(keys)) == 9
    assert len({c.id for c in grid.cells}) == 9
    assert [p.name for p in grid.priors] == ["base", "shuffled"]
    cell = grid.cells[0]
    assert (cell.arm, cell.seed) == ("no_prior", 0)
    assert cell.recipe["data"]["init_args"]["demonstrations"] == 5
    assert cell.recipe["trainer"]["max_steps"] == 60
    assert cell.recipe["model"]["init_args"]["use_prior"] is False


def test_parts_are_cells_of_their_own_on_the_same_prior(tmp_path: Path) -> None:
    whole = make_grid(study(tmp_path))
    parts = {"wide": {"model.fusion.width": 64}, "plain": None}
    grid = make_grid(study(tmp_path, parts=parts))
    assert [(c.arm, c.part) for c in grid.cells[:2]] == [
        ("no_prior", "wide"),
        ("no_prior", "plain"),
    ]
    assert len(grid.cells) == len({c.id for c in grid.cells}) == 2 * len(whole.cells)
    assert grid.cells[0].recipe["model"]["init_args"]["fusion"] == {"width": 64}
    assert [p.id for p in grid.priors] == [p.id for p in whole.priors]
    assert [c.id for c in grid.cells[1::2]] == [c.id for c in whole.cells]


def test_seeds_vary_stage_1_where_asked_for(tmp_path: Path) -> None:
    grid = make_grid(study(tmp_path, prior_per_seed=True))
    assert [(p.name, p.seed) for p in grid.priors] == [("base", 0), ("base", 1), ("shuffled", 0)]
    assert grid.priors[1].recipe["seed_everything"] == 1
    assert all(c.prior.seed == c.seed for c in grid.cells)


def test_a_cell_is_its_configuration_and_not_its_name(tmp_path: Path) -> None:
    ids = {(c.arm, c.seed, c.demonstrations): c.id for c in make_grid(study(tmp_path)).cells}
    renamed = {"same": PLAIN["arms"]["full"], **PLAIN["arms"]}
    cells = [{"arms": ["same"], "seeds": [1], "demonstrations": [9], "steps": [60]}]
    (cell,) = make_grid(study(tmp_path, arms=renamed, cells=cells)).cells
    assert cell.id == ids["full", 1, 9]
    for part in (
        {"ground": {"robots": ["panda"], "steps": 4}},  # another trunk
        {"stage1": PLAIN["stage1"] | {"overrides": {"trainer.max_steps": 7}}},  # another prior
        {"stage2": PLAIN["stage2"] | {"overrides": {"model.fusion.width": 64}}},
        {"evaluation": {"rollouts": 40}},
        {"cells": [cells[0] | {"curve": True}]},
    ):
        (other,) = make_grid(study(tmp_path, arms=renamed, **{"cells": cells, **part})).cells
        assert other.id != cell.id, part


def test_a_curve_is_a_second_evaluation_on_the_same_scenes(tmp_path: Path) -> None:
    cells = [PLAIN["cells"][1] | {"curve": True}]
    evaluation = {"rollouts": 9, "curve_rollouts": 4, "curve_every": 0.25, "first_scene": 77}
    grid = make_grid(study(tmp_path, cells=cells, evaluation=evaluation))
    found = [
        c["init_args"]
        for c in grid.cells[0].recipe["trainer"]["callbacks"]
        if c["class_path"] == "callbacks.RolloutEvaluation"
    ]
    assert [(f["episodes"], f["every_n_steps"], f["seed"]) for f in found] == [
        (9, 0, 77),
        (4, 15, 77),
    ]
    assert found[1]["tag"] == CURVE


def test_without_rollouts_a_curve_is_refused_and_their_number_is_nothing(tmp_path: Path) -> None:
    real: dict[str, Any] = {
        "stage1": {"recipe": str(PROJECT / "recipes/real/pretrain.yaml")},
        "stage2": {"recipe": str(PROJECT / "recipes/real/finetune.yaml")},
        "ground": None,
        "priors": {"base": None},
        "arms": {"full": {"prior": "base"}},
        "demonstrations_key": "data.max_episodes",
    }
    cell = {"arms": ["full"], "seeds": [3], "demonstrations": [9], "steps": [60]}
    plan = study(tmp_path, **real, cells=[cell], evaluation={"validations": 6})
    (one,) = make_grid(plan).cells
    assert one.recipe["data"]["init_args"]["max_episodes"] == 9
    assert one.recipe["data"]["init_args"]["seed"] == 3
    assert one.recipe["trainer"]["val_check_interval"] == 10
    more = {"validations": 6, "rollouts": 70, "curve_rollouts": 3}
    (other,) = make_grid(study(tmp_path, **real, cells=[cell], evaluation=more)).cells
    assert other.id == one.id
    with pytest.raises(StudyError, match="has no RolloutEvaluation"):
        make_grid(study(tmp_path, **real, cells=[cell | {"curve": True}]))


def test_the_prior_of_the_real_robot_never_sees_what_is_held_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(PROJECT)
    reported, tuned = (
        make_grid(Study.read(f"recipes/study/{name}.yaml")).cells
        for name in ("real", "real_tuning")
    )
    assert {c.prior.id for c in reported} == {c.prior.id for c in tuned}
    held_out = [set(_held_out(c.recipe)) for c in (reported[0], tuned[0])]
    assert not set.intersection(*held_out)
    assert set.union(*held_out) <= set(_held_out(reported[0].prior.recipe))


def test_the_search_is_on_tasks_that_no_study_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)

    def tasks(name: str) -> set[str]:
        cells = make_grid(Study.read(f"recipes/study/{name}.yaml")).cells
        rollouts = [member(cell.recipe, "RolloutEvaluation") or {} for cell in cells]
        return {env for found in rollouts for env in found["init_args"]["env_ids"]}

    search = tasks("search")
    assert search
    assert not search & (tasks("study") | tasks("small") | tasks("ablation"))
    plan = Study.read("recipes/study/search.yaml")
    for name in set(plan.arms) - {"full"}:
        arm = plan.arms[name]
        assert bool(plan.priors[arm.prior]) != bool(arm.overrides), "of one stage only"


def test_held_out_wordings_are_tested_on_policies_that_never_read_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(PROJECT)
    plan = Study.read("recipes/study/wordings.yaml")
    assert plan.ground is not None
    assert plan.ground["wordings"] == "train"
    grid = make_grid(plan)
    known, held_out = (
        [_without_evaluation(c.recipe) for c in grid.cells if c.arm == arm]
        for arm in ("known", "held_out")
    )
    assert [recipe for recipe, _ in known] == [recipe for recipe, _ in held_out]
    assert all(recipe["data"]["init_args"]["wordings"] == "train" for recipe, _ in held_out)
    assert {c.seed for c in grid.cells} == {0, 1, 2}
    assert {words for _, words in known} == {"train"}
    assert {words for _, words in held_out} == {"held_out"}


def _without_evaluation(recipe: Recipe) -> tuple[Recipe, str]:
    """The recipe with no wordings in its rollouts, and these."""
    recipe = copy.deepcopy(recipe)
    (evaluation,) = [
        c["init_args"] for c in recipe["trainer"]["callbacks"] if "Rollout" in c["class_path"]
    ]
    return recipe, evaluation.pop("env_kwargs")["wordings"]


def _held_out(recipe: Recipe) -> list[int]:
    episodes: list[int] = recipe["data"]["init_args"]["val_episodes"]["g1_inspire"]
    return episodes


@pytest.mark.parametrize(
    "name", ["study", "small", "ablation", "real", "metaworld", "metaworld_compact", "memory"]
)
def test_the_committed_studies_say_what_they_promise(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    plan = Study.read(f"recipes/study/{name}.yaml")
    grid = make_grid(plan)
    switches = [c.recipe["model"]["init_args"].get("history", "encoder") for c in grid.cells]
    assert set(switches) <= {"off", "encoder", "mlp"}  # YAML reads a bare off as false
    seeds = {arm: {c.seed for c in grid.cells if c.arm == arm} for arm in plan.arms}
    assert all(len(s) >= 3 for s in seeds.values())
    if name == "study":
        assert {task for group in ("rich", "tail") for task in plan.groups[group]} == {
            env_id(robot, task) for robot, tasks in SUITE.items() for task in tasks
        }
        assert set(plan.parts) == set(SUITE)
        assert len(seeds["no_prior"]) >= 5
        assert seeds["no_prior"] == seeds["full"]
    if name == "ablation":
        for arm in ("no_prior", "full"):
            assert {c.demonstrations for c in grid.cells if c.arm == arm} == {5, 10, 25, 50}
    assert plan.arms["no_prior"].tuning == plan.arms["full"].tuning != ""


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"arm": {}}, r"the study names 'arm', expected one of \["),
        ({"cells": []}, "cells is missing"),
        ({"stage1": {}}, "stage1 is missing"),
        ({"stage1": {"overrides": {}}}, "stage1: missing 1 required positional argument: 'recipe'"),
        ({"priors": ["base"]}, r"priors is \['base'\], expected a mapping"),
        ({"priors": {"base": 3}}, "priors.base is 3, expected a mapping"),
        ({"arms": {"full": {"prior": "x"}}}, "arms.full.prior names 'x', expected one of"),
        ({"arms": {"full": {"prior": "base", "overrides": [1]}}}, "arms.full.overrides is"),
        ({"cells": [PLAIN["cells"][0] | {"seeds": [-1]}]}, r"cells\[0\].seeds holds -1"),
        (
            {"cells": [PLAIN["cells"][0] | {"steps": 60}]},
            r"cells\[0\].steps is 60, expected a list",
        ),
        ({"cells": [PLAIN["cells"][0] | {"arms": ["x"]}]}, r"cells\[0\].arms names 'x'"),
        ({"evaluation": {"curve_every": 2}}, "evaluation.curve_every is 2, expected above 0"),
        ({"evaluation": {"rollouts": 3}}, "curve_rollouts is 10, expected at most rollouts"),
        ({"roles": {"hero": "full"}}, "roles names 'hero'"),
        ({"roles": {"prior": "x"}}, "roles.prior names 'x'"),
        ({"sweeps": {"data": {"arms": {}}}}, "sweeps.data is"),
        ({"sweeps": {"data": {"x": "", "arms": {"x": 1}}}}, "sweeps.data.arms names 'x'"),
        ({"sweeps": {"data": {"x": "", "arms": ["full"]}}}, r"sweeps.data.arms is \['full'\]"),
        ({"groups": {"tail": "actionprior/PandaPush-v0"}}, "groups.tail is 'actionprior/PandaP"),
        ({"arms": {16: {"prior": "base"}}}, "arms names 16, expected text; put it in quotes"),
    ],
)
def test_what_is_wrong_in_a_study_file_is_said(
    tmp_path: Path, parts: dict[str, Any], message: str
) -> None:
    with pytest.raises(StudyError, match=r"study\.yaml: .*" + message):
        study(tmp_path, **parts)


def test_what_is_commented_out_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    empty = dict.fromkeys(("sweeps", "roles", "parts", "groups", "title", "evaluation"))
    assert study(tmp_path, **empty) == study(tmp_path)


def test_what_no_cell_plays_is_in_no_group(tmp_path: Path) -> None:
    named = study(tmp_path, groups={"tail": ["actionprior/PandaPsuh-v0"]})
    with pytest.raises(
        StudyError, match=r"groups\.tail names .*Psuh.*, which no cell plays; expec"
    ):
        make_grid(named)


def test_a_stage_1_without_an_end_in_steps_is_refused(tmp_path: Path) -> None:
    stage1 = PLAIN["stage1"] | {"overrides": {"trainer.max_steps": -1, "trainer.max_epochs": 2}}
    with pytest.raises(StudyError, match=r"pretrain\.yaml has trainer\.max_steps -1; expected a"):
        make_grid(study(tmp_path, stage1=stage1))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"none\.yaml does not exist"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_text("a: [1")
    with pytest.raises(StudyError, match=r"a\.yaml is not YAML"):
        read_yaml(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("[1]")
    with pytest.raises(StudyError, match="holds list, expected a mapping"):
        read_yaml(tmp_path / "a.yaml")


def test_names_step_into_init_args_and_lists() -> None:
    recipe = read_yaml(PROJECT / "recipes/finetune.yaml")
    after = with_changes(
        recipe,
        {
            "model.trunk.weights": "w",
            "model.architecture.inputs": "action",
            "trainer.callbacks.RolloutEvaluation.episodes": 3,
            "model.class_path": "mine.Module",
        },
    )
    model = after["model"]
    assert model["class_path"] == "mine.Module"
    assert model["init_args"]["trunk"]["init_args"]["weights"] == "w"
    assert model["init_args"]["architecture"] == {"inputs": "action"}
    found = member(after, "RolloutEvaluation")
    assert found is not None
    assert found["init_args"]["episodes"] == 3
    assert recipe == read_yaml(PROJECT / "recipes/finetune.yaml")
    for name, message in (
        ("trainer.callbacks.Nobody.x", "found 0 entries of class Nobody"),
        ("seed_everything.x", "expected a mapping there"),
    ):
        with pytest.raises(StudyError, match=message):
            with_changes(recipe, {name: 1})


@given(st.dictionaries(st.text(), st.integers() | st.booleans() | st.none() | st.text()))
def test_identity_does_not_depend_on_the_order_of_keys(data: dict[str, Any]) -> None:
    assert identity(data) == identity(dict(reversed(data.items())))
    assert identity(data) != identity(data | {"one more": 1} if "one more" not in data else {})


def test_grouped_arguments_keep_the_identity_that_they_had_one_by_one() -> None:
    flat = {"learning_rate": 0.1, "latent_noise": 0.2, "width": 96, "image_size": 64}
    grouped = {
        "learning_rate": 0.1,
        "fusion": {"width": 96},
        "flow": {"latent_noise": 0.2},
        "images": {"image_size": 64},
    }
    before, now = (
        identity([{"model": {"class_path": "m.M", "init_args": arguments}}, "prior"])
        for arguments in (flat, grouped)
    )
    assert now == before
    trunk = {"model": "ViT-B-16", "freeze_image": False, "lora_rank": 16, "image_size": 224}
    tuned = {
        "model": "ViT-B-16",
        "tuning": {"freeze_image": False, "lora_rank": 16},
        "pixels": {"image_size": 224},
    }
    before, now = (
        identity({"model": {"init_args": {"trunk": {"class_path": "T", "init_args": arguments}}}})
        for arguments in (trunk, tuned)
    )
    assert now == before
    assert identity({"init_args": {"flow": {"latent_noise": 0.3}}}) != identity(
        {"init_args": {"latent_noise": 0.2}}
    )
