"""Whether a policy listens, and whether its data ask it to.

Axes: N held-out windows, E held-out episodes, M training windows or episodes, T tasks.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from actionprior.checkup import Finding
from actionprior.diagnosis import chunks, readout
from actionprior.diagnosis.chunks import Recorded
from actionprior.diagnosis.inputs import Effect, effect, measure_effects
from actionprior.diagnosis.measurement import Diagnosis, MeasuredValue, finding
from actionprior.diagnosis.windows import Windows
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.rollout import wilson_interval

READABLE = 0.9  # accuracy of the task read from the scene, above which language is not needed
EXPLAINS = 0.05  # smallest share of the motion that instructions explain
DIFFERENT = 0.5  # distance of two chunks that count as different, share of the constant's error
ENOUGH = 8  # scenes for a score
OBEYS = 0.75  # share of scenes, of which one half is chance
FREQUENT = 5  # training episodes of an instruction that other scenes may be given


class Scenes(NamedTuple):
    """What instructions mean in the data.

    Attributes:
        tasks: Instructions of the training windows.
        accuracy: Share of held-out episodes whose instruction their start gives away; NaN: unknown.
        chance: Share of the most frequent instruction.
        explained: Share of the motion that differs from task to task, 0 to 1.
    """

    tasks: list[str]
    accuracy: float
    chance: float
    explained: float


def read_scenes(
    network: PolicyNetwork, windows: Windows, training: Windows, starts: Sequence[Windows]
) -> Scenes:
    """Read the instruction from the first image and state, and the motion from the instruction.

    Args:
        network: The policy.
        windows: Held-out windows.
        training: Training windows.
        starts: Windows at the starts of their episodes, held-out and training. Later states show
            what a robot was asked to do.
    """
    recorded = chunks.recorded(network, windows, training)
    tasks = sorted({*training.observation.task, *starts[1].observation.task})
    task_E = _numbers(starts[1], tasks)
    chance = float(task_E.bincount().max() / len(task_E))
    if len(tasks) < 2:
        return Scenes(tasks, float("nan"), chance, 0.0)
    score_ET = readout.ridge(
        _scene(network, starts[1]), one_hot(task_E).float(), _scene(network, starts[0])
    )
    right_E = score_ET.argmax(1) == _numbers(starts[0], tasks)
    mean_THA = _mean_chunks(network, training, _numbers(training, tasks), len(tasks))
    known_N = _numbers(windows, tasks) >= 0
    error_NG = recorded.error(mean_THA[_numbers(windows, tasks).clamp(min=0)])
    by_task = recorded.share(torch.where(known_N[:, None], error_NG, recorded.constant_G))
    return Scenes(tasks, float(right_E.float().mean()), chance, max(0.0, 1 - by_task))


def _numbers(windows: Windows, tasks: list[str]) -> Tensor:
    """Number of each window's instruction, int64 (N,); -1 for others."""
    number = {task: index for index, task in enumerate(tasks)}
    return torch.tensor([number.get(task, -1) for task in windows.observation.task])


def _mean_chunks(network: PolicyNetwork, training: Windows, task_M: Tensor, count: int) -> Tensor:
    """Mean recorded chunk of each task, (T, H, A)."""
    seen_MHA, mask_MHA = chunks.learnt_form(network, training)
    means = []
    for task in range(count):
        own_M = task_M == task
        total_HA = torch.where(mask_MHA[own_M], seen_MHA[own_M], 0.0).sum(0)
        means.append(total_HA / mask_MHA[own_M].sum(0).clamp(min=1))
    return torch.stack(means)


def diagnose_instructions(
    network: PolicyNetwork,
    windows: Windows,
    training: Windows,
    starts: Sequence[Windows],
    recorded: Recorded,
    plain_NHA: Tensor,
) -> Diagnosis:
    """Exchange instructions, and say whether the policy or the data are the cause."""
    scenes, name = read_scenes(network, windows, training, starts), windows.robot.name
    if len(scenes.tasks) < 2:
        message = f"is {scenes.tasks[0]!r} throughout: the policy cannot learn to listen"
        return Diagnosis([], [finding("note", "one_task", name, "instruction", message)])
    other = exchange(windows.observation.task, scenes.tasks)
    swapped = effect(
        network, recorded, plain_NHA, "instruction of another task",
        windows.observation._replace(task=other),
    )  # fmt: skip
    rows = [
        *measure_effects(name, [swapped]),
        MeasuredValue(name, "instructions", "read from the start", "", scenes.accuracy, ""),
        MeasuredValue(name, "instructions", "read by chance", "", scenes.chance, ""),
        MeasuredValue(name, "instructions", "share of the motion explained", "", scenes.explained,
                    ""),
    ]  # fmt: skip
    found = _findings(name, scenes, swapped)
    if not scenes.accuracy >= READABLE:
        scores = obedience(network, windows, training, starts)
        rows += [MeasuredValue(name, "instructions", s.what, "", s.share, "") for s in scores]
        if scores and not swapped.useless and min(s.at_most for s in scores) < OBEYS:
            listed = ", and ".join(f"{s.what} in {s.share:.0%}" for s in scores)
            message = (
                f"changes the chunk, yet from the start of an episode the policy {listed} of "
                f"{scores[0].cases} cases (50% is chance): it confuses tasks; add demonstrations "
                "of different tasks in the same scenes"
            )
            found.append(finding("warning", "confused", name, "instruction", message))
    return Diagnosis(rows, found)


