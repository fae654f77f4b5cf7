"""Fuzz a served policy: ``python -m tests.serving.fuzz --messages 1000000``.

Several clients send hostile messages and raw bytes to a server in another process. Meanwhile, a
good client compares its answers with those of the same policy in this process. The server must
answer every message with a chunk or with one sentence. The last line is ``RESULT {json}``; the exit
code is 1 if an answer was wrong or the server has ended.
"""

import argparse
import asyncio
import json
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from websockets.asyncio.client import connect

from actionprior.checkpoints.folder import write_folder
from actionprior.policy import Policy
from tests.helpers.policies import observation, tiny_network
from tests.helpers.robots import delta_arm
from tests.helpers.serving_client import Client, encode
from tests.helpers.serving_process import Served, served

ARM = delta_arm()
CLIENTS = 4
AT_ONCE = 50  # messages that a client sends before it reads the answers
TOLERANCE = 1e-5
KEYS = ["observation.state", "observation.images.front", "task", "prompt", "reset", "executed",
        "states", "committed", "__proto__", ""]  # fmt: skip
DTYPES = ["<f4", "|u1", "|O", "<U4", "|V8", "<M8[ns]", ">f8", "O8", "<c16", "{'a': 1}", "f4,f4"]
SHAPES = [[8], [1, 8], [2, 8], [3, 8], [-1], [2**40, 0], [1] * 40, 8, []]
PLAIN = [None, True, False, 0, -1, 2**64 - 1, 1e300, float("nan"), "", "x\ny", "x" * 5000]
HEADERS = [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 600,
           b"\xdb\x7f\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xd6\xff\0\0\0\0"]  # fmt: skip


class Hostile:
    """Generator of messages that no client should send."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.good = msgpack.packb(observation(ARM), default=encode)
        image = observation(ARM)["observation.images.front"].tobytes()
        self.edges = [0, self.good.index(image), self.good.index(image) + len(image)]
        self.kinds = [
            self.noise,
            self.damaged,
            self.cut,
            self.odd,
            self.odd,
            self.header,
            self.text,
        ]

    def message(self) -> bytes | str:
        return self.draw.choice(self.kinds)()

    def noise(self) -> bytes:
        return self.draw.randbytes(self.draw.randrange(200))

    def damaged(self) -> bytes:
        """Make a good message with a few changed bytes, seldom among the pixels."""
        message = bytearray(self.good)
        for _ in range(self.draw.randint(1, 8)):
            low, high = (
                (0, self.edges[1]) if self.draw.random() < 0.5 else (self.edges[2], len(message))
            )
            message[self.draw.randrange(low, high)] = self.draw.randrange(256)
        return bytes(message)

    def cut(self) -> bytes:
        return self.good[: self.draw.randrange(len(self.good))]

    def odd(self) -> bytes:
        """Make a good message with some values replaced or added."""
        message = observation(ARM)
        for _ in range(self.draw.randint(1, 3)):
            message[self.draw.choice(KEYS)] = self.value(0)
        return bytes(msgpack.packb(message, default=encode))

    def header(self) -> bytes:
        """Make a message that announces more bytes than it has."""
        return b"\x81\xa4task" + self.draw.choice(HEADERS) + self.noise()

    def text(self) -> str:
        return "".join(chr(self.draw.randrange(32, 0x2FFF)) for _ in range(20))

    def value(self, depth: int) -> Any:
        d = self.draw
        choices = [
            lambda: d.choice(PLAIN),
            lambda: {
                b"__ndarray__": True,
                b"data": d.randbytes(d.choice([0, 1, 8, 32, 64, 96])),
                b"dtype": d.choice(DTYPES),
                b"shape": d.choice(SHAPES),
            },
            lambda: np.full((d.randint(0, 13), 8), d.choice([0, 1e38, np.inf]), np.float32),
            lambda: {
                b"__npgeneric__": True,
                b"data": d.choice([1, 1e300, "x"]),
                b"dtype": d.choice(DTYPES),
            },
            lambda: [self.value(depth + 1) for _ in range(d.randrange(4))] if depth < 4 else 1,
            lambda: {d.choice(KEYS): self.value(depth + 1)} if depth < 4 else 1,
            lambda: d.randrange(1000),
        ]
        return d.choice(choices)()


class Good:
    """Client in a thread that sends only correct messages."""

    def __init__(self, server: Served, policy: Policy) -> None:
        self.expected = []
        for seed in range(20):
            policy.reset(seed)
            self.expected.append(policy.predict_chunk(observation(ARM, seed)))
        self.server = server
        self.off: list[float] = []
        self.seconds: list[float] = []
        self.ends = threading.Event()
        self.failed = ""
        self.thread = threading.Thread(target=self.drive)
        self.thread.start()

    def drive(self) -> None:
        try:
            client = Client(self.server.host, self.server.port)
            while not self.ends.wait(0.05):
                seed = len(self.off) % len(self.expected)
                start = time.perf_counter()
                answer = client.actions(observation(ARM, seed) | {"reset": seed})
                self.seconds.append(time.perf_counter() - start)
                self.off.append(float(np.abs(answer - self.expected[seed]).max()))
        except Exception as error:
            self.failed = f"{type(error).__name__}: {error}"

    def stop(self) -> None:
        self.ends.set()
        self.thread.join()


async def fuzz(
    server: Served, messages: int, seed: int, answers: Counter[str], memory: list[float]
) -> None:
    """Send all messages; count the kinds of answers, and append the server's memory [MB]."""
    url = f"ws://{server.host}:{server.port}"
    left = messages
    start = time.monotonic()

    async def send(number: int) -> None:
        nonlocal left
        hostile = Hostile(1000 * seed + number)
        async with connect(url, compression=None, max_size=None) as client:
            await client.recv()
            while left > 0:
                count = min(AT_ONCE, left)
                left -= count
                for _ in range(count):
                    await client.send(hostile.message())
                for _ in range(count):
                    answers[judged(await client.recv())] += 1
                answers["messages"] += count
                if hostile.draw.random() < 0.1:
                    await asyncio.to_thread(raw_bytes, server, hostile.draw)
                    answers["raw_connections"] += 1

    async def watch() -> None:
        while left > 0:
            await asyncio.sleep(5)
            memory.append(resident_mb(server.process.pid))
            rate = answers["messages"] / (time.monotonic() - start)
            print(
                f"{answers['messages']:>9} messages, {rate:.0f}/s, {memory[-1]:.0f} MB", flush=True
            )

    await asyncio.gather(watch(), *(send(number) for number in range(CLIENTS)))


