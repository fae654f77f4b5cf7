"""Warm-up of the small vision trunk on where objects are, with data that the suite draws.

Axes: B batch, M samples, R = 2 roles (target, goal), N = Y · X cells of the feature map.
"""

import math
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from actionprior.envs import ENV_IDS
from actionprior.envs.arms.arm import base_turn
from actionprior.envs.arms.robots import find_robot
from actionprior.envs.scene.world import CAMERA_EYE, CAMERA_FOV, CAMERA_TARGET
from actionprior.envs.tasks import TASKS, Wordings, check_wordings
from actionprior.errors import UserError
from actionprior.files.weights import save_weights
from actionprior.grounding.samples import GroundingSamples, grounding_samples
from actionprior.networks.trunks.film_cnn import STRIDE, VisionOutput
from actionprior.networks.trunks.small import SmallTrunk

_MOST_HELD_OUT = 2000
_LEARNING_RATE = 3e-3
_FAR = 0.03
_ELSEWHERE = 0.2
"""Distance in the image, of 2 from edge to edge, beyond which another thing was taken."""


class PlaceErrors(NamedTuple):
    """Held-out errors of one role's places, where they are known.

    Attributes:
        median_cm: median distance [cm].
        p90_cm: its 90th percentile [cm].
        over_3cm: share of samples that are further off.
        elsewhere: share of samples in which another part of the image was pointed at.
    """

    median_cm: float
    p90_cm: float
    over_3cm: float
    elsewhere: float


class TaskErrors(NamedTuple):
    """Held-out errors of one task.

    Attributes:
        target_cm: median distance of the target's place [cm].
        goal_cm: that of the goal's [cm]; None where no image tells it.
    """

    target_cm: float
    goal_cm: float | None


class GroundingResult(NamedTuple):
    """What a warm-up reached.

    Attributes:
        weights: the safetensors file, for ``SmallTrunk(weights=...)``.
        target: errors of the place of the object to be handled next.
        goal: errors of the place where it is to go.
        seconds: wall time, data included.
        by_task: errors of each task.
    """

    weights: Path
    target: PlaceErrors
    goal: PlaceErrors
    seconds: float
    by_task: dict[str, TaskErrors]


class _Data(NamedTuple):
    images_MKYX: Tensor  # uint8
    instructions: list[str]
    tasks: list[str]
    place_MR3: Tensor  # target and goal [m], robot base frame; NaN where it is unknown
    seen_at_MR2: Tensor  # the same in the image, x and y in [-1, 1]


