"""Warm-up: train the small vision trunk to locate objects, on data drawn from the suite.

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
from actionprior.envs.arms.arm import base_rotation
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
_FAR_M = 0.03
"""Error beyond which a place counts as far off [m]."""
_ELSEWHERE = 0.2
"""Error in the image, whose edges are 2 long, beyond which the trunk located another object."""


class PlaceErrors(NamedTuple):
    """Errors of one role's places on held-out samples, excluding unknown places.

    Attributes:
        median_cm: Median distance [cm].
        p90_cm: 90th percentile of the distance [cm].
        over_3cm: Share of samples with a distance above 3 cm.
        elsewhere: Share of samples in which the trunk located another part of the image.
    """

    median_cm: float
    p90_cm: float
    over_3cm: float
    elsewhere: float


class TaskErrors(NamedTuple):
    """Errors of one task on held-out samples.

    Attributes:
        target_cm: Median error of the target's place [cm].
        goal_cm: Median error of the goal's place [cm], or None if no image shows it.
    """

    target_cm: float
    goal_cm: float | None


class GroundingResult(NamedTuple):
    """Weights and held-out errors of a warm-up.

    Attributes:
        weights: Safetensors file, for ``SmallTrunk(weights=...)``.
        target: Errors of the place of the object to handle next.
        goal: Errors of the place where it should go.
        seconds: Wall time, including the data.
        by_task: Errors by task.
    """

    weights: Path
    target: PlaceErrors
    goal: PlaceErrors
    seconds: float
    by_task: dict[str, TaskErrors]


class _GroundingData(NamedTuple):
    images_MKYX: Tensor  # uint8
    instructions: list[str]
    tasks: list[str]
    place_MR3: Tensor  # target and goal [m], robot base frame; NaN if unknown
    seen_at_MR2: Tensor  # their places in the image, x and y in [-1, 1]


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
    """Train a SmallTrunk to locate target and goal in images, and save its weights.

    Args:
        robots: Names of the one-arm robots whose scenes the trunk learns.
        out: Safetensors file to write. It is written completely or not at all.
        steps: Number of training steps.
        samples: Number of training images. The same number again, at most 2,000, is held out.
        batch_size: Number of images per step.
        seed: Seed of the data, the initial weights and the order of samples.
        threads: CPU threads of the training. More threads than idle cores slow it down.
        processes: Number of processes that draw the data.
        image_size: Edge of the images [pixels], a multiple of 8.
        tasks: Names of the tasks whose scenes the trunk learns, with each robot that suits them.
        wordings: Wording of the instructions: ``one`` is always the same, ``train`` draws one
            for each image.

    Raises:
        UserError: A robot, a task or the kind of wordings is unknown, a robot has two arms or
            suits none of the tasks, a count or size is invalid, or PyBullet is missing.
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
        trunk = SmallTrunk(image_size=image_size)  # first, because it checks image_size
    held_out_samples = min(samples, _MOST_HELD_OUT)
    print(f"drawing {samples + held_out_samples} scenes of {', '.join(robots)}", flush=True)
    sizes = [samples, held_out_samples]
    train, held_out = _draw_data(env_ids, sizes, seed, image_size, wordings, processes)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        _train(trunk, train, steps, batch_size, seed)
        save_weights(trunk.state_dict(), Path(out))
        distance_MR, elsewhere_MR = _evaluate(trunk, held_out)
    finally:
        torch.set_num_threads(before)
    target, goal = (_place_errors(distance_MR[:, r], elsewhere_MR[:, r]) for r in (0, 1))
    by_task = _task_errors(held_out.tasks, distance_MR)
    return GroundingResult(Path(out), target, goal, time.monotonic() - start, by_task)