def judged(answer: bytes | str) -> str:
    """Return the kind of an answer; ``wrong`` if no client may get such an answer."""
    if isinstance(answer, str):
        kind, right = "refused", 0 < len(answer) < 2000 and "\n" not in answer
    else:
        actions = np.frombuffer(msgpack.unpackb(answer)["actions"][b"data"], np.float32)
        kind, right = "answered", bool(np.isfinite(actions).all())
    if not right:
        print(f"wrong: {answer!r:.500}", flush=True)
    return kind if right else "wrong"


def raw_bytes(server: Served, draw: random.Random) -> None:
    """Send bytes that are not HTTP, or not a websocket after the handshake."""
    begin = (
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    try:
        with socket.create_connection((server.host, server.port), timeout=5) as one:
            one.sendall(draw.choice([b"", begin, begin[: draw.randrange(len(begin))]]))
            one.sendall(draw.randbytes(draw.randrange(2000)))
    except OSError:
        pass  # the server cut it off


def resident_mb(pid: int) -> float:
    """Return the anonymous memory of a process [MB]."""
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1000


def run(messages: int, seed: int = 0) -> dict[str, Any]:
    """Fuzz a server with a number of messages and return the counts."""
    answers: Counter[str] = Counter()
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        write_folder(tiny_network(prefix_steps=3), {}, Path(folder))
        with served(Path(folder), "--max_rate=1e9", "--threads=1") as server:
            good = Good(server, Policy(tiny_network(prefix_steps=3)))
            start = time.monotonic()
            try:
                asyncio.run(fuzz(server, messages, seed, answers, memory))
            finally:
                good.stop()
            seconds = time.monotonic() - start
            alive = server.process.poll() is None
    milliseconds = [1000 * s for s in good.seconds] or [float("nan")]
    counts = "messages", "refused", "answered", "wrong", "raw_connections"
    return {
        **{key: answers[key] for key in counts},
        "seconds": round(seconds),
        "alive": alive,
        "good_answers": len(good.off),
        "good_wrong": sum(off > TOLERANCE for off in good.off),
        "good_worst_difference": max(good.off, default=float("nan")),
        "good_median_ms": round(statistics.median(milliseconds), 1),
        "good_worst_ms": round(max(milliseconds), 1),
        "good_failed": good.failed,
        "memory_mb_first": round(memory[0]) if memory else None,
        "memory_mb_half": round(memory[len(memory) // 2]) if memory else None,
        "memory_mb_last": round(memory[-1]) if memory else None,
    }


def passed(result: dict[str, Any]) -> bool:
    """Return True if nothing went wrong."""
    right = result["good_answers"] > 0 and not result["good_wrong"] and not result["good_failed"]
    return bool(result["alive"] and right and not result["wrong"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    result = run(options.messages, options.seed)
    print("RESULT " + json.dumps(result))
    sys.exit(not passed(result))
