"""Record a scripted expert in any Gymnasium environment as a LeRobot dataset."""

import importlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from actionprior.benchmarks import expand_groups
from actionprior.commands._parser import call
from actionprior.errors import UserError
from actionprior.recording.interruption import stop_between_episodes
from actionprior.recording.lerobot_writer import (
    RecordingSummary,
    TaskToRecord,
    check_recording,
    write_demonstrations,
)
from actionprior.recording.processes import Demonstrate, in_processes
from actionprior.recording.scripted import ScriptedTask, environment_robot
from actionprior.rollout import ObservationMap
from actionprior.rollout.robot_env import (
    OWN_ENVIRONMENTS,
    find_spec,
    make_env,
    register_environments,
)


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
    push: dict[str, float] | None = None,
    seed: int = 0,
    robot: str = "",
    control_hz: float | None = None,
    action_names: list[str] | None = None,
    use_videos: bool = False,
    overwrite: bool = False,
    num_processes: int = 1,
) -> RecordingSummary:
    """Record a scripted expert's successful episodes as a LeRobot dataset.

    A failed episode is discarded, and the next seed is tried. The dataset holds
    `observation.state`, `action` and the cameras, under the names of the observation map and of the
    environment. Several environments of one robot become one dataset, in which they alternate.
    Ctrl-C ends the recording after the present episode, and keeps the episodes up to it, unless
    it would overwrite a dataset.

    Args:
        env: Gymnasium id, or a list of ids. `metaworld/mt10`, `metaworld/mt50` and
            `metaworld/easy` (`medium`, `hard`, `very_hard`) stand for their tasks.
        out: Folder of the dataset; it appears when the recording ends.
        expert: Dotted name of a class or function, which may be in your own folder. It is called
            with the environment and returns an expert. The expert is called with the environment's
            own observation and returns an action. If it has a `reset(seed)`, that is called after
            each reset of the environment.
        observation_map: Keys of state, cameras and instruction in the environment's observation, as
            in `callbacks.RolloutEvaluation`.
        episodes: Successful episodes to record in each environment.
        env_kwargs: Keyword arguments of `gymnasium.make`.
        import_modules: Modules that register the environments, besides those of actionprior.
        success_key: Key of `info` that marks success; by default `is_success`, else `success`.
        max_steps: Time limit in place of the environment's own; required if it has none.
        settle_steps: Steps to record after the first success, if the environment continues.
        noise: Standard deviation of white noise on the executed action, in units of half its range.
            The recorded action has no noise.
        push: Size of random pushes on the executed action, by the name of its element, in units of
            half its range: `{dx: 1, dy: 1, dz: 1}`. A push lasts 10 steps, and one begins every 40
            steps on average. The recorded action is the expert's, which finds back. Noise
            without pushes leads only a few millimetres away.
        seed: Block of a million reset seeds, 0 to 899; the other blocks belong to evaluation.
        robot: Name of the robot in the dataset; by default the environment's `robot_name`.
        control_hz: Control rate [Hz]; by default the environment's `control_hz`, else its
            `render_fps`.
        action_names: Names of the action's elements; by default the environment's, else `action_0`
            and so on.
        use_videos: Store AV1 video instead of lossless images.
        overwrite: Replace an existing folder at `out`.
        num_processes: Processes that run and draw episodes. The recording is the same with any
            number, unless an expert remembers earlier episodes. Give no more than there are cores.

    Raises:
        UserError: An environment or expert is not found or does not fit, the environments are of
            several robots, an expert keeps failing, or a number is out of range.
    """
    ids = expand_groups([env] if isinstance(env, str) else env)
    root = Path(out).expanduser().absolute()
    if not ids:
        raise UserError("env is empty; name at least one environment")
    sizes = [(f"push.{name}", size) for name, size in (push or {}).items()]
    for name, value in [("noise", noise), ("settle_steps", settle_steps), *sizes]:
        if not 0 <= value < float("inf"):
            raise UserError(f"{name} is {value}; it must be 0 or more")
    if num_processes < 1:
        raise UserError(f"num_processes is {num_processes}; it must be at least 1")
    check_recording(root, episodes, seed, overwrite)
    open_tasks = partial(
        _open_tasks,
        ids,
        expert,
        observation_map,
        env_kwargs=env_kwargs or {},
        import_modules=import_modules or [],
        max_steps=max_steps,
        robot=(robot, control_hz, action_names),
        episode=(success_key, settle_steps, noise, push),
    )
    with ExitStack() as stack:
        tasks = stack.enter_context(open_tasks())
        features = tasks[0].features
        demonstrators: list[Demonstrate] = [task.demonstrate for task in tasks]
        if num_processes > 1:
            demonstrators = stack.enter_context(in_processes(open_tasks, len(ids), num_processes))
        # An existing dataset is not replaced by a part of a new one.
        stops: AbstractContextManager[Callable[[], bool] | None] = (
            nullcontext() if root.exists() else stop_between_episodes()
        )
        return write_demonstrations(
            [TaskToRecord(i, run) for i, run in zip(ids, demonstrators, strict=True)],
            features,
            root,
            episodes_per_task=episodes,
            seed=seed,
            use_videos=use_videos,
            disturbances={"noise": noise, "push": push or {}},
            stopped=stack.enter_context(stops),
        )


