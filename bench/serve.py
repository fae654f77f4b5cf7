"""Measure what serving a policy adds to a re-plan, and how many clients it answers."""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprior.errors import UserError
from bench.command_line import run

if TYPE_CHECKING:
    from actionprior.networks.policy_network import PolicyNetwork

_SERVE = "import sys; from actionprior.cli import main; main(['serve', *sys.argv[1:]])"


def bench_serve(repeats: int = 200, clients: int = 20, threads: int = 1) -> None:
    """Time a client's re-plans against those in this process, then many clients together.

    The policy has the sizes of `recipes/finetune.yaml` and one camera of 64 x 64 pixels. The server
    is `lightning serve` in a separate process on this machine.

    Args:
        repeats: Re-plans per client.
        clients: Number of concurrent clients.
        threads: CPU threads of torch.
    """
    print("RESULT " + json.dumps(measure_serving(repeats, clients, threads)))


def measure_serving(repeats: int, clients: int, threads: int) -> dict[str, Any]:
    """Measure what :func:`bench_serve` reports.

    Args:
        repeats: Re-plans per client.
        clients: Number of concurrent clients.
        threads: CPU threads of torch.

    Raises:
        UserError: A number is below 1.
    """
    if min(repeats, clients, threads) < 1:
        raise UserError("repeats, clients and threads are expected to be 1 or more")
    import torch

    from actionprior.checkpoints.folder import write_folder
    from actionprior.policy import Policy

    torch.set_num_threads(threads)
    network = _network()
    with tempfile.TemporaryDirectory() as folder:
        write_folder(network, {}, Path(folder))
        words = [f"--ckpt_path={folder}", f"--threads={threads}", f"--max_sessions={clients + 1}"]
        with _served(words) as url:
            return {
                **_one_client(url, Policy(network), repeats),
                **asyncio.run(_many_clients(url, clients, repeats)),
            }


def _network() -> "PolicyNetwork":
    """Return a network with untrained weights, which is as fast as a trained one."""
    from actionprior.envs.embodiments import suite_embodiment
    from actionprior.networks.motion_prior import MotionPrior, PriorArchitecture
    from actionprior.networks.policy_network import PolicyNetwork
    from actionprior.networks.trunks import SmallTrunk

    robot = suite_embodiment("panda")
    prior = MotionPrior([robot], PriorArchitecture(width=96, decoder_sees_state=True))
    prior.normalizer.fitted_E.fill_(True)
    return PolicyNetwork([robot], SmallTrunk(grid=2), prior, width=96)


def _observation(seed: int) -> dict[str, Any]:
    from actionprior.envs.embodiments import suite_embodiment

    robot = suite_embodiment("panda")
    rng = np.random.default_rng(seed)
    images = {key: rng.integers(0, 255, (64, 64, 3), np.uint8) for key in robot.cameras}
    state = rng.uniform(-1, 1, len(robot.state_features)).astype(np.float32)
    return {robot.state_key: state, "task": "push the red cube to the blue pad", **images}


@contextmanager
def _served(words: list[str]) -> Iterator[str]:
    command = [sys.executable, "-c", _SERVE, *words, "--port=0", "--max_rate=1e6"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline() if server.stdout else ""
            if not line:
                raise UserError("the server did not start; its messages are above")
            yield "ws://" + line.partition("ws://")[2].partition(",")[0]
        finally:
            server.terminate()
            server.wait()


def _one_client(url: str, policy: Any, repeats: int) -> dict[str, float]:  # noqa: ANN401  # Policy
    """Time both in turns, so that a machine that is busy for a while slows both."""
    from websockets.sync.client import connect

    from actionprior.serving.wire import pack, unpack

    here, there, beside = [], [], []
    with connect(url, compression=None) as client:
        client.recv()
        for turn in range(repeats + 1):
            seen = _observation(turn)
            start = time.perf_counter()
            policy.predict_chunk(seen)
            middle = time.perf_counter()
            client.send(pack(seen))
            answer = unpack(client.recv(decode=False))
            end = time.perf_counter()
            if turn:
                here.append(middle - start)
                there.append(end - middle)
                beside.append(end - middle - answer["policy_timing"]["infer_ms"] / 1000)
    # The lowest tenth shows the time while no other program uses the cores.
    (quick, in_process), (quick_served, served), (quick_beside, median_beside) = (
        1000 * np.percentile(seconds, [10, 50]) for seconds in (here, there, beside)
    )
    return {
        "in_process_ms": round(in_process, 2),
        "served_ms": round(served, 2),
        "added_ms": round(served - in_process, 2),
        "beside_the_policy_ms": round(median_beside, 2),
        "in_process_p10_ms": round(quick, 2),
        "added_p10_ms": round(quick_served - quick, 2),
        "beside_the_policy_p10_ms": round(quick_beside, 2),
    }


async def _many_clients(url: str, clients: int, repeats: int) -> dict[str, float]:
    """Let each client send its next request as soon as it gets an answer."""
    from websockets.asyncio.client import connect

    from actionprior.serving.wire import pack, unpack

    latencies: list[float] = []
    batches: list[int] = []

    async def drive(seed: int) -> None:
        message = pack(_observation(seed))
        async with connect(url, compression=None) as client:
            await client.recv()
            for turn in range(repeats + 1):
                start = time.perf_counter()
                await client.send(message)
                answer = unpack(await client.recv(decode=False))
                if turn:
                    latencies.append(time.perf_counter() - start)
                    batches.append(answer["server_timing"]["batch_size"])

    start = time.perf_counter()
    await asyncio.gather(*(drive(seed) for seed in range(clients)))
    seconds = time.perf_counter() - start
    return {
        "clients": clients,
        "chunks_per_s": round(clients * (repeats + 1) / seconds, 1),
        "median_ms": round(1000 * statistics.median(latencies), 1),
        "p99_ms": round(1000 * float(np.percentile(latencies, 99)), 1),
        "mean_batch": round(statistics.mean(batches), 2),
    }


def main(args: list[str] | None = None) -> None:
    """Run the benchmark: see :func:`bench_serve` for its options."""
    run(bench_serve, "serve", args)


if __name__ == "__main__":
    main()