def exchange(given: list[str], tasks: list[str], seed: int = 0) -> list[str]:
    """Draw another instruction of the data for each window."""
    rng = np.random.default_rng(seed)
    return [str(rng.choice([task for task in tasks if task != own])) for own in given]


class Score(NamedTuple):
    """Number of cases in which something holds, and of all cases."""

    what: str
    hits: int
    cases: int

    @property
    def share(self) -> float:
        """Share of the cases."""
        return self.hits / self.cases

    @property
    def at_most(self) -> float:
        """High end of the share's 95 % interval."""
        return wilson_interval(self.hits, self.cases).high


def obedience(
    network: PolicyNetwork, windows: Windows, training: Windows, starts: Sequence[Windows]
) -> list[Score]:
    """Score how often another instruction leads to its goal, and away from the first goal.

    The policy starts in held-out scenes. The other task's chunk is that of the most similar start
    of a training episode. Scenes count in which it differs from the recorded chunk. Empty if there
    are too few of them, or if no two instructions are frequent: then they name things that other
    scenes do not have.
    """
    here, known = starts
    counts = Counter(known.observation.task)
    tasks = [task for task, count in sorted(counts.items()) if count >= FREQUENT]
    if len(tasks) < 2:
        return []
    other = exchange(here.observation.task, tasks)
    same_EM = torch.tensor([[task == o for task in known.observation.task] for o in other])
    apart_EM = _scene_distance(network, here, known)
    nearest_E = apart_EM.masked_fill(~same_EM, torch.inf).argmin(1)
    goal_EHA = chunks.learnt_form(network, known)[0][nearest_E]
    scale = chunks.recorded(network, windows, training)
    recorded = chunks.recorded(network, here, training)._replace(constant_G=scale.constant_G)
    plain_EHA = chunks.predict(network, here.observation)
    swapped_EHA = chunks.predict(network, here.observation._replace(task=other))

    def far(first: Tensor, second: Tensor) -> Tensor:
        return recorded.shares(recorded.distance(first, second))

    used_E = far(goal_EHA, recorded.chunk_NHA) > DIFFERENT
    cases = int(used_E.sum())
    if cases < ENOUGH:
        return []
    nearer_E = far(swapped_EHA, goal_EHA) < far(plain_EHA, goal_EHA)
    away_E = far(swapped_EHA, recorded.chunk_NHA) > far(plain_EHA, recorded.chunk_NHA)
    return [
        Score("goes where the instruction says", int(nearer_E[used_E].sum()), cases),
        Score("avoids the other task's goal", int(away_E[used_E].sum()), cases),
    ]


def _scene_distance(network: PolicyNetwork, here: Windows, known: Windows) -> Tensor:
    """Distance of scenes, (E, M): that of the images and that of the states, of equal weight."""
    apart_EM = torch.zeros(len(here), len(known))
    for part in (
        [readout.thumbnails(w.observation) for w in (here, known)],
        [readout.state_features(network, w.observation) for w in (here, known)],
    ):
        spread_F = part[1].std(0)
        moving_F = spread_F > chunks.NOTHING
        if bool(moving_F.any()):
            scaled = [(x / spread_F.clamp(min=chunks.NOTHING))[:, moving_F] for x in part]
            apart_EM += torch.cdist(scaled[0], scaled[1]) / int(moving_F.sum()) ** 0.5
    return apart_EM


def _scene(network: PolicyNetwork, windows: Windows) -> Tensor:
    """Image and state of each window, (N, F)."""
    observation = windows.observation
    small_NF = readout.thumbnails(observation) / 64  # about as wide as normalised states
    return torch.cat([small_NF, readout.state_features(network, observation)], dim=1)


def _findings(name: str, scenes: Scenes, swapped: Effect) -> list[Finding]:
    readable = scenes.accuracy >= READABLE and scenes.accuracy > scenes.chance + 0.02
    if readable:
        said = (
            f"the first image and state give the instruction away ({scenes.accuracy:.0%} of "
            "held-out episodes are named right from them): each scene allows one task"
        )
        if swapped.useless:
            message = (
                f"{swapped.summary}, and {said}. The data, not the policy, are the cause: record "
                "several tasks in the same scenes"
            )
            return [finding("warning", "unused_instruction", name, "instruction", message)]
        message = f"{said}, so nothing forces the policy to listen"
        return [finding("note", "readable_task", name, "instruction", message)]
    if not swapped.useless:
        return []
    hint = "check that the trunk reads text, and train longer"
    if scenes.explained < EXPLAINS:
        hint = (
            "motions hardly differ from instruction to instruction either: check that instructions "
            "belong to their episodes and were not shuffled"
        )
    message = f"{swapped.summary}, though scenes do not give it away; {hint}"
    return [finding("error", "unused_instruction", name, "instruction", message)]
