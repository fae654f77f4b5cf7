"""Whether a trunk knows where the objects of an instruction are, for the simulated suite.

Axes: N samples, C cameras.
"""

import numpy as np
import torch

from actionprior.batch import Observation, TrajectoryBatch
from actionprior.diagnosis.measurement import Measurement, Results, finding
from actionprior.diagnosis.readout import ridge, trunk_features
from actionprior.diagnosis.simulator import SUITE, Simulator
from actionprior.diagnosis.windows import Windows
from actionprior.networks.policy_network import PolicyNetwork

SAMPLES = 400
HELD_OUT = 100
KNOWN = 0.8  # error over a constant's, above which places are not known


def diagnose_places(
    network: PolicyNetwork, windows: Windows, simulator: Simulator, samples: int = SAMPLES
) -> Results:
    """Read the places of the object to handle and of its goal from the trunk's tokens."""
    env_ids = [e for e in simulator.of_robot(windows.robot.name) if e.startswith(SUITE)]
    if not env_ids or len(windows.robot.cameras) != 1 or "Duo" in env_ids[0]:
        return Results([], [])
    from actionprior.grounding.samples import grounding_samples

    size = windows.observation.images_BCKYX.shape[-1]
    drawn = grounding_samples(env_ids, samples, seed=1, image_size=size)
    images = torch.from_numpy(drawn.images).movedim(-1, 1)[:, None].contiguous()
    features_NF = trunk_features(network, _observation(windows, images, drawn.instructions))
    rng, name = np.random.default_rng(0), windows.robot.name
    order = torch.from_numpy(rng.permutation(samples))
    rows, shares = [], []
    for what, place in (("object", drawn.target_xyz), ("goal", drawn.goal_xyz)):
        known = order[torch.from_numpy(np.isfinite(place).all(1))[order]]
        place_N3 = torch.from_numpy(place)
        held, fitted = known[:HELD_OUT], known[HELD_OUT:]
        if len(fitted) < HELD_OUT:
            continue
        found_N3 = ridge(features_NF[fitted], place_N3[fitted], features_NF[held])
        mean_3 = place_N3[fitted].mean(0)
        errors = [
            100 * float((place_N3[held] - guess).norm(dim=1).mean()) for guess in (found_N3, mean_3)
        ]
        shares.append(errors[0] / errors[1])
        for source, error in zip(("the trunk", "a constant"), errors, strict=True):
            title = f"place of the {what} read from {source}"
            rows.append(Measurement(name, "places", title, "", error, "cm"))
    if not shares or min(shares) < KNOWN:
        return Results(rows, [])
    message = (
        f"where objects are cannot be read from the trunk's tokens: a linear read-out has "
        f"{min(shares):.0%} of a constant's error; warm the trunk up (lightning ground), use a "
        "pretrained one, or larger images"
    )
    return Results(rows, [finding("warning", "places", name, "", message)])


def _observation(windows: Windows, images: torch.Tensor, tasks: list[str]) -> Observation:
    """Observations of which the trunk reads images and instruction."""
    rows = torch.arange(len(tasks)) % len(windows)
    mask_BC = windows.observation.camera_mask_BC[rows][:, :1]
    seen = windows.observation
    return Observation(
        images,
        mask_BC,
        tasks,
        seen.state_BS[rows],
        seen.reference_BA[rows],
        TrajectoryBatch(*(part[rows] for part in seen.history)),
        seen.embodiment_B[rows],
    )
