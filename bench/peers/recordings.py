"""Compare our policy with LeRobot's on recordings: ``python -m bench.peers.recordings``."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from actionprior import Policy
from actionprior.commands._parser import call
from actionprior.embodiment import FloatArray
from actionprior.errors import UserError
from actionprior.recording.lerobot_writer import Demonstration, RecordedFrame
from actionprior.study.statistics import Estimate, mean
from bench.command_line import run
from bench.peers.contenders import CONTENDERS, EXECUTED
from bench.peers.demonstrations import with_instruction_vectors
from bench.peers.recorded import Act, CopyLast, copy_episodes, open_loop_error, read_episodes
from bench.peers.rollouts import LeRobotPolicy
from bench.peers.training import Trained, Training
from data_modules import LeRobotVLA

RESULTS = Path("bench/peers/recordings.jsonl")
COPY = "copying"
OPTIONS = {"act": {"policy.chunk_size": "16"}}
"""Options besides those of the rollouts. At 10 Hz, 16 actions last about as long as our chunk."""


@dataclass(frozen=True)
class RecordedRow:
    """One trained policy and its errors on held-out episodes.

    Attributes:
        policy: Name of the contender, or ``copying``.
        minutes: CPU minutes that were granted.
        seed: Seed of the training.
        steps: Optimiser steps.
        spent: CPU minutes of the training and, with cached features, of these.
        units: Unit of each action group.
        errors: Mean absolute errors of each action group, one for each held-out episode.
    """

    policy: str
    minutes: float
    seed: int
    steps: int
    spent: float
    units: dict[str, str]
    errors: dict[str, list[float]]

    @property
    def key(self) -> tuple[str, float, int]:
        """Return what identifies the row in the table."""
        return self.policy, self.minutes, self.seed


def compare_recordings(
    policies: list[str],
    minutes: list[float],
    recipe: Path = Path("recipes/real/compact.yaml"),
    seeds: int = 1,
    folder: Path = Path("outputs/peers_recordings"),
    results: Path = RESULTS,
    options: dict[str, str] | None = None,
    threads: int = 1,
) -> None:
    """Train policies on recordings for equal CPU time, and measure their errors open loop.

    Held-out episodes are replayed. Every eighth step a policy sees the recorded observation and
    plans the next eight actions, which are compared with the recorded ones. Rows that the results
    hold already are not measured again. The last line is `RESULT` and JSON.

    Args:
        policies: Names of contenders (`bench/peers/contenders.py`).
        minutes: CPU minutes granted to each training, with its features.
        recipe: Our Stage-2 recipe, which names one robot and its dataset.
        seeds: Number of trainings of each policy and budget.
        folder: Folder for datasets, runs and logs.
        results: Table with one line of JSON per training; new lines are appended.
        options: Further options of the training command.
        threads: Threads of PyTorch.
    """
    known = [name for name, each in CONTENDERS.items() if not (each.clip or each.cut)]
    if unknown := sorted(set(policies) - set(known)):
        raise UserError(f"policies names {unknown[0]!r}, expected some of {known}")
    torch.set_num_threads(threads)
    data = call(_data, [f"--config={recipe}"], "python -m bench.peers.recordings")
    if len(data.robots) != 1 or len(data.robots[0].roots) != 1:
        raise UserError(f"{recipe}: expected one robot with one folder in roots")
    data.prepare_data()
    data.setup("validate")
    episodes = list(read_episodes(data, data.frames.val))
    copy_episodes(data, data.frames.train, folder / "training_episodes")
    dataset = folder / "with_instructions"
    tasks = with_instruction_vectors(folder / "training_episodes", dataset)
    rows = read_rows(results)
    measured = _Measured(data, episodes, results, rows)
    if (COPY, 0.0, 0) not in {row.key for row in rows}:
        measured.add(COPY, Trained(0.0, 0, 0, 0.0, Path()), lambda: CopyLast(EXECUTED))
    for name in policies:
        contender, more = CONTENDERS[name], OPTIONS.get(name, {}) | (options or {})
        cameras = data.robots[0].cameras
        training = Training(contender, recipe, dataset, folder / name, more, threads, cameras)
        done = {row.key for row in rows}
        wanted = [(m, seed) for m in minutes for seed in range(seeds)]
        for trained in training.within(w for w in wanted if (name, *w) not in done):
            path = trained.policy
            start = _own(path) if contender.own else _lerobot(path, tasks, data)
            measured.add(name, trained, start)
    print("RESULT " + json.dumps([asdict(row) | {"mean": means(row)} for row in rows]))


def means(row: RecordedRow) -> dict[str, Estimate]:
    """Return the mean of each group's error over the episodes, with its interval."""
    return {name: mean(errors) for name, errors in row.errors.items()}


def read_rows(results: Path) -> list[RecordedRow]:
    """Read a table of results; empty if the file is missing."""
    lines = results.read_text().splitlines() if results.is_file() else []
    return [RecordedRow(**json.loads(line)) for line in lines]


@dataclass(frozen=True)
class _Measured:
    """The table, and the held-out episodes that fill it."""

    data: LeRobotVLA
    episodes: list[Demonstration]
    results: Path
    rows: list[RecordedRow]

    def add(self, name: str, trained: Trained, start: Callable[[], Act]) -> None:
        """Measure a policy; ``start`` resets it and returns what acts."""
        robot = self.data.robots[0]
        found = [open_loop_error(robot, e, start(), skip=EXECUTED) for e in self.episodes]
        errors = {name: [round(error[name], 6) for error in found] for name in found[0]}
        units = {group.name: group.unit for group in robot.action}
        spent = (trained.minutes, trained.seed, trained.steps, trained.spent)
        row = RecordedRow(name, *spent, units, errors)
        self.rows.append(row)
        with self.results.open("a") as stream:
            stream.write(json.dumps(asdict(row)) + "\n")
        print(row.policy, means(row), flush=True)


def _data(data: LeRobotVLA) -> LeRobotVLA:
    """Return this section of a recipe."""
    return data


def _own(path: Path) -> Callable[[], Act]:
    policy = Policy.load(path, execute_steps=EXECUTED, guard="off")

    def act(frame: RecordedFrame, instruction: str) -> FloatArray:
        observation = {policy.robot.state_key: frame.state, "task": instruction, **frame.images}
        return policy.select_action(observation)

    def start() -> Act:
        policy.reset()
        return act

    return start


def _lerobot(path: Path, tasks: Sequence[str], data: LeRobotVLA) -> Callable[[], Act]:
    policy = LeRobotPolicy(path, tasks, data.robots[0])

    def act(frame: RecordedFrame, instruction: str) -> FloatArray:
        images = torch.stack([torch.from_numpy(image) for image in frame.images.values()])
        chosen: FloatArray = policy.act(frame.state[None], images.numpy()[None], [instruction])[0]
        return chosen

    def start() -> Act:
        policy.reset()
        return act

    return start


if __name__ == "__main__":
    run(compare_recordings, "peers.recordings")
