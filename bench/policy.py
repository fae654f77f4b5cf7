"""Measure a policy's chunk latency against LeRobot's policies, its control rate and its server."""

import copy
import json
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench.command_line import run
from bench.serve import measure_serving
from bench.timing import median_seconds

if TYPE_CHECKING:
    from actionprior.embodiment import Embodiment
    from actionprior.networks.policy_network import PolicyNetwork
    from actionprior.networks.trunks.base import Trunk

CHUNK = 16


def bench_policy(
    repeats: int = 7, threads: int = 2, control_seconds: float = 20.0, device: str = "cpu"
) -> None:
    """Time a policy's chunk and its parts, LeRobot's policies, control at 30 Hz, and the server.

    All policies see the same 224-pixel image and predict chunks of 16 steps, at their default sizes
    and with random weights. `compact` has the sizes of recipes/finetune.yaml with
    recipes/trunks/compact.yaml, and sees 128 pixels. LeRobot's policies need the extra `bench`; a
    policy whose packages are missing is skipped with a message. Compiling needs a C++ compiler.

    Args:
        repeats: Number of measurements, of which the median is reported.
        threads: CPU threads of torch.
        control_seconds: Length of the run at 30 Hz with real-time chunking [s].
        device: Device of this project's policies; LeRobot's run on the CPU only.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    result: dict[str, Any] = {"threads": threads, "device": device}
    image = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    result["compact"] = _compact(repeats, device)
    print("compact", result["compact"], flush=True)
    trunks = {"small": _small_trunk(), "siglip": _siglip_trunk()}
    for name, trunk in trunks.items():
        network = _network(trunk, "encoder")
        result[name] = _parts(network, image, repeats, device)
        result[name] |= _arithmetic(network, image, repeats, device)
        print(name, result[name], flush=True)
    result["chunk_seconds_of_lerobot"] = _lerobot(image, repeats) if device == "cpu" else {}
    for name, seconds in result["chunk_seconds_of_lerobot"].items():
        result[f"{name}_over_small"] = round(seconds / result["small"]["chunk_seconds"], 2)
        result[f"{name}_over_siglip"] = round(seconds / result["siglip"]["chunk_seconds"], 2)
    result["control"] = _control(image, control_seconds, device)
    result["server"] = measure_serving(repeats=20 * repeats, clients=20, threads=1)
    result["met"] = {
        "compact_mean_below_20_ms": result["compact"]["mean_ms"] < 20,
        "compact_p99_below_33_ms": result["compact"]["p99_ms"] < 33,
        "decoder_below_15_percent": result["siglip"]["decoder_share"] < 0.15,
        "history_at_most_2_percent": result["siglip"]["history_share"] <= 0.02,
        "control_30_hz": result["control"]["p99_ms"] < 1000 / 30,
        "server_adds_below_2_ms": bool(result["server"]["added_ms"] < 2),
    }
    print("RESULT " + json.dumps(result), flush=True)


def _lerobot(image: "np.ndarray[Any, Any]", repeats: int) -> dict[str, float]:
    from bench.lerobot_policies import calls

    seconds = {}
    with torch.no_grad():
        for name, call in calls(CHUNK, torch.from_numpy(image)):
            seconds[name] = round(median_seconds(min(repeats, 3), call)[0], 4)
            print(name, seconds[name], flush=True)
    return seconds


# ---- this project's policies --------------------------------------------------------------


def _robot() -> "Embodiment":
    from actionprior.embodiment import ActionGroup, Embodiment, StateGroup

    joints = [f"joint_{i}" for i in range(1, 9)]
    return Embodiment(
        name="arm",
        control_hz=30,
        action=[ActionGroup("arm", "joints", joints, "joint_delta", "rad")],
        state=[StateGroup("arm", "joints", joints, "position", "rad")],
        cameras=["observation.images.front"],
    )


def _small_trunk() -> "Trunk":
    from actionprior.networks.trunks import SmallTrunk

    return SmallTrunk(grid=1, freeze=True)


def _siglip_trunk() -> "Trunk":
    from actionprior.networks.trunks import TimmTrunk

    return TimmTrunk("vit_base_patch16_siglip_224", text_model="ViT-B-16")


def _compact(repeats: int, device: str) -> dict[str, float]:
    """Time whole chunks of the compact policy, and what sampling gains over ``forward``."""
    from actionprior.flow_matching import integrate
    from actionprior.networks.motion_prior import MotionPrior, PriorArchitecture
    from actionprior.networks.policy_network import PolicyNetwork
    from actionprior.networks.trunks import CompactTrunk
    from actionprior.policy import Policy

    sizes = PriorArchitecture(width=96, latent_width=64, decoder_sees_state=True)
    prior = MotionPrior([_robot()], sizes)
    prior.normalizer.fitted_E.fill_(True)
    network = PolicyNetwork([_robot()], CompactTrunk(), prior, width=96)
    policy = Policy(network, execute_steps=1, device=device)
    image = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    for _ in range(network.history_length):
        policy.select_action(_observation(image))
    taken = []
    for _ in range(30 * repeats):
        start = time.perf_counter()
        policy.predict_chunk(_observation(image))
        taken.append(1000 * (time.perf_counter() - start))
    seen, noise_BHA, _ = policy._request(policy.check_observation(_observation(image)))
    with torch.no_grad():
        z_BZ = network.latent(seen)
        sampled, by_forward, latent = median_seconds(
            3 * repeats,
            lambda: network.decode(z_BZ, seen, noise_BHA).cpu(),
            lambda: integrate(
                lambda x_BHA, r_B: prior.decoder(x_BHA, r_B[:, None], z_BZ, seen.state_BS),
                noise_BHA,
                network.integration_steps,
            ).cpu(),
            lambda: network.latent(seen).cpu(),
        )
    return {
        "mean_ms": round(statistics.mean(taken), 2),
        "p50_ms": round(statistics.median(taken), 2),
        "p99_ms": round(statistics.quantiles(taken, n=100)[98], 2),
        "least_ms": round(min(taken), 2),
        "decoder_ms": round(1000 * sampled, 2),
        "latent_ms": round(1000 * latent, 2),
        "decoder_by_forward_over_sampled": round(by_forward / sampled, 2),
    }


def _network(trunk: "Trunk", history: Any, prefix_steps: int = 0) -> "PolicyNetwork":  # noqa: ANN401  a literal
    from actionprior.networks.motion_prior import MotionPrior, PriorArchitecture
    from actionprior.networks.policy_network import PolicyNetwork

    prior = MotionPrior([_robot()], PriorArchitecture(chunk_length=CHUNK))
    prior.normalizer.fitted_E.fill_(True)
    return PolicyNetwork([_robot()], trunk, prior, history, prefix_steps=prefix_steps)


def _observation(image: "np.ndarray[Any, Any]") -> dict[str, Any]:
    return {
        "observation.state": np.zeros(8, np.float32),
        "observation.images.front": image,
        "task": "push the red cube to the blue pad",
    }


def _parts(
    network: "PolicyNetwork", image: "np.ndarray[Any, Any]", repeats: int, device: str
) -> dict[str, float]:
    """Measure the seconds of a chunk with a full history, and the shares of its parts."""
    from actionprior.policy import Policy

    policy = Policy(network, execute_steps=1, device=device)
    for _ in range(network.history_length):
        policy.select_action(_observation(image))
    request = policy._request(policy.check_observation(_observation(image)))
    seen, noise_BHA, _ = request
    without = seen._replace(
        history=seen.history._replace(step_mask_BH=torch.zeros_like(seen.history.step_mask_BH))
    )

    def wait_for(result: torch.Tensor) -> torch.Tensor:
        return result.cpu()

    def not_cached() -> torch.Tensor:
        """Predict as if the trunk ran again at each integration step."""
        chunk: torch.Tensor = noise_BHA
        network.integration_steps = 1
        for _ in range(10):
            chunk = network.predict_chunk(seen, noise_BHA)
        network.integration_steps = 10
        return chunk

    with torch.no_grad():
        z_BZ = network.latent(seen)
        chunk_seconds, no_cache, decoder, token, fused, plain = median_seconds(
            repeats,
            lambda: wait_for(network.predict_chunk(seen, noise_BHA)),
            lambda: wait_for(not_cached()),
            lambda: wait_for(network.decode(z_BZ, seen, noise_BHA)),
            lambda: wait_for(network.prior.encode(network.to_prior_rows(seen.history))),
            lambda: wait_for(network.latent(seen)),
            lambda: wait_for(network.latent(without)),
        )
    return {
        "chunk_seconds": round(chunk_seconds, 5),
        "decoder_share": round(decoder / chunk_seconds, 4),
        "history_share": round(token / chunk_seconds, 4),
        "seeing_share": round(fused / chunk_seconds, 4),
        "without_cache_over_with": round(no_cache / chunk_seconds, 2),
        "seeing_with_history_over_without": round(fused / plain, 3),
    }


def _arithmetic(
    network: "PolicyNetwork", image: "np.ndarray[Any, Any]", repeats: int, device: str
) -> dict[str, float]:
    """Measure bfloat16 and ``torch.compile`` as ratios to eager float32."""
    from actionprior.policy import Policy

    policies = [
        Policy(network, device=device),
        Policy(network, device=device, precision=torch.bfloat16),
        Policy(copy.deepcopy(network), device=device, compile=True),
    ]
    calls = [partial(policy.predict_chunk, _observation(image)) for policy in policies]
    plain, bfloat16, compiled = median_seconds(repeats, *calls)
    return {
        "bfloat16_over_float32": round(bfloat16 / plain, 3),
        "compiled_over_eager": round(compiled / plain, 3),
    }


def _control(image: "np.ndarray[Any, Any]", seconds: float, device: str) -> dict[str, Any]:
    """Run at 30 Hz with the small trunk, and time each ``select_action``."""
    from actionprior.policy import Policy

    policy = Policy(
        _network(_small_trunk(), "encoder", prefix_steps=4),
        execute_steps=8,
        delay_steps=4,
        device=device,
    )
    period, taken, late = 1 / 30, [], 0
    policy.select_action(_observation(image))  # the first plan blocks
    due = time.perf_counter()
    for _ in range(int(seconds / period)):
        due += period
        start = time.perf_counter()
        policy.select_action(_observation(image))
        taken.append(time.perf_counter() - start)
        late += time.perf_counter() > due
        time.sleep(max(0.0, due - time.perf_counter()))
    cuts = statistics.quantiles(taken, n=100)
    return {
        "steps": len(taken),
        "p50_ms": round(1000 * cuts[49], 2),
        "p99_ms": round(1000 * cuts[98], 2),
        "worst_ms": round(1000 * max(taken), 2),
        "late_steps": late,
        "late_plans": policy.late_plans,
    }


def main(args: list[str] | None = None) -> None:
    """Run the benchmark: see :func:`bench_policy` for its options."""
    run(bench_policy, "policy", args)


if __name__ == "__main__":
    main()
