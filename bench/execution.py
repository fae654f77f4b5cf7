"""Measure how integration steps and real-time chunking change a policy's chunks and success."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from actionprior.batch import Committed, Observation
from actionprior.errors import UserError
from actionprior.files.atomic import write_text
from bench.command_line import run
from bench.timing import median_seconds

if TYPE_CHECKING:
    from actionprior.chunk_planner import ChunkPolicy
    from actionprior.networks.policy_network import PolicyNetwork

SETTINGS = [
    *(("euler", steps) for steps in (1, 2, 3, 5, 10)),
    *(("midpoint", steps) for steps in (1, 2, 5)),
    *(("rk4", steps) for steps in (1, 2)),
]
CALLS = {"euler": 1, "midpoint": 2, "rk4": 4}
COMPARED = 200  # observations on which chunks are compared


class Setting(NamedTuple):
    """Measurements of one way to integrate or to execute."""

    name: str
    decoder_calls: int
    chunk_ms: float
    error: float
    successes: int
    rollouts: int


class RecordedChunks:
    """Policy that records the observations it gets."""

    def __init__(self, network: "PolicyNetwork") -> None:
        self.network = network
        self.embodiments = network.embodiments
        self.chunk_length, self.history_length = network.chunk_length, network.history_length
        self.inputs: list[tuple[Observation, Tensor]] = []

    def predict_chunk(
        self, observation: Observation, noise_BHA: Tensor, committed: Committed | None = None
    ) -> Tensor:
        """Predict as the network does."""
        if len(self.inputs) < COMPARED:
            self.inputs.append((observation, noise_BHA))
        return self.network.predict_chunk(observation, noise_BHA, committed)


class UnheldChunks(RecordedChunks):
    """Policy that ignores the actions under way: a delay without real-time chunking."""

    def predict_chunk(
        self, observation: Observation, noise_BHA: Tensor, committed: Committed | None = None
    ) -> Tensor:
        """Predict as the network does, and replace the first steps afterwards."""
        chunk_BHA = self.network.predict_chunk(observation, noise_BHA)
        assert committed is not None
        known_BH = torch.arange(self.chunk_length) < committed.steps_B[:, None]
        return torch.where(known_BH[..., None], committed.action_BHA, chunk_BHA)


def bench_execution(
    ckpt_path: str,
    env_ids: list[str],
    embodiment: str = "",
    rollouts: int = 50,
    execute_steps: int = 2,
    delays: list[int] | None = None,
    seed: int = 990_000_000,
    page: str = "",
) -> None:
    """Roll a policy out with several integrators, numbers of steps and delays, on paired scenes.

    Args:
        ckpt_path: Stage-2 checkpoint or exported folder.
        env_ids: Environments of the suite.
        embodiment: Robot of the environments; by default the policy's first robot.
        rollouts: Rollouts per environment and setting; all settings share scenes and flow noise.
        execute_steps: Actions executed per chunk.
        delays: Steps that a plan takes; each is measured with and without real-time chunking. If
            the longest delay exceeds `execute_steps`, that many steps are executed per chunk.
        seed: Seed of the first scene.
        page: Markdown file to write.

    Raises:
        UserError: ``env_ids`` is empty, or the policy cannot be loaded or rolled out.
    """
    from actionprior.checkpoints.folder import load_policy_network
    from actionprior.chunk_planner import check_execution

    torch.set_num_threads(1)
    if not env_ids:
        raise UserError("env_ids is empty; name at least one environment")
    network, _ = load_policy_network(ckpt_path)
    robot = embodiment or network.embodiments[0].name

    slower = max([execute_steps, *(delays or [])])
    check_execution(slower, max(delays or [0]), network.chunk_length)

    def measured(
        name: str, policy: "RecordedChunks", calls: int, steps: int, delay: int = 0
    ) -> Setting:
        done, count = _successes(policy, env_ids, robot, rollouts, steps, delay, seed)
        error, chunk_ms = _distance(reference, network, inputs)
        row = Setting(name, calls, chunk_ms, error, done, count)
        print(row, flush=True)
        return row

    inputs, reference = _reference(network, env_ids, robot, execute_steps, seed)
    integration = []
    for method, steps in SETTINGS:
        network.integrator, network.integration_steps = method, steps  # type: ignore[assignment]  # a literal
        calls = CALLS[method] * steps
        integration.append(
            measured(f"{method}, {steps}", RecordedChunks(network), calls, execute_steps)
        )
    network.integrator, network.integration_steps = "euler", 10
    execution = []
    if delays:
        execution.append(measured("none", RecordedChunks(network), 10, slower))
    for delay in delays or []:
        for name, policy in (
            ("held", RecordedChunks(network)),
            ("not held", UnheldChunks(network)),
        ):
            execution.append(measured(f"{delay}, {name}", policy, 10, slower, delay))
    if page:
        scenes = f"{len(env_ids)} tasks, {rollouts} scenes each"
        _write(Path(page), integration, execution, scenes, execute_steps, slower)
    result = {"integration": [r._asdict() for r in integration]}
    print("RESULT " + json.dumps(result | {"delay": [r._asdict() for r in execution]}), flush=True)


def _successes(
    policy: "ChunkPolicy",
    env_ids: Sequence[str],
    robot: str,
    rollouts: int,
    execute_steps: int,
    delay: int,
    seed: int,
) -> tuple[int, int]:
    import actionprior.envs  # noqa: F401  # registers the suite
    from actionprior.rollout import ObservationMap, rollout

    cameras = next(e.cameras for e in policy.embodiments if e.name == robot)
    where = ObservationMap(images=dict.fromkeys(cameras, "image"))
    results = [
        rollout(
            policy,
            env_id,
            rollouts,
            where,
            robot,
            seed=seed,
            num_envs=10,
            execute_steps=execute_steps,
            delay_steps=delay,
        )
        for env_id in env_ids
    ]
    return sum(e.success for r in results for e in r.episodes), rollouts * len(env_ids)


def _reference(
    network: "PolicyNetwork", env_ids: Sequence[str], robot: str, execute_steps: int, seed: int
) -> tuple[list[tuple[Observation, Tensor]], list[Tensor]]:
    """Return the policy's inputs in a few scenes, and its finely integrated chunks."""
    recorded = RecordedChunks(network)
    _successes(recorded, env_ids, robot, 2, execute_steps, 0, seed)
    trained: Any = network.integrator, network.integration_steps
    network.integrator, network.integration_steps = "rk4", 32
    chunks = [network.predict_chunk(*one_input) for one_input in recorded.inputs]
    network.integrator, network.integration_steps = trained
    return recorded.inputs, chunks


