"""Train contenders for the same CPU time, roll all out in the same scenes, and keep a table."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from actionprior import Policy
from actionprior.benchmarks import expand_groups
from actionprior.commands._parser import call
from actionprior.errors import UserError
from actionprior.rollout import DEFAULT_SEED, ObservationMap, rollout
from actionprior.rollout.results import wilson_interval
from actionprior.rollout.robot_env import OWN_ENVIRONMENTS, register_environments
from bench.peers.contenders import CONTENDERS, Contender, clip_options
from bench.peers.demonstrations import with_cut_images, with_instruction_vectors
from bench.peers.rollouts import LeRobotPolicy, lerobot_successes
from bench.peers.training import ROLLOUTS, Trained, Training
from data_modules import LeRobotVLA

RESULTS = Path("bench/peers/results.jsonl")


@dataclass(frozen=True)
class Row:
    """One trained policy and its rollouts.

    Attributes:
        policy: Name of the contender.
        minutes: CPU minutes that were granted.
        seed: Seed of the training.
        steps: Optimiser steps.
        spent: CPU minutes of the training and, with cached features, of these.
        parameters: Number of all parameters.
        episodes: Rollouts of each task.
        successes: Successes of each task.
        cameras: Cameras that the policy sees.
    """

    policy: str
    minutes: float
    seed: int
    steps: int
    spent: float
    parameters: int
    episodes: int
    successes: dict[str, int]
    cameras: tuple[str, ...]

    @property
    def key(self) -> tuple[str, float, int, tuple[str, ...]]:
        """Return what identifies the row in the table."""
        return self.policy, self.minutes, self.seed, self.cameras


class PeerSetting:
    """Robot, dataset and scenes that all contenders share, from a Stage-2 recipe.

    Args:
        recipe: Recipe with one robot, one local dataset and rollouts.
        cameras: The robot's cameras that policies see; by default all.

    Raises:
        UserError: The recipe has several robots or datasets, no rollouts, or not these cameras.
    """

    def __init__(self, recipe: Path, cameras: Sequence[str] | None = None) -> None:
        data, trainer = call(_sections, [f"--config={recipe}"], "python -m bench.peers")
        callbacks = trainer.get("callbacks") or []
        found = [c["init_args"] for c in callbacks if c["class_path"] == ROLLOUTS]
        if len(found) != 1 or len(data.robots) != 1 or len(data.robots[0].roots) != 1:
            raise UserError(
                f"{recipe}: expected one RolloutEvaluation and one robot with one folder in roots"
            )
        data.prepare_data()
        self.rollouts: dict[str, Any] = found[0]
        self.env_ids = expand_groups(self.rollouts["env_ids"])
        robot = data.robots[0]
        if unknown := sorted(set(cameras or ()) - set(robot.cameras)):
            raise UserError(
                f"cameras names {unknown[0]!r}, expected some of {list(robot.cameras)} ({recipe})"
            )
        self.cameras = tuple(robot.cameras if cameras is None else cameras)
        self.unseen = tuple(camera for camera in robot.cameras if camera not in self.cameras)
        self.robot = replace(robot, cameras=list(self.cameras))
        self.root = Path(robot.roots[0])
        every = ObservationMap(**self.rollouts["observation_map"])
        self.observation_map = _only(every, self.cameras)
        register_environments(OWN_ENVIRONMENTS)

    @property
    def image_size(self) -> int:
        """Return the edge of the images [pixels]."""
        return int(self.rollouts.get("env_kwargs", {}).get("image_size", 64))

    def successes(self, policy: LeRobotPolicy | Policy, episodes: int) -> Iterator[tuple[str, int]]:
        """Yield each environment with the number of its successful episodes."""
        kwargs = self.rollouts.get("env_kwargs", {})
        limit, side_by_side = self.rollouts.get("max_steps"), self.rollouts.get("num_envs", 8)
        for env_id in self.env_ids:
            if isinstance(policy, Policy):
                result = rollout(
                    policy.network,
                    env_id,
                    episodes,
                    self.observation_map,
                    self.robot.name,
                    num_envs=side_by_side,
                    execute_steps=self.rollouts.get("execute_steps", 8),
                    env_kwargs=kwargs,
                    max_steps=limit,
                )
                yield env_id, sum(episode.success for episode in result.episodes)
                continue
            seeds = range(DEFAULT_SEED, DEFAULT_SEED + episodes)
            parts = [seeds[i : i + side_by_side] for i in range(0, episodes, side_by_side)]
            shared = (env_id, self.robot, self.observation_map)
            runs = [lerobot_successes(policy, *shared, part, kwargs, limit) for part in parts]
            yield env_id, sum(sum(run) for run in runs)


def _only(observation_map: ObservationMap, cameras: Sequence[str]) -> ObservationMap:
    """Return the map with these cameras only."""
    images = {name: key for name, key in observation_map.images.items() if name in cameras}
    return replace(observation_map, images=images)


def _sections(data: LeRobotVLA, trainer: dict[str, Any]) -> tuple[LeRobotVLA, dict[str, Any]]:
    """Return these sections of a recipe."""
    return data, trainer


def compare(
    policies: list[str],
    minutes: list[float],
    recipe: Path = Path("recipes/metaworld/compact.yaml"),
    seeds: int = 1,
    episodes: int = 20,
    folder: Path = Path("outputs/peers"),
    results: Path = RESULTS,
    options: dict[str, str] | None = None,
    cameras: list[str] | None = None,
    threads: int = 1,
) -> None:
    """Train policies for equal CPU time, and count their successes in the same scenes.

    Rows that the results hold already are not measured again, so an interrupted comparison goes
    on, and a long one may be spread over several calls. The last line is `RESULT` and JSON.

    Args:
        policies: Names of contenders (`bench/peers/contenders.py`).
        minutes: CPU minutes granted to each training, with its features.
        recipe: Our Stage-2 recipe, which names dataset and scenes.
        seeds: Number of trainings of each policy and budget.
        episodes: Rollouts of each task.
        folder: Folder for datasets, runs and logs.
        results: Table with one line of JSON per training; new lines are appended.
        options: Further options of the training command, for policies that are searched.
        cameras: Cameras of the recipe that all policies see; by default all.
        threads: Threads of PyTorch.
    """
    if unknown := sorted(set(policies) - set(CONTENDERS)):
        raise UserError(f"policies names {unknown[0]!r}, expected some of {list(CONTENDERS)}")
    torch.set_num_threads(threads)
    setting = PeerSetting(recipe, cameras)
    seen = setting.cameras
    if setting.unseen:
        folder = folder / "+".join(seen)
    rows = read_rows(results)
    dataset = folder / f"{setting.root.name}_with_instructions"
    tasks = with_instruction_vectors(setting.root, dataset, without=setting.unseen)
    for name in policies:
        contender, more = CONTENDERS[name], dict(options or {})
        if contender.clip:
            more |= clip_options(folder, setting.image_size, tasks)
        shown = dataset
        if contender.cut:
            shown = folder / f"{dataset.name}_cut"
            with_cut_images(dataset, shown, seen[0], contender.cut)
        training = Training(contender, recipe, shown, folder / name, more, threads, seen)
        known = {row.key for row in rows}
        wanted = [(m, seed) for m in minutes for seed in range(seeds)]
        for trained in training.within(w for w in wanted if (name, *w, seen) not in known):
            row = _row(name, trained, contender, setting, tasks, episodes)
            rows.append(row)
            with results.open("a") as stream:
                stream.write(json.dumps(asdict(row)) + "\n")
            print(row, flush=True)
    print("RESULT " + json.dumps([asdict(row) | {"interval": interval([row])} for row in rows]))


def _row(
    name: str,
    trained: Trained,
    contender: Contender,
    setting: PeerSetting,
    tasks: list[str],
    episodes: int,
) -> Row:
    policy: LeRobotPolicy | Policy
    if contender.own:
        policy = Policy.load(trained.policy)
        parameters = sum(weight.numel() for weight in policy.network.parameters())
    else:
        policy = LeRobotPolicy(trained.policy, tasks, setting.robot, contender.cut)
        parameters = policy.parameters
    successes = dict(setting.successes(policy, episodes))
    spent = (trained.minutes, trained.seed, trained.steps, trained.spent)
    return Row(name, *spent, parameters, episodes, successes, setting.cameras)


def interval(rows: list[Row]) -> tuple[float, float]:
    """Return the 95 % interval of the share of successes over all tasks and rows."""
    total = sum(row.episodes * len(row.successes) for row in rows)
    return wilson_interval(sum(sum(row.successes.values()) for row in rows), total)


def read_rows(results: Path) -> list[Row]:
    """Read a table of results; empty if the file is missing."""
    lines = results.read_text().splitlines() if results.is_file() else []
    contents = [json.loads(line) for line in lines]
    return [Row(**content | {"cameras": tuple(content["cameras"])}) for content in contents]
