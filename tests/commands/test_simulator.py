"""The simulator of a verb is that of the recipe's RolloutEvaluation, or the suite."""

from typing import Any

import pytest

pytest.importorskip("pybullet")

from actionprior.commands._simulator import choose_simulator
from actionprior.errors import UserError
from actionprior.rollout import ObservationMap, RolloutError
from tests.helpers.signal_task import SignalData

LIFT, PUSH = "actionprior/PandaLift-v0", "actionprior/PandaPush-v0"


def recipe(**changes: Any) -> dict[str, Any]:
    arguments = {
        "env_ids": [LIFT],
        "observation_map": {"images": {"front": "image"}},
        "embodiment": "panda",
        "execute_steps": 3,
        "env_kwargs": {"image_size": 32},
    }
    callback = {"class_path": "callbacks.RolloutEvaluation", "init_args": arguments | changes}
    return {"callbacks": [{"class_path": "lightning.pytorch.callbacks.Timer"}, callback]}


def test_the_recipes_evaluation_is_used() -> None:
    found = choose_simulator(recipe(), [], SignalData())
    assert found is not None
    assert (found.env_ids, found.execute_steps) == ([LIFT], 3)
    assert found.observation_map == ObservationMap(images={"front": "image"})
    assert found.env_kwargs == {"image_size": 32}
    assert found.of_robot("panda") == [LIFT]
    assert found.of_robot("kuka") == []


def test_other_environments_replace_those_of_the_recipe() -> None:
    found = choose_simulator(
        recipe(embodiment={PUSH: "panda", LIFT: "panda"}), [PUSH], SignalData()
    )
    assert found is not None
    assert found.of_robot("panda") == [PUSH]


def test_the_suite_needs_no_evaluation_in_the_recipe() -> None:
    found = choose_simulator(None, [LIFT], SignalData())
    assert found is not None
    assert found.observation_map.images == {"front": "image", "wrist": "image"}


def test_without_environments_there_is_no_simulator() -> None:
    assert choose_simulator({"max_steps": 3}, [], SignalData()) is None


@pytest.mark.parametrize(
    ("trainer", "env_ids", "error", "message"),
    [
        (None, ["CartPole-v1"], UserError, "no RolloutEvaluation that maps"),
        (recipe(), ["actionprior/None-v0"], RolloutError, "cannot be found"),
        (recipe(embodiment={LIFT: "panda"}), [PUSH], UserError, "names no embodiment for"),
        (recipe(import_modules=["gone"]), [], RolloutError, "import_modules names 'gone'"),
    ],
)
def test_what_does_not_fit_is_refused(
    trainer: dict[str, Any] | None, env_ids: list[str], error: type[UserError], message: str
) -> None:
    with pytest.raises(error, match=message):
        choose_simulator(trainer, env_ids, SignalData())