def ground(
    robots: Sequence[str] = ("panda", "kuka", "xarm6"),
    out: Path | str = "outputs/trunk.safetensors",
    steps: int = 3000,
    samples: int = 24000,
    batch_size: int = 32,
    seed: int = 0,
    threads: int = 1,
    processes: int = 2,
    image_size: int = 64,
    tasks: Sequence[str] = ("reach", "push", "lift", "place"),
    wordings: Wordings = "one",
) -> GroundingResult:
    """Train a SmallTrunk to say where target and goal are, and save its weights.

    Args:
        robots: the suite's arms whose scenes it learns.
        out: the safetensors file to write; it appears whole or not at all.
        steps: training steps.
        samples: training images; as many more, up to 2,000, are held out.
        batch_size: images a step.
        seed: of data, weights and order.
        threads: CPU threads for the training; more than the idle cores slow it down by much.
        processes: processes that draw the data.
        image_size: edge of the images [pixels], a multiple of 8.
        tasks: the tasks whose scenes it learns, each with the robots that the suite has it for.
        wordings: of the instructions: ``one``, or ``train``: several, drawn for each image.

    Raises:
        UserError: an unknown robot, task or kind of wordings, a robot with none of the tasks or
            with two arms, a count or size that does not fit, or PyBullet is missing.
    """
    start = time.monotonic()
    counts = {
        "steps": steps,
        "samples": samples,
        "batch_size": batch_size,
        "threads": threads,
        "processes": processes,
    }
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"ground: {name} is {count}, expected 1 or more")
    env_ids = _env_ids(robots, tasks)
    check_wordings(wordings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = SmallTrunk(image_size=image_size)  # first of all: it checks the size
    held_out_samples = min(samples, _MOST_HELD_OUT)
    print(f"drawing {samples + held_out_samples} scenes of {', '.join(robots)}", flush=True)
    sizes = [samples, held_out_samples]
    train, held_out = _draw(env_ids, sizes, seed, image_size, wordings, processes)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        _train(trunk, train, steps, batch_size, seed)
        save_weights(trunk.state_dict(), Path(out))
        distance_MR, off_MR = _evaluate(trunk, held_out)
    finally:
        torch.set_num_threads(before)
    target, goal = (_place_errors(distance_MR[:, r], off_MR[:, r]) for r in (0, 1))
    by_task = _by_task(held_out.tasks, distance_MR)
    return GroundingResult(Path(out), target, goal, time.monotonic() - start, by_task)


def _env_ids(robots: Sequence[str], tasks: Sequence[str]) -> list[str]:
    if not robots or not tasks:
        what = "tasks names no task" if robots else "robots names no robot"
        raise UserError(f"ground: the list of {what}")
    for task in tasks:
        if task not in TASKS:
            raise UserError(f"ground: task {task!r} is not known; choose from {sorted(TASKS)}")
    for robot in map(find_robot, robots):
        if len(robot.arms) > 1:
            raise UserError(f"ground: robot {robot.name!r} has two arms; it takes those with one")
        if not any(TASKS[task].suits(robot) for task in tasks):
            raise UserError(f"ground: robot {robot.name!r} can do none of the tasks {list(tasks)}")
    specs = {env_id: gym.spec(env_id).kwargs for env_id in ENV_IDS}
    return [e for e, spec in specs.items() if spec["robot"] in robots and spec["task"] in tasks]


def _draw(
    env_ids: list[str],
    counts: list[int],
    seed: int,
    image_size: int,
    wordings: Wordings,
    processes: int,
) -> list[_Data]:
    """Draw sets of samples with different seeds, in several processes at a time."""
    # Many parts of a moderate size keep all processes busy to the end.
    parts = [(i, min(2000, n - k)) for i, n in enumerate(counts) for k in range(0, n, 2000)]
    jobs = [(env_ids, n, 1000 * seed + j, image_size, wordings) for j, (_, n) in enumerate(parts)]
    if processes == 1:
        drawn = [grounding_samples(*job) for job in jobs]
    else:
        # Spawned: a fork would inherit torch's threads in an unknown state.
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            drawn = list(pool.map(grounding_samples, *zip(*jobs, strict=True)))
    return [
        _join([_typed(d, env_ids) for d, (i, _) in zip(drawn, parts, strict=True) if i == wanted])
        for wanted in range(len(counts))
    ]


def _typed(samples: GroundingSamples, env_ids: list[str]) -> _Data:
    place = np.stack([samples.target_xyz, samples.goal_xyz], axis=1)
    specs = [gym.spec(env_id).kwargs for env_id in env_ids]
    arms = [find_robot(spec["robot"]).arms[0] for spec in specs]
    turn_E33 = np.array([base_turn(arm) for arm in arms])
    base_E3 = np.array([arm.base for arm in arms])
    env_M = np.arange(len(place)) % len(env_ids)  # they take turns
    table = np.einsum("mij,mkj->mki", turn_E33[env_M], place) + base_E3[env_M, None]
    return _Data(
        torch.from_numpy(samples.images).permute(0, 3, 1, 2).contiguous(),
        samples.instructions,
        [specs[env]["task"] for env in env_M],
        torch.from_numpy(place),
        _project(torch.from_numpy(table)).float(),
    )


def _join(parts: list[_Data]) -> _Data:
    images, instructions, tasks, place, seen_at = zip(*parts, strict=True)
    texts = list(chain(*instructions)), list(chain(*tasks))
    return _Data(torch.cat(images), *texts, torch.cat(place), torch.cat(seen_at))


def _project(point: Tensor) -> Tensor:
    """Where the suite's camera sees table coordinates (..., 3) [m]: x right, y down, in [-1, 1]."""
    eye = torch.tensor(CAMERA_EYE, dtype=point.dtype)
    forward = F.normalize(torch.tensor(CAMERA_TARGET, dtype=point.dtype) - eye, dim=0)
    right = F.normalize(torch.linalg.cross(forward, forward.new_tensor([0.0, 0.0, 1.0])), dim=0)
    down = torch.linalg.cross(forward, right)
    ray = point - eye
    scale = ray @ forward * np.tan(np.radians(CAMERA_FOV) / 2)
    return torch.stack([ray @ right / scale, ray @ down / scale], dim=-1)


# ---- training -----------------------------------------------------------------------------


def _train(trunk: SmallTrunk, data: _Data, steps: int, batch_size: int, seed: int) -> None:
    known_MR3 = data.place_MR3[data.place_MR3.isfinite().all(dim=(1, 2))]
    trunk.vision.workspace_mean_R3.copy_(known_MR3.mean(dim=0))
    trunk.vision.workspace_scale_R3.copy_(known_MR3.std(dim=0).clamp(min=0.01))
    modules = (trunk.text, trunk.vision)  # the rest has no part in where things are
    parameters = [p for module in modules for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, _LEARNING_RATE, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _LEARNING_RATE, steps, pct_start=0.1, cycle_momentum=False
    )
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        while len(order) < batch_size:
            order = torch.cat([order, torch.randperm(len(data.instructions), generator=generator)])
        rows, order = order[:batch_size], order[batch_size:]
        seen = trunk.look(data.images_MKYX[rows], trunk.read([data.instructions[i] for i in rows]))
        loss = grounding_loss(seen, data.place_MR3[rows], data.seen_at_MR2[rows])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % max(1, steps // 10) == 0:
            print(f"step {step + 1} of {steps}: loss {loss.item():.3f}", flush=True)


def grounding_loss(seen: VisionOutput, place_BR3: Tensor, seen_at_BR2: Tensor) -> Tensor:
    """Which cells show it (cross-entropy), their votes, and the place that follows [cm].

    The true cell is known from the camera. Without it, votes and cells have to find each other,
    and training starts on a long plateau. Places that are NaN are left out.
    """
    known_BR = place_BR3.isfinite().all(dim=-1)
    place_BR3, seen_at_BR2 = place_BR3.nan_to_num(), seen_at_BR2.nan_to_num()
    rows, columns = seen.map_ICYX.shape[2:]
    x_BRX, y_BRY = (_hat(seen_at_BR2[..., i], n) for i, n in ((0, columns), (1, rows)))
    cell_BRN = (y_BRY[..., :, None] * x_BRX[..., None, :]).flatten(2)
    which = -(cell_BRN * seen.logit_IRN.log_softmax(dim=-1)).sum(dim=-1)
    vote = (cell_BRN * _distance_cm(seen.vote_IRN3, place_BR3[:, :, None])).sum(dim=-1)
    loss_BR = which + 0.3 * vote + 0.3 * _distance_cm(seen.place_IR3, place_BR3)
    return loss_BR[known_BR].mean()


def _hat(position: Tensor, cells: int) -> Tensor:
    """Linear weights (..., cells) of the two cells around a position in [-1, 1]."""
    at = ((position + 1) * cells / 2 - 0.5).clamp(0, cells - 1)
    return (1 - (at[..., None] - torch.arange(cells)).abs()).clamp(min=0)


def _distance_cm(found: Tensor, wanted: Tensor) -> Tensor:
    # The hundredth (1 mm) keeps the root's gradient finite.
    return ((100 * (found - wanted)).square().sum(dim=-1) + 0.01).sqrt()


@torch.no_grad()
def _evaluate(trunk: SmallTrunk, data: _Data) -> tuple[Tensor, Tensor]:
    """How far off each place is [m], NaN where it is unknown, and whether it is elsewhere."""
    distance, off = [], []
    for first in range(0, len(data.instructions), 250):
        rows = slice(first, first + 250)
        seen = trunk.look(data.images_MKYX[rows], trunk.read(data.instructions[rows]))
        distance.append((seen.place_IR3 - data.place_MR3[rows]).norm(dim=-1))
        columns = data.images_MKYX.shape[-1] // STRIDE
        cell = seen.logit_IRN.argmax(dim=-1)
        at = torch.stack([cell % columns, cell // columns], dim=-1)
        at = (at + 0.5) * 2 / columns - 1
        off.append((at - data.seen_at_MR2[rows].clamp(-1, 1)).abs().amax(dim=-1) > _ELSEWHERE)
    return torch.cat(distance), torch.cat(off)


def _place_errors(distance_M: Tensor, off_M: Tensor) -> PlaceErrors:
    known_M = distance_M.isfinite()
    distance_M, off_M = distance_M[known_M], off_M[known_M]
    return PlaceErrors(
        100 * distance_M.median().item(),
        100 * distance_M.quantile(0.9).item(),
        (distance_M > _FAR).float().mean().item(),
        off_M.float().mean().item(),
    )


def _by_task(tasks: list[str], distance_MR: Tensor) -> dict[str, TaskErrors]:
    errors = {}
    for task in dict.fromkeys(tasks):
        mine = distance_MR[[i for i, other in enumerate(tasks) if other == task]]
        target, goal = (100 * mine.nanmedian(dim=0).values).tolist()
        errors[task] = TaskErrors(target, None if math.isnan(goal) else goal)
    return errors
