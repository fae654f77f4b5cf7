"""Split a policy's error into the decoder's, the latent's and the part learnt by heart.

Axes: N windows, M windows whose latent is fitted, H steps, A action slots, G groups, Z latent.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from actionprior.batch import TrajectoryBatch
from actionprior.checkup import Finding
from actionprior.diagnosis import chunks
from actionprior.diagnosis.chunks import Recorded
from actionprior.diagnosis.measurement import Diagnosis, MeasuredValue, finding
from actionprior.diagnosis.windows import Windows, select, select_steps
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.training.flow_noise import EVALUATION_KEY, FlowNoise

FITTED, STEPS, REPEATS, RATE = 48, 60, 4, 0.05
BAD_DECODER = 0.5  # share of the constant chunk's error that even a fitted latent leaves
BAD_LATENT = 0.3  # share that the policy adds to it
BY_HEART = 2.0  # error on held-out windows over that on training windows
NARROW = 0.3  # share of the deviation that the best linear code of the latent's width leaves


class LatentErrors(NamedTuple):
    """Errors of chunks decoded from four latents, (N, G) or (M, G).

    Attributes:
        policy_NG: The policy's latent z′.
        encoder_NG: The encoder's latent z of the recorded chunk.
        limit_MG: The best latent that a search found, for M of the windows.
        training_NG: The policy's latent on training windows.
        cosine: Mean cosine of z′ and z.
        retrieval: Share of windows whose z′ is nearer to their own z than to any other.
        linear_rest: Deviation that the best linear code with as many numbers as z leaves.
    """

    policy_NG: Tensor
    encoder_NG: Tensor
    limit_MG: Tensor
    training_NG: Tensor
    cosine: float
    retrieval: float
    linear_rest: float


def diagnose_latent(
    network: PolicyNetwork, windows: Windows, training: Windows, recorded: Recorded
) -> Diagnosis:
    """Measure decoder, encoder and policy, and name the part that makes most of the error."""
    errors = measure_latents(network, windows, training, recorded)
    name, scale = windows.robot.name, recorded
    rows = [
        *scale.measure("latent", "error of the policy", errors.policy_NG),
        *scale.measure("latent", "error of the policy on training windows", errors.training_NG),
        *scale.measure("latent", "error with the encoder's z of the true chunk", errors.encoder_NG),
        *scale.measure("latent", "error with the best z found (the decoder's limit)",
                       errors.limit_MG),
        MeasuredValue(name, "latent", "cosine of z′ and z", "", errors.cosine, ""),
        MeasuredValue(name, "latent", "retrieval of z by z′", "", errors.retrieval, ""),
    ]  # fmt: skip
    return Diagnosis(rows, _findings(network, errors, recorded))


def measure_latents(
    network: PolicyNetwork, windows: Windows, training: Windows, recorded: Recorded
) -> LatentErrors:
    """Decode the policy's, the encoder's and fitted latents of the same windows."""
    observation = windows.observation
    mine_NZ = chunks.latents(network, observation)
    true_NZ = chunks.encode(network, windows.future)
    policy_NG = recorded.error(chunks.decode(network, mine_NZ, observation))
    encoder_NG = recorded.error(chunks.decode(network, true_NZ, observation))
    better_N1 = (recorded.shares(policy_NG) < recorded.shares(encoder_NG))[:, None]
    rows_M = torch.linspace(0, len(windows) - 1, min(FITTED, len(windows))).round().long()
    start_MZ = torch.where(better_N1, mine_NZ, true_NZ)[rows_M]
    fitted_MZ = _fit(network, start_MZ, select_steps(windows.future, rows_M))
    some = recorded._replace(
        chunk_NHA=recorded.chunk_NHA[rows_M], mask_NHA=recorded.mask_NHA[rows_M]
    )
    seen_NHA, seen_mask_NHA = chunks.learnt_form(network, training)
    seen = recorded._replace(chunk_NHA=seen_NHA, mask_NHA=seen_mask_NHA)
    similarity_NN = mine_NZ @ true_NZ.T
    start_MG = torch.where(better_N1, policy_NG, encoder_NG)[rows_M]
    found_MG = some.error(chunks.decode(network, fitted_MZ, select(observation, rows_M)))
    found_better_M1 = (some.shares(found_MG) < some.shares(start_MG))[:, None]
    return LatentErrors(
        policy_NG=policy_NG,
        encoder_NG=encoder_NG,
        limit_MG=torch.where(found_better_M1, found_MG, start_MG),
        training_NG=seen.error(chunks.predict(network, training.observation)),
        cosine=float(similarity_NN.diagonal().mean()),
        retrieval=float((similarity_NN.argmax(1) == torch.arange(len(windows))).float().mean()),
        linear_rest=_linear_rest(recorded, mine_NZ.shape[1] - 1),
    )


def _fit(network: PolicyNetwork, start_MZ: Tensor, future: TrajectoryBatch) -> Tensor:
    """Search latents (M, Z) from which the decoder draws the recorded chunks best."""
    prior, future = network.prior, network.to_prior_rows(future)
    noise = FlowNoise(EVALUATION_KEY, 0, 0)
    with torch.enable_grad():
        z_MZ = start_MZ.clone().requires_grad_()
        optimizer = torch.optim.Adam([z_MZ], lr=RATE)
        count = REPEATS * len(start_MZ)
        for _ in range(STEPS):
            noise_BHA = noise.normal(count, *future.action_BHA.shape[1:], like=start_MZ)
            r_B = noise.time(count, "uniform", like=start_MZ)
            loss = prior.flow_loss(F.normalize(z_MZ, dim=-1), future, noise_BHA, r_B)
            (z_MZ.grad,) = torch.autograd.grad(loss * len(start_MZ), [z_MZ])
            optimizer.step()
    return F.normalize(z_MZ.detach(), dim=-1)


def _linear_rest(recorded: Recorded, numbers: int) -> float:
    """Share of the chunks' deviation that their first principal components leave."""
    moving_A = recorded.mask_NHA.any(0).any(0)
    deviation_NHA = torch.where(recorded.mask_NHA, recorded.chunk_NHA - recorded.mean_HA, 0.0)
    deviation_NHA = deviation_NHA[..., moving_A]
    spread_A = deviation_NHA.square().mean((0, 1)).sqrt()
    flat_NF = (deviation_NHA / spread_A.clamp(min=chunks.NOTHING)).flatten(1)
    variance_K = torch.linalg.svdvals(flat_NF).square()
    return float((variance_K[numbers:].sum() / variance_K.sum().clamp(min=1e-12)).sqrt())


