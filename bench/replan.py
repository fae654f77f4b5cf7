"""Measure how long a policy takes to re-plan, and the shares of its parts."""

import json

import torch

from bench.command_line import run
from bench.timing import median_seconds


def bench(repeats: int = 7, threads: int = 1) -> None:
    """Time a re-plan at the sizes of `recipes/finetune.yaml`, and its parts.

    Args:
        repeats: Number of measurements, of which the median is reported.
        threads: CPU threads of torch.
    """
    torch.set_num_threads(threads)
    print("RESULT " + json.dumps(_replan(repeats)))


def _replan(repeats: int) -> dict[str, float]:
    """Measure the latency, and the shares of decoder and history encoder."""
    from actionprior.batch import Observation, TrajectoryBatch
    from actionprior.envs.embodiments import suite_embodiment
    from actionprior.networks.motion_prior import PriorArchitecture
    from actionprior.networks.trunks import SmallTrunk
    from actionprior.training.settings import FusionSize
    from actionprior.vla import VLAModule

    architecture = PriorArchitecture(width=96, decoder_sees_state=True)
    robot = suite_embodiment("panda").to_dict()
    policy = VLAModule(
        [robot],
        SmallTrunk(grid=2),
        architecture=architecture,
        use_prior=False,
        fusion=FusionSize(96),
    ).eval()
    past = TrajectoryBatch(
        torch.zeros(1, 15, 37),
        torch.zeros(1, 15, 74),
        torch.zeros(1, 37),
        torch.ones(1, 15, dtype=torch.bool),
        torch.zeros(1, dtype=torch.int64),
    )
    observation = Observation(
        torch.zeros(1, 1, 3, 64, 64, dtype=torch.uint8),
        torch.ones(1, 1, dtype=torch.bool),
        ["push the red cube to the blue pad"],
        torch.zeros(1, 74),
        torch.zeros(1, 37),
        past,
        past.embodiment_B,
    )
    noise_BHA, z_BZ = torch.randn(1, 15, 37), torch.randn(1, architecture.latent_width)
    with torch.no_grad():
        replan, history, decoder = median_seconds(
            repeats,
            lambda: policy.predict_chunk(observation, noise_BHA),
            lambda: policy.prior.encode(past),
            lambda: policy.prior.sample_relative(
                z_BZ, observation.state_BS, past.embodiment_B, noise_BHA, steps=10
            ),
        )
    return {
        "replan_ms": round(1000 * replan, 1),
        "decoder_share": round(decoder / replan, 3),
        "history_share": round(history / replan, 3),
    }


def main(args: list[str] | None = None) -> None:
    """Run the benchmark: see :func:`bench` for its options."""
    run(bench, "replan", args)


if __name__ == "__main__":
    main()
