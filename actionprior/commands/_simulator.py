"""Choose the simulator of a verb: that of a recipe's ``RolloutEvaluation``, or the suite."""

from typing import Any

from actionprior.benchmarks import expand_groups
from actionprior.data import EmbodiedDataModule
from actionprior.diagnosis.simulator import SUITE, Simulator
from actionprior.errors import UserError
from actionprior.rollout import ObservationMap
from actionprior.rollout.robot_env import find_spec, register_environments

_SUITE_IMAGE = "image"
_EXECUTE_STEPS = 8


def choose_simulator(
    trainer: dict[str, Any] | None, env_ids: list[str], data: EmbodiedDataModule
) -> Simulator | None:
    """Read the simulator from a recipe's ``RolloutEvaluation``, or from environment ids.

    Args:
        trainer: Section ``trainer`` of the recipe.
        env_ids: Environments that replace those of the recipe.
        data: Data module of the recipe.

    Returns:
        None if neither names an environment.

    Raises:
        UserError: Environments outside of the suite without a ``RolloutEvaluation``, or without a
            robot in it.
        RolloutError: An environment or the module that registers it is missing.
    """
    entries = (trainer or {}).get("callbacks") or []
    found = [e for e in entries if _class_path(e).endswith("RolloutEvaluation")]
    if found:
        simulator = _from_recipe(found[0], env_ids)
    elif env_ids:
        simulator = _of_suite(env_ids, data)
    else:
        return None
    for env_id in simulator.env_ids:
        find_spec(env_id)
    return simulator


def _from_recipe(entry: Any, env_ids: list[str]) -> Simulator:  # noqa: ANN401  plain data
    from jsonargparse import ArgumentParser

    from callbacks import RolloutEvaluation

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(RolloutEvaluation, "rollouts")
    values = parser.parse_object({"rollouts": dict(entry.get("init_args", {}))})
    callback: RolloutEvaluation = parser.instantiate(values)["rollouts"]
    register_environments(callback.import_modules)
    chosen, names = expand_groups(env_ids) or callback.env_ids, callback.embodiment
    if isinstance(names, dict) and (lacking := sorted(set(chosen) - set(names))):
        raise UserError(
            f"the recipe's RolloutEvaluation names no embodiment for {lacking}; add it there, or "
            "choose other environments (--env_ids)"
        )
    return Simulator(
        chosen,
        callback.observation_map,
        names,
        callback.seed,
        callback.execute_steps,
        callback.max_steps,
        callback.env_kwargs or {},
        callback.success_key,
    )


def _of_suite(env_ids: list[str], data: EmbodiedDataModule) -> Simulator:
    import actionprior.envs  # noqa: F401  registers the suite

    if other := [env_id for env_id in env_ids if not env_id.startswith(SUITE)]:
        raise UserError(
            f"--env_ids names {other}, and the recipe has no RolloutEvaluation that maps their "
            "observations; add one to trainer.callbacks"
        )
    robot = data.embodiments[0]
    images = dict.fromkeys(robot.cameras, _SUITE_IMAGE)
    steps = min(_EXECUTE_STEPS, data.chunk_length)
    return Simulator(env_ids, ObservationMap(images=images), robot.name, execute_steps=steps)


def _class_path(entry: Any) -> str:  # noqa: ANN401  plain data
    return str(entry.get("class_path", "")) if hasattr(entry, "get") else ""