def _findings(network: PolicyNetwork, errors: LatentErrors, recorded: Recorded) -> list[Finding]:
    limit, policy = recorded.share(errors.limit_MG), recorded.share(errors.policy_NG)
    training, name = recorded.share(errors.training_NG), recorded.robot.name
    found, width = [_split(name, limit, training, policy)], network.prior.architecture.latent_width
    encoder = recorded.share(errors.encoder_NG)
    if encoder > max(policy, 2 * limit) and encoder > BAD_LATENT:
        found.append(finding("note", "encoder", name, "", (
            f"with the encoder's latent of the true chunk the error is {encoder:.0%}, more than "
            "the policy's: the encoder was not trained with this decoder (no prior, or "
            "decay_fraction 0), so read the decoder's limit from the best latent"
        )))  # fmt: skip
    if limit > BAD_DECODER:
        said = f"even the best latent leaves {limit:.0%} of the constant chunk's error"
        if errors.linear_rest > NARROW:
            found.append(finding("error", "narrow_latent", name, "", (
                f"{said}, and a code of {width} numbers cannot hold these chunks: a linear one "
                f"leaves {errors.linear_rest:.0%} of their deviation; train with a larger "
                "architecture.latent_width"
            )))  # fmt: skip
        else:
            found.append(finding("error", "decoder", name, "", (
                f"{said}: the decoder cannot draw this robot's chunks; check that Stage 1 reached "
                "a small reconstruction error, that its weights were loaded, and train it longer"
            )))  # fmt: skip
    elif policy - limit > BAD_LATENT:
        found.append(finding("warning", "latent", name, "", (
            f"the policy's error is {policy:.0%} of the constant chunk's, and the decoder would "
            f"allow {limit:.0%}: most of it comes from finding the latent; see what the policy "
            "looks at below, and add demonstrations or training steps"
        )))  # fmt: skip
    if policy > BAD_LATENT and policy > BY_HEART * training:
        found.append(finding("warning", "by_heart", name, "", (
            f"the error is {policy:.0%} of the constant chunk's on held-out windows and "
            f"{training:.0%} on training windows: the policy knows the demonstrations by heart; "
            "add demonstrations or image augmentation, or train fewer steps"
        )))  # fmt: skip
    return found


def _split(robot: str, limit: float, training: float, policy: float) -> Finding:
    """Say how the policy's error adds up, from the decoder's limit to held-out windows."""
    limit, total = min(limit, policy), max(policy, chunks.NOTHING)
    training = max(limit, min(training, policy))
    message = (
        f"the policy's error is {policy:.0%} of the constant chunk's. Of it, {limit / total:.0%} "
        f"is the decoder's limit, {(training - limit) / total:.0%} is left by training on its own "
        f"windows (more steps, larger networks), and {(policy - training) / total:.0%} is added on "
        "held-out windows (more demonstrations, better images)"
    )
    return finding("note", "error", robot, "", message)
