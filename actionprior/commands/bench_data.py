"""Measure, as ratios in one run, how fast data reach the models."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from actionprior.commands._timing import median_seconds
from actionprior.embodiment import Embodiment
from actionprior.sampling import EpochOrder
from actionprior.spans import Spans
from actionprior.trajectories import Recording, TrajectoryStore
from data_modules import LeRobotEmbodiment, LeRobotVLA, SimulatedTrajectories

STEPS = 15  # of the chunk, and of the history before it


def bench_data(
    repeats: int = 7,
    batch_size: int = 2048,
    frames: int = 100_000_000,
    episodes: int = 50,
    folder: str | None = None,
) -> None:
    """Compare our windows with lerobot's and with a bare gather, at small and at large size.

    Args:
        repeats: of each measurement; medians are told.
        batch_size: windows a batch.
        frames: of the large store, which takes 76 bytes a frame on disk.
        episodes: of each task in the small dataset, which the simulator records.
        folder: where data are made and removed again; by default a temporary one.
    """
    torch.set_num_threads(1)
    work = Path(tempfile.mkdtemp(prefix="bench-data-", dir=folder))
    try:
        data = _small(work, episodes)
        result = _stage_one(data, repeats, batch_size)
        result |= _scaling(work, repeats, batch_size, frames)
        result |= _stage_two(work, repeats)
        result |= _waiting(work, episodes)
    finally:
        shutil.rmtree(work)
    print("RESULT " + json.dumps(result))


def _small(work: Path, episodes: int, batch_size: int = 256) -> SimulatedTrajectories:
    data = SimulatedTrajectories(
        ["panda"],
        episodes_per_task=episodes,
        data_dir=str(work / "data"),
        batch_size=batch_size,
    )
    data.prepare_data()
    data.setup("fit")
    return data


def _stage_one(data: SimulatedTrajectories, repeats: int, batch_size: int) -> dict[str, float]:
    """Windows of 15 past and 15 coming steps, from one image-free dataset on disk."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    store, order = data.frames.store, EpochOrder([data.frames.train])
    frames = order.frames(np.arange(batch_size) % len(order))
    ours = batch_size / median_seconds(lambda: _both(store, order, batch_size), repeats)
    unified = store.future(torch.arange(len(store)), 1)
    action_NA, state_NS = unified.action_BHA[:, 0].numpy(), unified.state_BHS[:, 0].numpy()
    at = np.clip(frames[:, None] + np.arange(-STEPS, STEPS), 0, len(store) - 1)
    limit = batch_size / median_seconds(lambda: (action_NA[at], state_NS[at]), repeats)
    steps = [i / data.embodiments[0].control_hz for i in range(-STEPS, STEPS)]
    theirs = LeRobotDataset(
        "bench/panda",
        root=data.sets[0].root,
        delta_timestamps={"action": steps, "observation.state": steps},
    )
    few = 64
    loader: DataLoader[Any] = DataLoader(theirs, batch_size=few, shuffle=True)
    lerobot = few / median_seconds(lambda: next(iter(loader)), repeats)
    return {
        "stage1_windows_per_s": round(ours),
        "stage1_vs_lerobot": round(ours / lerobot, 1),
        "stage1_vs_gather_limit": round(ours / limit, 3),
    }


def _both(store: TrajectoryStore, order: EpochOrder, batch_size: int) -> None:
    first = np.random.default_rng().integers(0, max(1, len(order) - batch_size))
    frames_B = torch.from_numpy(order.frames(np.arange(first, first + batch_size)))
    store.future(frames_B, STEPS)
    store.history(frames_B, STEPS)


