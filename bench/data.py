"""Measure how fast data reach the models, as ratios in one run."""

import json
import logging
import os
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

from actionprior.data.column_store import open_store, write_store
from actionprior.data.frame_ranges import Spans
from actionprior.data.pseudo_random import IntArray
from actionprior.data.sampling import EpochOrder
from actionprior.data.store import Around, Recording, TrajectoryStore
from actionprior.embodiment import Embodiment
from actionprior.errors import UserError
from bench.command_line import run
from bench.timing import median_seconds
from data_modules import ImageSettings, LeRobotEmbodiment, LeRobotVLA, SimulatedTrajectories

STEPS = 15  # length of the chunk, and of the history before it
AT_ONCE = 1 << 18  # frames that are generated, or read for the first time, in one piece

LABELS = {
    "stage1_windows_per_s": "Stage 1, windows of 15 + 15 steps per second",
    "stage1_vs_lerobot": "  over LeRobotDataset with delta_timestamps in a DataLoader",
    "stage1_vs_gather_limit": "  over a bare NumPy gather of the same windows from memory",
    "frames": "Frames of the large store",
    "scaling_1e5_to_1e8": "  windows per second there, over those at 10^5",
    "startup_s_1e8": "  seconds to the first batch",
    "memory_mb_1e5": "  memory without mapped pages at 10^5 [MB]",
    "memory_mb_1e8": "  the same in the large store [MB]",
    "data_wait_share": "Stage 1's training, share of the time that it waits for data",
    "stage2_observations_per_s": "Stage 2, observations per second from the frame cache, 224 px",
    "stage2_vs_lerobot_video": "  over LeRobotDataset, decoding video",
}


def bench_data(
    repeats: int = 15,
    batch_size: int = 2048,
    frames: int = 100_000_000,
    episodes: int = 50,
    folder: str = "outputs",
) -> None:
    """Compare the project's data loading with LeRobot's and with a bare NumPy gather.

    The last line is `RESULT` and JSON. `stage1_windows_per_s` counts windows of 15 past and 15
    future steps. `stage1_vs_lerobot` compares with LeRobot's loader on the same dataset, and
    `stage1_vs_gather_limit` with a bare NumPy gather of the same windows from memory.
    `scaling_1e5_to_1e8` is the speed at `frames` over that at 10^5, and `startup_s_1e8` the time to
    the first batch of the large store. `memory_mb_1e5` and `memory_mb_1e8` are the largest memory
    without mapped pages (Linux). `stage2_vs_lerobot_video` compares images from the cache with
    LeRobot's video, and `data_wait_share` is the share of Stage 1's training that waits.

    Args:
        repeats: Number of measurements, of which the median is reported.
        batch_size: Windows per batch.
        frames: Frames in the large store, which takes 76 bytes per frame on disk.
        episodes: Episodes per task in the small dataset, which the simulator records.
        folder: Folder for temporary data.

    Raises:
        UserError: The folder has no room for the large store.
    """
    torch.set_num_threads(1)
    os.environ["SVT_LOG"] = "1"  # the video encoder prints errors only
    Path(folder).mkdir(parents=True, exist_ok=True)
    needed, free = 76 * frames + 2**30, shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; "
            "choose another folder, or fewer frames"
        )
    work = Path(tempfile.mkdtemp(prefix="bench-data-", dir=folder))
    try:
        logging.disable(logging.WARNING)  # lerobot logs at length that torchcodec does not load
        data = _small(work, episodes)
        result = _stage_one(data, repeats, batch_size)
        result |= _scaling(work, repeats, batch_size, frames)
        result |= _stage_two(work, repeats)
        result |= _waiting(work, episodes)
    finally:
        shutil.rmtree(work)
        logging.disable(logging.NOTSET)
    for name, label in LABELS.items():
        if name in result:
            print(f"{label:<68} {result[name]:>12,}")
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
    """Measure windows of 15 past and 15 future steps, from one image-free dataset on disk.

    The bare gather reads the same windows of the unified spaces from memory, in the fastest way
    that NumPy has. It computes no masks and no references, and reads beyond the end of an episode.
    """
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    store, order = data.frames.store, EpochOrder([data.frames.train])
    unified = store.future(torch.arange(len(store)), 1)
    action_NA, state_NS = unified.action_BHA[:, 0].numpy(), unified.state_BHS[:, 0].numpy()
    draws = [_draw(order, batch_size) for _ in range(repeats + 1)]
    for_gather, for_limit = iter(draws), iter(draws)

    def gather() -> object:
        return store.around(torch.from_numpy(next(for_gather)), STEPS, STEPS)

    def limit() -> object:
        at = np.clip(next(for_limit)[:, None] + np.arange(-STEPS, STEPS), 0, len(store) - 1)
        return action_NA.take(at, 0), state_NS.take(at, 0)

    steps = [i / data.embodiments[0].control_hz for i in range(-STEPS, STEPS)]
    dataset = LeRobotDataset(
        "bench/panda",
        root=data.sets[0].root,
        delta_timestamps={"action": steps, "observation.state": steps},
    )
    few = 64
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=few, shuffle=True)
    lerobot, windows, gathered, bare = median_seconds(
        repeats,
        lambda: next(iter(loader)),
        partial(_batch, store, order, batch_size),
        gather,
        limit,
    )
    return {
        "stage1_windows_per_s": round(batch_size / windows),
        "stage1_vs_lerobot": round(batch_size / windows / (few / lerobot), 1),
        "stage1_vs_gather_limit": round(bare / gathered, 3),
    }


