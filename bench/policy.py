"""Measure a policy's chunk latency beside LeRobot's policies, its control rate and its server."""

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
    """Time a chunk of ours, its parts and LeRobot's policies; control at 30 Hz; and the server.

    All see the same 224-pixel image and predict chunks of 16 steps, at their default sizes and
    with random weights. LeRobot's need the extra ``bench``; those whose packages are
    missing are left out, and it is said. Compiling needs a C++ compiler.

    Args:
        repeats: of each measurement; medians are told.
        threads: torch's CPU threads.
        control_seconds: length of the run at 30 Hz, with real-time chunking.
        device: of our policies' measurements; LeRobot's are taken on the CPU only.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    told: dict[str, Any] = {"threads": threads, "device": device}
    image = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    ours = {"small": _small_trunk(), "siglip": _siglip_trunk()}
    for name, trunk in ours.items():
        network = _network(trunk, "encoder")
        told[name] = _parts(network, image, repeats, device)
        told[name] |= _arithmetic(network, image, repeats, device)
        print(name, told[name], flush=True)
    told["chunk_seconds_of_lerobot"] = _lerobot(image, repeats) if device == "cpu" else {}
    for name, seconds in told["chunk_seconds_of_lerobot"].items():
        told[f"{name}_over_small"] = round(seconds / told["small"]["chunk_seconds"], 2)
        told[f"{name}_over_siglip"] = round(seconds / told["siglip"]["chunk_seconds"], 2)
    told["control"] = _control(image, control_seconds, device)
    told["server"] = measure_serving(repeats=20 * repeats, clients=20, threads=1)
    told["met"] = {
        "decoder_below_15_percent": told["siglip"]["decoder_share"] < 0.15,
        "history_at_most_2_percent": told["siglip"]["history_share"] <= 0.02,
        "control_30_hz": told["control"]["p99_ms"] < 1000 / 30,
        "server_adds_below_2_ms": bool(told["server"]["added_ms"] < 2),
    }
    print("RESULT " + json.dumps(told), flush=True)


def _lerobot(image: "np.ndarray[Any, Any]", repeats: int) -> dict[str, float]:
    from bench.lerobot_policies import calls

    seconds = {}
    with torch.no_grad():
        for name, call in calls(CHUNK, torch.from_numpy(image)):
            seconds[name] = round(median_seconds(min(repeats, 3), call)[0], 4)
            print(name, seconds[name], flush=True)
    return seconds


# ---- ours ---------------------------------------------------------------------------------


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


def _network(trunk: "Trunk", history: Any, prefix_steps: int = 0) -> "PolicyNetwork":  # noqa: ANN401  one of three words
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
    """Seconds of a chunk with a full history, and the shares of its parts."""
    from actionprior.policy import Policy

    policy = Policy(network, execute_steps=1, device=device)
    for _ in range(network.history_length):
        policy.select_action(_observation(image))
    question = policy._request(policy.check_observation(_observation(image)))
    seen, noise_BHA, _ = question
    without = seen._replace(
        history=seen.history._replace(step_mask_BH=torch.zeros_like(seen.history.step_mask_BH))
    )

    def waited(result: torch.Tensor) -> torch.Tensor:
        return result.cpu()

    def not_cached() -> torch.Tensor:
        """As if the trunk were asked anew at each integration step."""
        chunk: torch.Tensor = noise_BHA
        network.integration_steps = 1
        for _ in range(10):
            chunk = network.predict_chunk(seen, noise_BHA)
        network.integration_steps = 10
        return chunk

    with torch.no_grad():
        z_BZ = network.latent(seen)
        whole, no_cache, decoder, token, fused, plain = median_seconds(
            repeats,
            lambda: waited(network.predict_chunk(seen, noise_BHA)),
            lambda: waited(not_cached()),
            lambda: waited(network.decode(z_BZ, seen, noise_BHA)),
            lambda: waited(network.prior.encode(network.to_prior_rows(seen.history))),
            lambda: waited(network.latent(seen)),
            lambda: waited(network.latent(without)),
        )
    return {
        "chunk_seconds": round(whole, 5),
        "decoder_share": round(decoder / whole, 4),
        "history_share": round(token / whole, 4),
        "seeing_share": round(fused / whole, 4),
        "without_cache_over_with": round(no_cache / whole, 2),
        "seeing_with_history_over_without": round(fused / plain, 3),
    }


def _arithmetic(
    network: "PolicyNetwork", image: "np.ndarray[Any, Any]", repeats: int, device: str
) -> dict[str, float]:
    """What bfloat16 and ``torch.compile`` make of a chunk's seconds, over float32 as it is."""
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
    """Keep 30 Hz with the small trunk: how long each ``select_action`` held the robot up."""
    from actionprior.policy import Policy

    policy = Policy(
        _network(_small_trunk(), "encoder", prefix_steps=4),
        execute_steps=8,
        delay_steps=4,
        device=device,
    )
    period, taken, late = 1 / 30, [], 0
    policy.select_action(_observation(image))  # the first plan is waited for
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