def _env_ids(robots: Sequence[str], tasks: Sequence[str]) -> list[str]:
    if not robots or not tasks:
        name = "tasks" if robots else "robots"
        raise UserError(f"ground: {name} is empty, expected at least one name")
    for task in tasks:
        if task not in TASKS:
            raise UserError(f"ground: task {task!r} is not known; choose from {sorted(TASKS)}")
    for robot in map(find_robot, robots):
        if len(robot.arms) > 1:
            raise UserError(
                f"ground: robot {robot.name!r} has two arms; choose robots with one arm"
            )
        if not any(TASKS[task].suits(robot) for task in tasks):
            raise UserError(f"ground: robot {robot.name!r} can do none of the tasks {list(tasks)}")
    specs = {env_id: gym.spec(env_id).kwargs for env_id in ENV_IDS}
    return [e for e, spec in specs.items() if spec["robot"] in robots and spec["task"] in tasks]


def _draw_data(
    env_ids: list[str],
    counts: list[int],
    seed: int,
    image_size: int,
    wordings: Wordings,
    processes: int,
) -> list[_GroundingData]:
    """Draw sets of samples with different seeds, in parallel processes."""
    # Many parts of moderate size keep all processes busy until the end.
    parts = [(i, min(2000, n - k)) for i, n in enumerate(counts) for k in range(0, n, 2000)]
    jobs = [(env_ids, n, 1000 * seed + j, image_size, wordings) for j, (_, n) in enumerate(parts)]
    if processes == 1:
        drawn = [grounding_samples(*job) for job in jobs]
    else:
        # Spawn, because a fork would inherit torch's threads in an unknown state.
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            drawn = list(pool.map(grounding_samples, *zip(*jobs, strict=True)))
    return [
        _concatenate(
            [_to_tensors(d, env_ids) for d, (i, _) in zip(drawn, parts, strict=True) if i == wanted]
        )
        for wanted in range(len(counts))
    ]


def _to_tensors(samples: GroundingSamples, env_ids: list[str]) -> _GroundingData:
    place = np.stack([samples.target_xyz, samples.goal_xyz], axis=1)
    specs = [gym.spec(env_id).kwargs for env_id in env_ids]
    arms = [find_robot(spec["robot"]).arms[0] for spec in specs]
    turn_E33 = np.array([base_rotation(arm) for arm in arms])
    base_E3 = np.array([arm.base for arm in arms])
    env_M = np.arange(len(place)) % len(env_ids)  # samples take the environments in turn
    table = np.einsum("mij,mkj->mki", turn_E33[env_M], place) + base_E3[env_M, None]
    return _GroundingData(
        torch.from_numpy(samples.images).permute(0, 3, 1, 2).contiguous(),
        samples.instructions,
        [specs[env]["task"] for env in env_M],
        torch.from_numpy(place),
        _project(torch.from_numpy(table)).float(),
    )


def _concatenate(parts: list[_GroundingData]) -> _GroundingData:
    images, instructions, tasks, place, seen_at = zip(*parts, strict=True)
    texts = list(chain(*instructions)), list(chain(*tasks))
    return _GroundingData(torch.cat(images), *texts, torch.cat(place), torch.cat(seen_at))


def _project(point: Tensor) -> Tensor:
    """Project table coordinates (..., 3) [m] into the suite's camera.

    Returns:
        (..., 2) image coordinates in [-1, 1], x to the right and y down.
    """
    eye = torch.tensor(CAMERA_EYE, dtype=point.dtype)
    forward = F.normalize(torch.tensor(CAMERA_TARGET, dtype=point.dtype) - eye, dim=0)
    right = F.normalize(torch.linalg.cross(forward, forward.new_tensor([0.0, 0.0, 1.0])), dim=0)
    down = torch.linalg.cross(forward, right)
    ray = point - eye
    scale = ray @ forward * np.tan(np.radians(CAMERA_FOV) / 2)
    return torch.stack([ray @ right / scale, ray @ down / scale], dim=-1)


# ---- training -----------------------------------------------------------------------------


