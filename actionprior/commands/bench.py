"""Measure, as ratios in one run, what speed is claimed for: windows a second, re-plan latency."""

import json
import tempfile
from pathlib import Path

import torch

from actionprior.commands._timing import median_seconds


def bench(repeats: int = 7, batch_size: int = 256, threads: int = 1) -> None:
    """Compare our windows with lerobot's, and the decoder's share of a re-plan.

    Args:
        repeats: of each measurement; medians are told.
        batch_size: windows a batch.
        threads: torch's CPU threads.
    """
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        windows = _windows(Path(folder), repeats, batch_size)
    print("RESULT " + json.dumps(windows | _replan(repeats)))


def _windows(folder: Path, repeats: int, batch_size: int) -> dict[str, float]:
    """Windows of 15 states and actions a second, from the same dataset on disk."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from data_modules import SimulatedTrajectories

    data = SimulatedTrajectories(
        ["panda"], episodes_per_task=5, data_dir=str(folder), batch_size=batch_size
    )
    data.prepare_data()
    data.setup("fit")
    ours, frames = data.windows(training=True), list(range(batch_size))
    steps = [i / data.embodiments[0].control_hz for i in range(data.chunk_length)]
    theirs = LeRobotDataset(
        "local/panda",
        root=data.sets[0].root,
        delta_timestamps={"action": steps, "observation.state": steps},
    )
    few = frames[:32]
    rate = batch_size / median_seconds(lambda: ours.__getitems__(frames), repeats)
    lerobot_rate = len(few) / median_seconds(lambda: [theirs[i] for i in few], repeats)
    return {
        "windows_per_s": round(rate),
        "lerobot_windows_per_s": round(lerobot_rate),
        "windows_ratio": round(rate / lerobot_rate, 1),
    }


def _replan(repeats: int) -> dict[str, float]:
    """Latency of one re-plan at the sizes of ``recipes/finetune.yaml``, by its parts."""
    from actionprior.batch import Observation, TrajectoryBatch
    from actionprior.envs.embodiments import suite_embodiment
    from actionprior.networks.motion_prior import PriorArchitecture
    from actionprior.networks.trunks import SmallTrunk
    from actionprior.vla import VLAModule

    architecture = PriorArchitecture(width=96, decoder_sees_state=True)
    robot = suite_embodiment("panda").to_dict()
    policy = VLAModule(
        [robot], SmallTrunk(grid=2), architecture=architecture, use_prior=False, width=96
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
        whole = median_seconds(lambda: policy.predict_chunk(observation, noise_BHA), repeats)
        history = median_seconds(lambda: policy.prior.encode(past), repeats)
        decoder = median_seconds(
            lambda: policy.prior.sample_relative(
                z_BZ, observation.state_BS, past.embodiment_B, noise_BHA, policy.integration_steps
            ),
            repeats,
        )
    return {
        "replan_ms": round(1000 * whole, 1),
        "decoder_share": round(decoder / whole, 3),
        "history_share": round(history / whole, 3),
    }


def main(args: list[str]) -> None:
    """Run the verb: see :func:`bench` for its options."""
    from jsonargparse import auto_cli

    auto_cli(bench, args=args, prog="lightning bench")