@contextmanager
def _open_tasks(
    ids: list[str],
    expert: str,
    observation_map: ObservationMap,
    *,
    env_kwargs: dict[str, Any],
    import_modules: list[str],
    max_steps: int | None,
    robot: tuple[str, float | None, list[str] | None],
    episode: tuple[str | None, int, float, dict[str, float] | None],
) -> Iterator[list[ScriptedTask]]:
    """Make the environments and their experts; on exit, close the environments."""
    register_environments([*OWN_ENVIRONMENTS, *import_modules])
    make_expert = _find(expert)
    with ExitStack() as stack:
        tasks: list[ScriptedTask] = []
        for env_id in ids:
            made = make_env(find_spec(env_id), observation_map, max_steps, env_kwargs)
            stack.callback(made.close)
            body = environment_robot(made, env_id, observation_map, *robot)
            tasks.append(ScriptedTask(made, env_id, make_expert, body, observation_map, *episode))
        _check_agreement(ids, tasks)
        yield tasks


def _find(name: str) -> Callable[[Any], Any]:
    """Import the class or function with a dotted name."""
    module, _, attribute = name.rpartition(".")
    try:
        found: Callable[[Any], Any] = getattr(importlib.import_module(module), attribute)
    except (ValueError, ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"expert {name!r} cannot be found: {error}") from error
    if not callable(found):
        raise UserError(f"expert {name!r} is {found!r}, expected a class or function")
    return found


def _check_agreement(ids: list[str], tasks: list[ScriptedTask]) -> None:
    """Check that all environments have the features of the first."""
    first = tasks[0].features
    for env_id, task in zip(ids, tasks, strict=True):
        for key, mine, other in zip(first._fields, first, task.features, strict=True):
            if mine != other:
                raise UserError(
                    f"one dataset holds one robot, but {ids[0]!r} has {key} {mine!r} and "
                    f"{env_id!r} {other!r}"
                )


def main(args: list[str]) -> None:
    """Run the verb: see :func:`record` for its options."""
    done = call(record, args, "lightning record")
    tried = done.episodes + done.discarded
    print(f"kept {done.episodes} of {tried} episodes tried, {done.frames} frames: {done.root}")
    print("RESULT " + json.dumps({"kept": done.episodes, "tried": tried, "frames": done.frames}))
    if done.episodes < done.wanted:
        print(
            f"stopped after {done.episodes} of {done.wanted} episodes; to record more, give "
            "another --out, --seed and --episodes, and name both folders in the recipe's roots",
            file=sys.stderr,
        )
        raise SystemExit(128 + signal.SIGINT)