def _scaling(work: Path, repeats: int, batch_size: int, frames: int) -> dict[str, float]:
    """The same windows from a made-up store of 10^5 frames and from a large one."""
    from actionprior.column_store import open_store, write_store
    from actionprior.envs.embodiments import suite_embodiment

    robot: Embodiment = suite_embodiment("panda")
    rates, startup = {}, 0.0
    for size in (100_000, frames):
        with write_store(work / "store") as made:
            for first in range(0, size, 100_000):
                rows = min(100_000, size - first)
                made.append(
                    {
                        "action": np.zeros((rows, len(robot.action_features)), dtype=np.float32),
                        "state": np.zeros((rows, len(robot.state_features)), dtype=np.float32),
                    }
                )
            made.append({"length": np.full(size // 250, 250)})
        start = time.perf_counter()
        columns = open_store(work / "store").columns
        recording = Recording(columns["action"], columns["state"], columns["length"][:])
        store = TrajectoryStore([robot], [(0, recording)])
        order = EpochOrder([Spans(store.start_E, store.stop_E)])
        _both(store, order, batch_size)
        startup = time.perf_counter() - start
        columns["action"][:], columns["state"][:]  # warm: checked, and in the page cache
        rates[size] = batch_size / median_seconds(
            partial(_both, store, order, batch_size), 3 * repeats
        )
    return {
        "scaling_1e5_to_1e8": round(rates[frames] / rates[100_000], 3),
        "startup_s_1e8": round(startup, 2),
        "frames": frames,
    }


def _stage_two(work: Path, repeats: int) -> dict[str, float]:
    """Observations with image, instruction, history and chunk: our frame cache, their video."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from actionprior.envs.embodiments import suite_embodiment
    from actionprior.envs.recording import CAMERA_KEY, record_demonstrations

    root = work / "video"
    record_demonstrations(
        "actionprior/PandaReach-v0", root, episodes_per_task=10, image_size=224, use_videos=True
    )
    robot = LeRobotEmbodiment(**vars(suite_embodiment("panda")), roots=[str(root)])
    robot.cameras = [CAMERA_KEY]
    data = LeRobotVLA([robot], batch_size=64, cache_dir=str(work / "cache"), val_fraction=0.0)
    data.prepare_data()
    data.setup("fit")
    ours = iter(_endless(data.train_dataloader))
    rate = 64 / median_seconds(lambda: next(ours), 5 * repeats)
    steps = [i / robot.control_hz for i in range(STEPS)]
    theirs = LeRobotDataset(
        "bench/video",
        root=root,
        delta_timestamps={"action": steps, "observation.state": steps},
        video_backend="pyav",
    )
    loader: DataLoader[Any] = DataLoader(theirs, batch_size=16, shuffle=True)
    lerobot = 16 / median_seconds(lambda: next(iter(loader)), repeats)
    return {
        "stage2_observations_per_s": round(rate),
        "stage2_vs_lerobot_video": round(rate / lerobot, 1),
    }


def _endless(loader: Callable[[], DataLoader[Any]]) -> Iterator[Any]:
    while True:
        yield from loader()


def _waiting(work: Path, episodes: int, steps: int = 60) -> dict[str, float]:
    """The share of Stage 1's training that is spent on waiting for batches."""
    from lightning import Trainer
    from lightning.pytorch.profilers import SimpleProfiler

    from actionprior import MotionPriorModule
    from actionprior.networks.motion_prior import PriorArchitecture

    data = _small(work, episodes, batch_size=96)
    module = MotionPriorModule(
        [e.to_dict() for e in data.embodiments], PriorArchitecture(width=96, latent_width=64)
    )
    profiler = SimpleProfiler()
    Trainer(
        default_root_dir=work,
        accelerator="cpu",
        max_steps=steps,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        profiler=profiler,
    ).fit(module, data)
    taken = profiler.recorded_durations
    waited = sum(taken["[_TrainingEpochLoop].train_dataloader_next"])
    return {"data_wait_share": round(waited / (waited + sum(taken["run_training_batch"])), 4)}


def main(args: list[str]) -> None:
    """Run the verb: see :func:`bench_data` for its options."""
    from jsonargparse import auto_cli

    auto_cli(bench_data, args=args, prog="lightning bench-data")
