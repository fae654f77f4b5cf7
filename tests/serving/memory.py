"""Measure the memory of a served policy: ``python -m tests.serving.memory --requests 20000``.

The policy has the sizes of ``recipes/stack/vla.yaml``, untrained. Clients send correct requests,
with and without history, and leave after some hundred. Now and then one sends nonsense. Memory is
that of the server's process after a warm-up and at the end. The last line is ``RESULT {json}``; the
exit code is 1 if memory grew by 1 % or more.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from actionprior.checkpoints.folder import write_folder
from actionprior.networks.motion_prior import MotionPrior, PriorArchitecture
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.networks.trunks import SmallTrunk
from tests.helpers.robots import delta_arm, windows
from tests.helpers.serving_client import Client
from tests.helpers.serving_process import Served, served
from tests.serving.fuzz import resident_mb

ARM = delta_arm()
SIZE = (120, 160)
PER_CLIENT = 400
MOST_GROWTH = 0.01


def small_policy() -> PolicyNetwork:
    """Build an untrained policy of the sizes of ``recipes/stack/vla.yaml``."""
    prior = MotionPrior([ARM], PriorArchitecture(width=96, latent_width=64))
    prior.normalizer.fit(windows([ARM], 40, prior.architecture.chunk_length))
    return PolicyNetwork([ARM], SmallTrunk(image_size=64, grid=4), prior, width=96).eval()


def request(draw: np.random.Generator, client_step: int) -> dict[str, Any]:
    """Make a request; images, instruction and history differ from all others."""
    features = len(ARM.state_features), len(ARM.action_features)
    message: dict[str, Any] = {
        ARM.state_key: draw.uniform(-1, 1, features[0]).astype(np.float32),
        "prompt": f"reach for thing {draw.integers(10**9)}",
        **{c: draw.integers(0, 255, (*SIZE, 3), np.uint8) for c in ARM.cameras},
    }
    if client_step:
        count = int(draw.integers(1, 20))
        message["states"] = draw.uniform(-1, 1, (count, features[0])).astype(np.float32)
        message["executed"] = draw.uniform(-1, 1, (count, features[1])).astype(np.float32)
    elif draw.random() < 0.5:
        message["reset"] = int(draw.integers(1000))
    return message


def send(server: Served, requests: int, draw: np.random.Generator) -> int:
    """Send requests from clients that come and go, and return the number of refused ones."""
    refused = 0
    for start in range(0, requests, PER_CLIENT):
        client = Client(server.host, server.port)
        for step in range(min(PER_CLIENT, requests - start)):
            if draw.random() < 0.01:
                try:
                    client.ask(draw.bytes(1000))
                except RuntimeError:
                    refused += 1
            else:
                client.infer(request(draw, step))
        client.socket.close()
    return refused


def run(requests: int, seed: int = 0) -> dict[str, Any]:
    """Send requests in ten parts after a warm-up of as many as a part has."""
    draw = np.random.default_rng(seed)
    part = max(1, requests // 10)
    with tempfile.TemporaryDirectory() as folder:
        write_folder(small_policy(), {}, Path(folder))
        words = ("--max_rate=1e9", "--threads=1", "--integration_steps=2")
        with served(Path(folder), *words) as server:
            refused = send(server, part, draw)
            memory, start = [resident_mb(server.process.pid)], time.monotonic()
            for done in range(part, part * 11, part):
                refused += send(server, part, draw)
                memory.append(resident_mb(server.process.pid))
                print(f"{done} requests, {memory[-1]:.1f} MB", flush=True)
    return {
        "requests": 10 * part,
        "refused": refused,
        "seconds": round(time.monotonic() - start),
        "memory_mb": [round(value, 1) for value in memory],
        "growth": round(memory[-1] / memory[0] - 1, 5),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    result = run(options.requests, options.seed)
    print("RESULT " + json.dumps(result))
    sys.exit(result["growth"] >= MOST_GROWTH)
