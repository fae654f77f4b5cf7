"""What a policy's trunk knows: linear read-outs of its tokens, against the robot's state.

Axes: N and M windows, F features, D predicted numbers, A action slots.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, pad

from actionprior.batch import Observation
from actionprior.diagnosis import chunks
from actionprior.diagnosis.measurement import Diagnosis, MeasuredValue, finding
from actionprior.diagnosis.windows import Windows, select
from actionprior.networks.policy_network import PolicyNetwork

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
LARGEST = 16384  # entries of the tokens that are read in full; otherwise their mean is
STATE_SUFFICES = 0.3  # share of the constant's error that the state leaves
HELPS = 0.95  # largest ratio of errors at which the tokens count as helpful
THUMBNAIL = 8


class EndErrors(NamedTuple):
    """Errors of predicting where chunks end, per group (G,)."""

    constant_G: Tensor
    state_G: Tensor
    trunk_G: Tensor


def ridge(x_NF: Tensor, y_ND: Tensor, x_MF: Tensor) -> Tensor:
    """Predict (M, D) by ridge regression whose penalty is chosen on the last quarter of N."""
    x_NF, x_MF, y_ND = x_NF.double(), x_MF.double(), y_ND.double()
    cut = max(1, 3 * len(x_NF) // 4)
    losses = [
        float((_ridge(x_NF[:cut], y_ND[:cut], x_NF[cut:], p) - y_ND[cut:]).abs().mean())
        for p in PENALTIES
    ]
    best = PENALTIES[min(range(len(PENALTIES)), key=losses.__getitem__)]
    return _ridge(x_NF, y_ND, x_MF, best).float()


def _ridge(x_NF: Tensor, y_ND: Tensor, x_MF: Tensor, penalty: float) -> Tensor:
    """Solve in the form of N equations, as there may be more features than windows."""
    centre_F, spread_F, mean_D = x_NF.mean(0), x_NF.std(0), y_ND.mean(0)
    scale_F = torch.where(spread_F > chunks.NOTHING, 1 / spread_F.clamp(min=1e-12), 0.0)
    a_NF, b_MF = (x_NF - centre_F) * scale_F, (x_MF - centre_F) * scale_F
    features = max(1, int((scale_F > 0).sum()))
    kernel_NN = a_NF @ a_NF.T / features
    identity_NN = torch.eye(len(a_NF), dtype=torch.float64)
    weight_ND = torch.linalg.solve(kernel_NN + penalty * identity_NN, y_ND - mean_D)
    predicted_MD: Tensor = mean_D + b_MF @ a_NF.T / features @ weight_ND
    return predicted_MD


@torch.no_grad()
def trunk_features(network: PolicyNetwork, observation: Observation) -> Tensor:
    """Flatten the trunk's tokens (N, F); only their mean if there are very many."""
    parts = []
    for first in range(0, len(observation.task), chunks.PART):
        some = select(observation, slice(first, first + chunks.PART))
        tokens = network.trunk(some.images_BCKYX, some.camera_mask_BC, some.task)
        known_BN1 = tokens.mask_BN[..., None]
        masked_BNW = torch.where(known_BN1, tokens.tokens_BNW, 0.0)
        if masked_BNW[0].numel() > LARGEST:
            parts.append(masked_BNW.sum(1) / known_BN1.sum(1).clamp(min=1))
            continue
        parts.append(masked_BNW.flatten(1))
    width = max(part.shape[1] for part in parts)  # instructions differ in length
    padded = [pad(part, (0, width - part.shape[1])) for part in parts]
    return torch.cat(padded).float()


def state_features(network: PolicyNetwork, observation: Observation) -> Tensor:
    """Normalised states (N, S)."""
    rows_B = network.prior_rows(observation.embodiment_B)
    normalizer = network.prior.normalizer
    state_N1S: Tensor = normalizer.normalize_state(observation.state_BS[:, None], rows_B)
    return state_N1S[:, 0]


def thumbnails(observation: Observation) -> Tensor:
    """Shrink each camera's image to 8 by 8 pixels, flat (N, F), in 0 … 255."""
    images_BCKYX = observation.images_BCKYX
    if not images_BCKYX.shape[1]:
        return torch.zeros(len(images_BCKYX), 0)
    small = [adaptive_avg_pool2d(image.float(), THUMBNAIL) for image in images_BCKYX]
    return torch.stack(small).flatten(1)


def measure_ends(network: PolicyNetwork, windows: Windows, training: Windows) -> EndErrors:
    """Predict where held-out chunks end from trunk and state, from the state, and as constant."""
    robot = windows.robot
    ends = [
        chunks.chunk_ends(robot, *chunks.learnt_form(network, part)) for part in (training, windows)
    ]
    states = [state_features(network, part.observation) for part in (training, windows)]
    tokens = [trunk_features(network, part.observation) for part in (training, windows)]
    width = max(part.shape[1] for part in tokens)
    both = [
        torch.cat([pad(t, (0, width - t.shape[1])), s], dim=1)
        for t, s in zip(tokens, states, strict=True)
    ]
    predicted = [
        ends[0].mean(0).expand_as(ends[1]),
        ridge(states[0], ends[0], states[1]),
        ridge(both[0], ends[0], both[1]),
    ]
    errors = [
        torch.stack([(p - ends[1])[:, robot.action_slots(g)].abs().mean() for g in robot.action])
        for p in predicted
    ]
    return EndErrors(*errors)


def diagnose_readout(network: PolicyNetwork, windows: Windows, training: Windows) -> Diagnosis:
    """Report whether the trunk's tokens say more about the chunk's end than the state does."""
    errors, robot = measure_ends(network, windows, training), windows.robot
    names = ("a constant", "the state", "the trunk and the state")
    rows = [
        MeasuredValue(robot.name, "readout", f"error of the chunk's end from {name}", group.name,
                    float(value), group.unit)
        for name, error_G in zip(names, errors, strict=True)
        for group, value in zip(robot.action, error_G, strict=True)
    ]  # fmt: skip
    moving_G = errors.constant_G > chunks.NOTHING
    if not bool(moving_G.any()):
        return Diagnosis(rows, [])
    state = float((errors.state_G / errors.constant_G)[moving_G].mean())
    trunk = float((errors.trunk_G / errors.constant_G)[moving_G].mean())
    if state < STATE_SUFFICES or trunk < HELPS * state:
        return Diagnosis(rows, [])
    message = (
        f"where chunks end cannot be read from the trunk's tokens: a linear read-out leaves "
        f"{trunk:.0%} of a constant's error, and {state:.0%} without the trunk; warm the trunk up "
        "(lightning ground), use a pretrained one, let it train, or use larger images"
    )
    return Diagnosis(rows, [finding("warning", "trunk", robot.name, "", message)])