def _train(trunk: SmallTrunk, data: _GroundingData, steps: int, batch_size: int, seed: int) -> None:
    known_MR3 = data.place_MR3[data.place_MR3.isfinite().all(dim=(1, 2))]
    trunk.vision.workspace_mean_R3.copy_(known_MR3.mean(dim=0))
    trunk.vision.workspace_scale_R3.copy_(known_MR3.std(dim=0).clamp(min=0.01))
    modules = (trunk.text, trunk.vision)  # only these locate objects
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
    """Compute the loss of located places.

    It sums the cross-entropy of the cells that show the place, the error of these cells' votes, and
    the error of the resulting place [cm]. The camera gives the true cell. Without it, cells and
    votes would have to be learned jointly, which starts with a long plateau. Places that are NaN
    are excluded.

    Args:
        seen: Outputs of the trunk.
        place_BR3: True places [m], robot base frame.
        seen_at_BR2: True places in the image, x and y in [-1, 1].
    """
    known_BR = place_BR3.isfinite().all(dim=-1)
    place_BR3, seen_at_BR2 = place_BR3.nan_to_num(), seen_at_BR2.nan_to_num()
    rows, columns = seen.map_ICYX.shape[2:]
    x_BRX, y_BRY = (_cell_weights(seen_at_BR2[..., i], n) for i, n in ((0, columns), (1, rows)))
    cell_BRN = (y_BRY[..., :, None] * x_BRX[..., None, :]).flatten(2)
    which = -(cell_BRN * seen.logit_IRN.log_softmax(dim=-1)).sum(dim=-1)
    vote = (cell_BRN * _distance_cm(seen.vote_IRN3, place_BR3[:, :, None])).sum(dim=-1)
    loss_BR = which + 0.3 * vote + 0.3 * _distance_cm(seen.place_IR3, place_BR3)
    return loss_BR[known_BR].mean()


def _cell_weights(position: Tensor, cells: int) -> Tensor:
    """Compute linear weights (..., cells) of the two cells around a position in [-1, 1]."""
    at = ((position + 1) * cells / 2 - 0.5).clamp(0, cells - 1)
    return (1 - (at[..., None] - torch.arange(cells)).abs()).clamp(min=0)


def _distance_cm(found: Tensor, wanted: Tensor) -> Tensor:
    # Adding 0.01 cm² (1 mm squared) keeps the gradient of the root finite.
    return ((100 * (found - wanted)).square().sum(dim=-1) + 0.01).sqrt()


@torch.no_grad()
def _evaluate(trunk: SmallTrunk, data: _GroundingData) -> tuple[Tensor, Tensor]:
    """Compute the error of each place [m], NaN if unknown, and a mask of those elsewhere."""
    distance, elsewhere = [], []
    for first in range(0, len(data.instructions), 250):
        rows = slice(first, first + 250)
        seen = trunk.look(data.images_MKYX[rows], trunk.read(data.instructions[rows]))
        distance.append((seen.place_IR3 - data.place_MR3[rows]).norm(dim=-1))
        columns = data.images_MKYX.shape[-1] // STRIDE
        cell = seen.logit_IRN.argmax(dim=-1)
        at = torch.stack([cell % columns, cell // columns], dim=-1)
        at = (at + 0.5) * 2 / columns - 1
        elsewhere.append((at - data.seen_at_MR2[rows].clamp(-1, 1)).abs().amax(dim=-1) > _ELSEWHERE)
    return torch.cat(distance), torch.cat(elsewhere)


def _place_errors(distance_M: Tensor, elsewhere_M: Tensor) -> PlaceErrors:
    known_M = distance_M.isfinite()
    distance_M, elsewhere_M = distance_M[known_M], elsewhere_M[known_M]
    return PlaceErrors(
        100 * distance_M.median().item(),
        100 * distance_M.quantile(0.9).item(),
        (distance_M > _FAR_M).float().mean().item(),
        elsewhere_M.float().mean().item(),
    )


def _task_errors(tasks: list[str], distance_MR: Tensor) -> dict[str, TaskErrors]:
    errors = {}
    for task in dict.fromkeys(tasks):
        of_task_NR = distance_MR[[i for i, other in enumerate(tasks) if other == task]]
        target, goal = (100 * of_task_NR.nanmedian(dim=0).values).tolist()
        errors[task] = TaskErrors(target, None if math.isnan(goal) else goal)
    return errors
