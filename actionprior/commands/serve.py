"""Serve a policy to robots over the network, for openpi's client."""

import asyncio
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from actionprior.commands._parser import call
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
    answer_timeout: float = 60.0,
    token_file: str | None = None,
    trunk: str | None = None,
    guard: Literal["off", "warn", "clip"] | None = None,
    guard_margin: float | None = None,
) -> None:
    """Serve a policy to robots over the network, until SIGTERM or Ctrl-C.

    Clients send observations over openpi's websocket protocol and get chunks of actions. The same
    port answers `GET /healthz` and `GET /metrics`.

    Args:
        ckpt_path: Stage-2 checkpoint or exported folder.
        host: Address to listen on. With an address beyond this machine (0.0.0.0), anyone who
            reaches it can use the policy, unless `token_file` is given; there is no encryption.
        port: Port to listen on; 0 chooses a free one.
        embodiment: Name of the robot, needed only for a policy of several robots.
        device: Device of the networks, such as cpu or cuda.
        precision: Floating-point type of the networks.
        compile: Run the networks through `torch.compile`.
        integration_steps: Integration steps of the flow; 0 selects the number used in training.
        integrator: Integrator of the flow; by default the one used in training.
        threads: CPU threads of torch; 0 keeps torch's default.
        max_sessions: Maximum number of clients; further ones get HTTP status 503.
        max_batch: Maximum number of requests in one forward pass.
        max_message_mb: Size limit of a message [MiB].
        max_rate: Messages per second and client, where each MiB counts as one more message; faster
            clients wait.
        idle_timeout: Time without a message after which a session ends [s].
        message_timeout: Time limit for receiving a message and for sending an answer [s].
        answer_timeout: Time limit for an answer of the policy [s], after which the session ends.
        token_file: File with a shared secret, which openpi's client sends as its `api_key`.
        trunk: Class of the policy's trunk, e.g. my.module.MyTrunk; needed only for a trunk of your
            own.
        guard: What happens to actions beyond the recorded limits, and to steps larger than any
            recorded; states far outside the training range are logged and counted, too. By default
            what an exported folder says, or else warn.
        guard_margin: Share of the recorded range by which limits and steps may be exceeded; by
            default what an exported folder says, or else 0.1.

    Raises:
        UserError: The policy cannot be loaded, an option is out of range, or the extra `serve` is
            not installed.
    """
    try:
        from actionprior.serving import PolicyServer
    except ModuleNotFoundError as error:
        raise UserError(missing_extra(error.name or "websockets", "serve")) from None
    import torch

    from actionprior.commands._trunk import trunk_class
    from actionprior.policy import Policy
    from actionprior.serving.access import is_loopback, read_token

    token = read_token(Path(token_file)) if token_file else ""
    if threads:
        torch.set_num_threads(threads)
    given = {"embodiment": embodiment or None, "guard": guard, "guard_margin": guard_margin}
    # What is not given is left to an exported folder, or to the policy's defaults.
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    policy = Policy.load(
        ckpt_path,
        trunk_class(trunk) if trunk else None,
        device=device,
        precision=getattr(torch, precision),
        compile=compile,
        integration_steps=integration_steps,
        integrator=integrator,
        **options,
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
        answer_timeout=answer_timeout,
        token=token,
    )
    if not is_loopback(host):
        who = "everybody who reaches it and has the token" if token else "everybody who reaches it"
        advice = "" if token else "; --token_file asks clients for a key"
        print(
            f"warning: {host} is beyond this machine: {who} can use the policy, without "
            f"encryption{advice}",
            flush=True,
        )
    asyncio.run(_serve_until_signal(server, policy.robot.name))


async def _serve_until_signal(server: "PolicyServer", robot: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with server:
        chunk = f"{server.metadata['chunk_length']} actions per chunk"
        print(f"serving {robot!r} on {server.url}, {chunk}", flush=True)
        await stop.wait()
    print("stopped", flush=True)


def main(args: list[str]) -> None:
    """Run the verb: see :func:`serve` for its options."""
    call(serve, args, "lightning serve")
