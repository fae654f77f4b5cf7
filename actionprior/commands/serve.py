"""Let robots act from a policy over the network, with openpi's client."""

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Any, Literal

from actionprior.errors import UserError, missing_extra

if TYPE_CHECKING:
    from actionprior.serving import PolicyServer

Precision = Literal["float32", "bfloat16", "float16"]


def serve(
    ckpt_path: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    embodiment: str = "",
    device: str = "cpu",
    precision: Precision = "float32",
    compile: bool = False,
    integration_steps: int = 0,
    integrator: Literal["euler", "midpoint", "rk4"] | None = None,
    threads: int = 0,
    max_sessions: int = 32,
    max_batch: int = 16,
    max_message_mb: int = 16,
    max_rate: float = 100.0,
    idle_timeout: float = 600.0,
    message_timeout: float = 10.0,
    trunk: str | None = None,
) -> None:
    """Answer observations with chunks of actions, until told to stop by SIGTERM or Ctrl-C.

    Clients speak openpi's websocket protocol; ``GET /healthz`` and ``GET /metrics`` are answered
    on the same port.

    Args:
        ckpt_path: a Stage-2 checkpoint or an exported folder.
        host: address to listen on. Beyond this machine (0.0.0.0), anyone who reaches it can use
            the policy: there is no authentication and no encryption.
        port: 0: any that is free.
        embodiment: which of the policy's robots; by default the only one, or the exported one.
        device: where the networks run.
        precision: of the networks' arithmetic.
        compile: run the networks through ``torch.compile``.
        integration_steps: of the flow; 0: as trained.
        integrator: of the flow; by default as trained.
        threads: torch's CPU threads; 0: as many as it likes.
        max_sessions: clients at once; further ones are refused with HTTP status 503.
        max_batch: requests that are answered at once.
        max_message_mb: size of the largest message [MiB].
        max_rate: messages a second of a client, each MiB of them counting as one more; those too
            early wait.
        idle_timeout: time without a message after which a session ends [s].
        message_timeout: time in which a message has to arrive, and an answer to be taken [s].
        trunk: Class of the policy's trunk, e.g. my.module.MyTrunk; needed if it is none of
            actionprior's.
    """
    try:
        from actionprior.serving import PolicyServer
    except ModuleNotFoundError as error:
        raise UserError(missing_extra(error.name or "websockets", "serve")) from None
    import torch

    from actionprior.commands._trunk import trunk_class
    from actionprior.policy import Policy

    if threads:
        torch.set_num_threads(threads)
    told: dict[str, Any] = {"embodiment": embodiment} if embodiment else {}
    policy = Policy.load(
        ckpt_path,
        trunk_class(trunk) if trunk else None,
        device=device,
        precision=getattr(torch, precision),
        compile=compile,
        integration_steps=integration_steps,
        integrator=integrator,
        **told,
    )
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s: %(message)s")
    server = PolicyServer(
        policy,
        host,
        port,
        max_sessions,
        max_batch,
        max_message_mb * 2**20,
        max_rate,
        idle_timeout,
        message_timeout,
    )
    asyncio.run(_until_told(server, policy.robot.name))


async def _until_told(server: "PolicyServer", robot: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with server:
        chunk = f"{server.metadata['chunk_length']} actions a chunk"
        print(f"serving {robot!r} on {server.url}, {chunk}", flush=True)
        await stop.wait()
    print("stopped", flush=True)


def main(args: list[str]) -> None:
    """Run the verb: see :func:`serve` for its options."""
    from jsonargparse import auto_cli

    auto_cli(serve, args=args, as_positional=False, prog="lightning serve")