def _distance(
    reference: list[Tensor], network: "PolicyNetwork", inputs: list[tuple[Observation, Tensor]]
) -> tuple[float, float]:
    """Return the mean distance to the reference, in spans of each action, and milliseconds."""
    spans_EA = network.prior.normalizer.action_range_EA
    distances = []
    for (observation, noise_BHA), exact_BHA in zip(inputs, reference, strict=True):
        robots_B = network.prior_rows(observation.embodiment_B)
        mask_B1A = network.prior.normalizer.action_mask_EA[robots_B][:, None]
        apart_BHA = (network.predict_chunk(observation, noise_BHA) - exact_BHA).abs()
        apart_BHA = apart_BHA / spans_EA[robots_B][:, None]
        distances.append(apart_BHA[mask_B1A.expand_as(apart_BHA)].mean())
    seconds = median_seconds(5, lambda: network.predict_chunk(*inputs[0]))[0]
    return float(torch.stack(distances).mean()), 1000 * seconds


def _write(
    page: Path,
    integration: list[Setting],
    execution: list[Setting],
    scenes: str,
    execute_steps: int,
    slower: int,
) -> None:
    from actionprior.rollout import wilson_interval

    def table(rows: list[Setting], first: str) -> str:
        lines = [f"| {first} | decoder calls | chunk [ms] | distance [%] | success [%] | 95 % |"]
        lines.append("|---|--:|--:|--:|--:|--:|")
        for r in rows:
            low, high = (100 * bound for bound in wilson_interval(r.successes, r.rollouts))
            lines.append(
                f"| {r.name} | {r.decoder_calls} | {r.chunk_ms:.1f} | {100 * r.error:.2f} | "
                f"{100 * r.successes / r.rollouts:.1f} | {low:.1f} to {high:.1f} |"
            )
        return "\n".join(lines)

    text = [
        "# How chunks are integrated and executed",
        f"Written by `python -m bench.execution`: {scenes}, the same scenes and noise in all rows.",
        f"Of each chunk {execute_steps} steps are executed. The distance is the mean absolute "
        "distance to finely integrated chunks (rk4, 32 steps), in percent of each action's half "
        "span (1 % to 99 %). Milliseconds are those of one machine, and rough.",
        table(integration, "integrator, steps"),
    ]
    if execution:
        text += [
            "## A plan takes time",
            "Here the world continues for some steps while a chunk is planned, and of each chunk "
            f"{slower} steps are executed.",
            "- **Held:** the policy gets the actions under way, and its chunk continues them "
            "(real-time chunking).\n"
            "- **Not held:** its chunk takes over without knowing them.",
            table(execution, "delay [steps]"),
        ]
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text("\n\n".join(text) + "\n", page)


def main(args: list[str] | None = None) -> None:
    """Run the benchmark: see :func:`bench_execution` for its options."""
    run(bench_execution, "execution", args)


if __name__ == "__main__":
    main()
