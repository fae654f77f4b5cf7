"""Whether a trunk knows where the objects of a scene are, if the simulator can say it.

Axes: N samples, C cameras.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from actionprior.batch import Observation, TrajectoryBatch
from actionprior.diagnosis.measurement import Diagnosis, MeasuredValue, finding
from actionprior.diagnosis.readout import ridge, trunk_features
from actionprior.diagnosis.simulator import SUITE, Simulator
from actionprior.diagnosis.windows import Windows
from actionprior.embodiment import FloatArray
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.rollout.results import Frame

SAMPLES = 400
HELD_OUT = 0.25
FIRST = 1000  # seeds after the evaluation's first
_SUITE_SEED = 900_000_001  # `lightning ground` draws its own samples with small seeds
TWO_ARMS = "Duo"  # grounding samples are of one-arm robots
KNOWN = 0.8  # error over a constant's, above which places are not known


class PlacedScenes(NamedTuple):
    """Scenes whose places are known, N of them.

    Attributes:
        images_NCKYX: Images of the cameras.
        tasks: Instructions.
        places: Places (N, 3) by name [m]; NaN where a scene has none.
    """

    images_NCKYX: Tensor
    tasks: list[str]
    places: dict[str, Tensor]


def diagnose_places(
    network: PolicyNetwork, windows: Windows, simulator: Simulator, samples: int = SAMPLES
) -> Diagnosis:
    """Read places from the trunk's tokens, and compare with a constant.

    Places are known in the simulated suite, and in environments with a method ``places()`` that
    returns them by name after a reset.
    """
    scenes = placed_scenes(windows, simulator, samples)
    if scenes is None:
        return Diagnosis([], [])
    features_NF = trunk_features(network, _observation(windows, scenes))
    name, rows, shares = windows.robot.name, [], []
    for what, place_N3 in scenes.places.items():
        errors = _errors(features_NF, place_N3)
        if errors is None:
            continue
        shares.append(errors[0] / max(errors[1], 1e-6))
        for source, error in zip(("the trunk", "a constant"), errors, strict=True):
            title = f"place of the {what} read from {source}"
            rows.append(MeasuredValue(name, "places", title, "", error, "cm"))
    if not shares or min(shares) < KNOWN:
        return Diagnosis(rows, [])
    message = (
        f"where objects are cannot be read from the trunk's tokens: a linear read-out has "
        f"{min(shares):.0%} of a constant's error; warm the trunk up (lightning ground), use a "
        "pretrained one, or larger images"
    )
    return Diagnosis(rows, [finding("warning", "places", name, "", message)])


def placed_scenes(windows: Windows, simulator: Simulator, samples: int) -> PlacedScenes | None:
    """Draw scenes whose places are known; None if the environments cannot say them."""
    robot = windows.robot
    env_ids = simulator.of_robot(robot.name)
    suite = [e for e in env_ids if e.startswith(SUITE) and TWO_ARMS not in e]
    if suite and len(robot.cameras) == 1:
        return _of_suite(suite, windows.observation.images_BCKYX.shape[-1], samples)
    drawn = [
        scene
        for env_id in env_ids
        for scene in _resets(simulator, windows, env_id, samples // len(env_ids))
    ]
    if not drawn:
        return None
    names = sorted({name for _, _, places in drawn for name in places})
    nowhere = np.full(3, np.nan)
    return PlacedScenes(
        torch.from_numpy(np.stack([images for images, _, _ in drawn])).movedim(-1, 2).contiguous(),
        [task for _, task, _ in drawn],
        {
            name: torch.tensor(np.stack([p.get(name, nowhere) for _, _, p in drawn])).float()
            for name in names
        },
    )


def _of_suite(env_ids: list[str], size: int, samples: int) -> PlacedScenes:
    from actionprior.grounding.samples import grounding_samples

    drawn = grounding_samples(env_ids, samples, seed=_SUITE_SEED, image_size=size)
    return PlacedScenes(
        torch.from_numpy(drawn.images).movedim(-1, 1)[:, None].contiguous(),
        drawn.instructions,
        {
            "object": torch.from_numpy(drawn.target_xyz),
            "goal": torch.from_numpy(drawn.goal_xyz),
        },
    )


Reset = tuple[Frame, str, dict[str, FloatArray]]


def _resets(simulator: Simulator, windows: Windows, env_id: str, count: int) -> Iterator[Reset]:
    """Yield images, instruction and places of scenes after a reset."""
    with closing(simulator.make(env_id, windows.robot)) as env:
        places = getattr(env.unwrapped, "places", None)
        if places is None:
            return
        first = simulator.seed + FIRST
        for seed in range(first, first + count):
            observation, info = env.reset(seed=seed)
            yield observation["images"].copy(), info["instruction"], dict(places())


def _errors(features_NF: Tensor, place_N3: Tensor) -> tuple[float, float] | None:
    """Mean error on held-out scenes of a read-out and of a constant [cm]; None: too few scenes."""
    order_N = torch.randperm(len(place_N3), generator=torch.Generator().manual_seed(0))
    order_N = order_N[place_N3.isfinite().all(1)[order_N]]
    cut = int(HELD_OUT * len(order_N))
    if cut < 1:
        return None
    held, fitted = order_N[:cut], order_N[cut:]
    found_M3 = ridge(features_NF[fitted], place_N3[fitted], features_NF[held])
    mean_3 = place_N3[fitted].mean(0)
    read, constant = (
        100 * float((place_N3[held] - guess).norm(dim=1).mean()) for guess in (found_M3, mean_3)
    )
    return read, constant


def _observation(windows: Windows, scenes: PlacedScenes) -> Observation:
    """Observations of which the trunk reads images and instruction."""
    rows = torch.arange(len(scenes.tasks)) % len(windows)
    seen, cameras = windows.observation, scenes.images_NCKYX.shape[1]
    return Observation(
        scenes.images_NCKYX,
        seen.camera_mask_BC[rows][:, :cameras],
        scenes.tasks,
        seen.state_BS[rows],
        seen.reference_BA[rows],
        TrajectoryBatch(*(part[rows] for part in seen.history)),
        seen.embodiment_B[rows],
    )
