"""Record a scripted expert in any Gymnasium environment, as a LeRobot dataset."""

import importlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from actionprior.errors import UserError
from actionprior.recording.lerobot_writer import (
    RecordingSummary,
    TaskToRecord,
    check_recording,
    write_demonstrations,
)
from actionprior.recording.scripted import ScriptedTask, whole_body
from actionprior.rollout import ObservationMap
from actionprior.rollout.robot_env import find_spec, make_env


def record(
    env: str | list[str],
    out: str,
    expert: str,
    observation_map: ObservationMap,
    episodes: int = 50,
    env_kwargs: dict[str, Any] | None = None,
    import_modules: list[str] | None = None,
    success_key: str | None = None,
    max_steps: int | None = None,
    settle_steps: int = 0,
    noise: float = 0.0,
    seed: int = 0,
    robot: str = "",
    control_hz: float | None = None,
    action_names: list[str] | None = None,
    use_videos: bool = False,
    overwrite: bool = False,
) -> RecordingSummary:
    """Record an expert's successful episodes; for a failed one the next seed is tried.

    The dataset holds ``observation.state``, ``action`` and the cameras, under the names of the
    observation map and of the environment. Several environments of one robot become one dataset,
    in turn.

    Args:
        env: Gymnasium id, or several.
        out: folder of the dataset; it appears whole or not at all.
        expert: dotted name of a class or function, also of your own folder, that is called with
            the environment and gives an expert; called with the environment's own observation,
            that answers an action. Its ``reset(seed)``, if it has one, is called after each reset.
        observation_map: where state, cameras and instruction are found, as in
            ``callbacks.RolloutEvaluation``.
        episodes: kept of each environment.
        env_kwargs: for ``gymnasium.make``.
        import_modules: modules that register the environments; by default ours.
        success_key: key of ``info``; None: ``is_success``, else ``success``.
        max_steps: time limit in place of the environments' own; give one to an endless one.
        settle_steps: steps recorded after the first success, where the environment goes on.
        noise: standard deviation of white noise on the executed action, in units of half its
            range; recorded is the action that the expert chose.
        seed: block of a million reset seeds, 0 to 899; evaluation owns the rest.
        robot: its name in the dataset; by default the environment's ``robot_name``.
        control_hz: by default the environment's ``control_hz``, else its ``render_fps``.
        action_names: by default the environment's, else ``action_0`` and so on.
        use_videos: AV1 video instead of lossless images.
        overwrite: replace what stands at ``out``.

    Raises:
        UserError: an environment or expert is not found or does not fit, the environments are of
            several robots, an expert keeps failing, or a number is out of range.
    """
    ids = [env] if isinstance(env, str) else env
    root = Path(out).expanduser().absolute()
    if not ids:
        raise UserError("env is empty; name at least one environment")
    for name, value in (("noise", noise), ("settle_steps", settle_steps)):
        if not 0 <= value < float("inf"):
            raise UserError(f"{name} is {value}; it must be 0 or more")
    check_recording(root, episodes, seed, overwrite)
    _register(["actionprior.envs", "actionprior.benchmarks"])
    _register(import_modules or [])
    make_expert = _find(expert)
    with ExitStack() as stack:
        tasks: list[ScriptedTask] = []
        for env_id in ids:
            made = make_env(find_spec(env_id), observation_map, max_steps, env_kwargs or {})
            stack.callback(made.close)
            body = whole_body(made, env_id, observation_map, robot, control_hz, action_names)
            tasks.append(
                ScriptedTask(
                    made,
                    env_id,
                    make_expert,
                    body,
                    observation_map,
                    success_key,
                    settle_steps,
                    noise,
                )
            )
        _check_agreement(ids, tasks)
        return write_demonstrations(
            [TaskToRecord(i, task.demonstrate) for i, task in zip(ids, tasks, strict=True)],
            tasks[0].features,
            root,
            episodes_per_task=episodes,
            seed=seed,
            use_videos=use_videos,
        )


def _register(modules: list[str]) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise UserError(f"import_modules names {name!r}: {error}") from error


def _find(name: str) -> Callable[[Any], Any]:
    """What a dotted name names."""
    module, _, attribute = name.rpartition(".")
    try:
        found: Callable[[Any], Any] = getattr(importlib.import_module(module), attribute)
    except (ValueError, ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"expert {name!r} cannot be found: {error}") from error
    if not callable(found):
        raise UserError(f"expert {name!r} is {found!r}, expected a class or function")
    return found


def _check_agreement(ids: list[str], tasks: list[ScriptedTask]) -> None:
    first = tasks[0].features
    for env_id, task in zip(ids, tasks, strict=True):
        for key, mine, other in zip(first._fields, first, task.features, strict=True):
            if mine != other:
                raise UserError(
                    f"one dataset holds one robot, but {ids[0]!r} has {key} {mine!r} and "
                    f"{env_id!r} {other!r}"
                )


def main(args: list[str]) -> None:
    """Run the verb: see :func:`record` for its options; they may stand in a ``--config``."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="lightning record", description=record.__doc__)
    parser.add_argument("--config", action="config", help="a YAML file of these options")
    parser.add_function_arguments(record)
    options = parser.instantiate(parser.parse_args(args)).as_dict()
    options.pop("config")
    done = record(**options)
    tried = done.episodes + done.discarded
    print(f"kept {done.episodes} of {tried} episodes tried, {done.frames} frames: {done.root}")
    print("RESULT " + json.dumps({"kept": done.episodes, "tried": tried, "frames": done.frames}))
