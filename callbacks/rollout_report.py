"""Report rollouts to loggers, video files, a JSON file and the console."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from actionprior.benchmarks import DIFFICULTY_GROUPS
from actionprior.files.atomic import write_json
from actionprior.rollout import RolloutResult, group_rates, mean_of_groups
from actionprior.rollout.video import enlarge, gif_bytes, write_mp4


def log_scalars(loggers: Iterable[Logger], metrics: dict[str, float], step: int) -> None:
    """Log metrics of a step regardless of the trainer's ``log_every_n_steps``."""
    for logger in loggers:
        logger.log_metrics(metrics, step)
        logger.save()


def log_videos(
    loggers: Iterable[Logger], tag: str, result: RolloutResult, step: int, fps: float
) -> None:
    """Write the filmed episodes to TensorBoard as ``<tag>/<env>/video_<k>``."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    # Not `file_writer`, which a finished fit closes. This method reopens it for a test.
    writers = [
        logger.experiment._get_file_writer()
        for logger in loggers
        if isinstance(logger, TensorBoardLogger)
    ]
    filmed = [episode for episode in result.episodes if episode.frames]
    for k, episode in enumerate(filmed if writers else []):
        frames = [enlarge(frame, 128) for frame in episode.frames]
        # add_video of torch.utils.tensorboard drops the video silently with moviepy 2.
        image = Summary.Image(
            height=frames[0].shape[0],
            width=frames[0].shape[1],
            colorspace=3,
            encoded_image_string=gif_bytes(frames, fps),
        )
        name = f"{tag}/{result.env_id}/video_{k}"
        for writer in writers:
            writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)
            writer.flush()


def write_files(
    results: Sequence[RolloutResult],
    rates_hz: Sequence[float],
    log_dir: str,
    tag: str,
    folder: str,
    step: int,
) -> None:
    """Write ``results.json`` and the videos to ``<log_dir>/<tag>s/<folder>/``.

    Videos are named ``<env>_<seed>_<success|failure>.mp4`` and play at the control rate.
    """
    target = Path(log_dir, f"{tag}s", folder)
    target.mkdir(parents=True, exist_ok=True)
    for result, fps in zip(results, rates_hz, strict=True):
        for episode in result.episodes:
            if episode.frames:
                outcome = "success" if episode.success else "failure"
                name = f"{result.env_id.replace('/', '_')}_{episode.seed}_{outcome}.mp4"
                write_mp4(episode.frames, target / name, fps)
    rates = [result.success_rate for result in results]
    data: dict[str, Any] = {
        "step": step,
        "success_rate": sum(rates) / len(rates),
        "environments": [result.to_dict() for result in results],
    }
    if groups := group_rates(results, DIFFICULTY_GROUPS):
        data["groups"] = [group._asdict() for group in groups]
        data["mean_of_groups"] = mean_of_groups(groups)
    write_json(data, target / "results.json")


def print_table(results: Sequence[RolloutResult]) -> None:
    """Print a table with one line per environment, and mean success rates."""
    from rich.console import Console
    from rich.table import Table

    mean = sum(result.success_rate for result in results) / len(results)
    caption = f"mean success {100 * mean:.1f} %"
    if groups := group_rates(results, DIFFICULTY_GROUPS):
        for group in groups:
            tasks = f"{group.played} of {group.size} tasks"
            caption += f"\n{group.name} {100 * group.success_rate:.1f} % ({tasks})"
        caption += f"\nmean of these groups {100 * mean_of_groups(groups):.1f} %"
    if guarded := any(result.guard_counts for result in results):
        caption += (
            "\nstate/limit/step: states far outside the training range, actions beyond the "
            "recorded limits, steps larger than any recorded"
        )
    table = Table(title="Rollouts", caption=caption)
    table.add_column("environment")
    columns = (
        "success",
        "95 % interval",
        "episodes",
        "return",
        "length",
        "jerk",
        "clipped",
        "latency",
    )
    for column in (*columns, *(["state/limit/step"] if guarded else [])):
        table.add_column(column, justify="right")
    for result in results:
        interval = result.success_interval
        table.add_row(
            result.env_id,
            f"{100 * result.success_rate:.1f} %",
            f"{100 * interval.low:.1f} - {100 * interval.high:.1f} %",
            str(len(result.episodes)),
            f"{result.mean_return:.2f}",
            f"{result.mean_length:.1f}",
            f"{result.mean_jerk:.2e}",
            f"{100 * result.clipped_share:.1f} %",
            f"{1e3 * result.median_latency_s:.1f} ms",
            *(["/".join(map(str, result.guard_counts.values())) or "-"] if guarded else []),
        )
    console = Console()
    console.width = max(console.width, 110)  # a log file's 80 columns would cut the numbers
    console.print(table)