def _draw(order: EpochOrder, batch_size: int) -> IntArray:
    first = int(np.random.default_rng().integers(len(order)))
    return order.frames(np.arange(first, first + batch_size) % len(order))


def _scaling(work: Path, repeats: int, batch_size: int, frames: int) -> dict[str, float]:
    """Measure the same windows from a generated store of 10^5 frames and from a large one."""
    from actionprior.envs.embodiments import suite_embodiment

    robot: Embodiment = suite_embodiment("panda")
    sources: list[Callable[[], Around]] = []
    memory: dict[str, float] = {}
    startup = 0.0
    for name, size in (("1e5", 100_000), ("1e8", frames)):
        _generate(work / name, robot, size)
        start = time.perf_counter()
        columns = open_store(work / name).columns
        recording = Recording(columns["action"], columns["state"], columns["length"][:])
        store = TrajectoryStore([robot], [(0, recording)])
        batch = partial(_batch, store, EpochOrder([Spans(store.start_E, store.stop_E)]), batch_size)
        batch()
        startup = time.perf_counter() - start
        for first in range(0, size, AT_ONCE):  # warm up: verify checksums, fill the page cache
            for column in (recording.action_Na, recording.state_Ns):
                column[first : first + AT_ONCE].max()
        sources.append(batch)
        if Path("/proc/self/status").exists():
            memory[f"memory_mb_{name}"] = max(_anonymous_mb(batch()) for _ in range(20))
    small, large = median_seconds(3 * repeats, *sources)
    return {
        "scaling_1e5_to_1e8": round(small / large, 3),
        "startup_s_1e8": round(startup, 3),
        "frames": frames,
        **memory,
    }


def _generate(folder: Path, robot: Embodiment, size: int) -> None:
    widths = {"action": len(robot.action_features), "state": len(robot.state_features)}
    rng = np.random.default_rng(0)
    made = {k: rng.random((AT_ONCE, width), dtype=np.float32) for k, width in widths.items()}
    with write_store(folder) as store:
        for first in range(0, size, AT_ONCE):
            store.append({k: rows[: size - first] for k, rows in made.items()})
        store.append({"length": np.diff([*range(0, size, 250), size])})


def _batch(store: TrajectoryStore, order: EpochOrder, batch_size: int) -> Around:
    return store.around(torch.from_numpy(_draw(order, batch_size)), STEPS, STEPS)


def _anonymous_mb(_: Around) -> float:
    """Return this process's memory without mapped files [MB], while it holds a batch."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (anonymous,) = [line for line in lines if line.startswith("RssAnon")]
    return round(int(anonymous.split()[1]) / 1024, 1)


def _stage_two(work: Path, repeats: int) -> dict[str, float]:
    """Measure complete observations: the project's frame cache against LeRobot's video."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from actionprior.envs.embodiments import suite_embodiment
    from actionprior.envs.recording import CAMERA_KEY, record_demonstrations

    root = work / "video"
    record_demonstrations(
        "actionprior/PandaReach-v0", root, episodes_per_task=10, image_size=224, use_videos=True
    )
    robot = LeRobotEmbodiment(**vars(suite_embodiment("panda")), roots=[str(root)])
    robot.cameras = [CAMERA_KEY]
    images = ImageSettings(cache_dir=str(work / "cache"))
    data = LeRobotVLA([robot], batch_size=64, images=images, val_fraction=0.0)
    data.prepare_data()
    data.setup("fit")
    batches = iter(_endless(data.train_dataloader))
    steps = [i / robot.control_hz for i in range(STEPS)]
    dataset = LeRobotDataset(
        "bench/video",
        root=root,
        delta_timestamps={"action": steps, "observation.state": steps},
        video_backend="pyav",
    )
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=16, shuffle=True)
    lerobot, cached = median_seconds(repeats, lambda: next(iter(loader)), lambda: next(batches))
    return {
        "stage2_observations_per_s": round(64 / cached),
        "stage2_vs_lerobot_video": round(64 / cached / (16 / lerobot), 1),
    }


def _endless(loader: Callable[[], DataLoader[Any]]) -> Iterator[Any]:
    while True:
        yield from loader()


def _waiting(work: Path, episodes: int, steps: int = 60) -> dict[str, float]:
    """Measure the share of Stage 1's training that waits for batches."""
    from lightning import Trainer
    from lightning.pytorch.profilers import SimpleProfiler

    from actionprior import MotionPriorModule
    from actionprior.networks.motion_prior import PriorArchitecture

    data = _small(work, episodes, batch_size=96)
    module = MotionPriorModule(
        [e.to_dict() for e in data.embodiments], PriorArchitecture(width=96, latent_width=64)
    )
    profiler = SimpleProfiler(dirpath=work, filename="waiting")  # a file instead of the screen
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


def main(args: list[str] | None = None) -> None:
    """Run the benchmark: see :func:`bench_data` for its options."""
    run(bench_data, "data", args)


if __name__ == "__main__":
    main()
