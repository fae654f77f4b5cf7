"""``--ckpt_path last``: find the undamaged checkpoint of a run with the most steps."""

import math
import pickle
import sys
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.rank_zero import rank_zero_only

from actionprior.checkpoints import keys
from actionprior.checkpoints.policy import policy_description
from actionprior.checkpoints.prior import prior_description
from actionprior.checkpoints.reading import CheckpointError
from actionprior.checkpoints.sharded import ShardedCheckpoint, read_file_or_folder
from actionprior.errors import UserError, printable

LAST = "last"


def folders(trainer: Namespace) -> list[Path]:
    """List the folders to which a run writes: its root, its checkpoints and its logs.

    Args:
        trainer: Trainer settings of the run's recipe.
    """
    found = [trainer.get("default_root_dir")]
    for key, argument in (("callbacks", "dirpath"), ("logger", "save_dir")):
        parts = trainer.get(key) or []
        for part in parts if isinstance(parts, list) else [parts]:
            if isinstance(part, Namespace):
                found.append((part.get("init_args") or {}).get(argument))
    return list(dict.fromkeys(Path(folder) for folder in found if folder))


def furthest(
    places: Iterable[Path], stage: int, robots: Sequence[str] = (), more: bool = False
) -> Path | None:
    """Find the checkpoint with the most steps from which training can resume.

    Of equal steps, the file that was written last is taken. Damaged and half-written files and
    checkpoints of other models or robots are skipped. Each is reported in one line on stderr, and
    so is the choice, or that the run starts from scratch.

    Args:
        places: Folders to search with their subfolders; missing ones count as empty.
        stage: Stage of the model, 1 or 2; 0: a user's own model.
        robots: Names of the run's robots, in order; empty accepts all.
        more: True accepts checkpoints that know further robots, as a continued prior does.
    """
    places = list(places)
    parts = {part.resolve() for place in places for part in place.rglob(".*.part")}
    for part in sorted(parts):
        _report(f"{part} was left by a save that was cut short; it may be deleted")
    named = {path.resolve() for place in places for path in place.rglob("*.ckpt")}
    for path in sorted(named, key=lambda path: (-_step(path), *_age(path))):
        try:
            if path.is_dir():
                ShardedCheckpoint(path).verify()
            checkpoint = read_file_or_folder(path, weights=False)
            _require_resumable(checkpoint, stage, path)
            if robots and stage:
                _require_robots(checkpoint, robots, more, path)
        except UserError as error:
            _report(f"skipped: {error}")
        else:
            _report(f"resuming from {path}, step {checkpoint.get('global_step')}")
            return path
    searched = ", ".join(str(place) for place in places)
    _report(f"no whole checkpoint of this model under {searched}: starting from scratch")
    return None


def _step(path: Path) -> float:
    """Read a checkpoint's step without its weights; infinity if that fails, to report it first."""
    try:
        if path.is_dir():
            checkpoint = ShardedCheckpoint(path).outline()
        else:
            with zipfile.ZipFile(path) as archive:  # compressed records could unpack to any size
                if any(r.compress_type != zipfile.ZIP_STORED for r in archive.infolist()):
                    return math.inf
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return float(checkpoint["global_step"])
    except (
        *(UserError, OSError, RuntimeError, EOFError, ValueError, TypeError, LookupError),
        *(pickle.UnpicklingError, zipfile.BadZipFile),
    ):
        return math.inf


def _age(path: Path) -> tuple[float, str]:
    written = path.stat().st_mtime_ns if path.exists() else math.inf
    return (-written, str(path))


def _require_resumable(checkpoint: dict[str, Any], stage: int, path: Path) -> None:
    """Refuse a checkpoint from which training of a stage cannot resume.

    Raises:
        CheckpointError: it holds only weights, or belongs to another model.
    """
    if keys.OPTIMIZERS not in checkpoint or keys.LOOPS not in checkpoint:
        raise CheckpointError(f"checkpoint {path} holds only weights, training cannot resume")
    found = 2 if keys.POLICY in checkpoint else 1 if keys.PRIOR in checkpoint else 0
    if found != stage:
        model, expected = (
            f"Stage {number}" if number else "a user's own model" for number in (found, stage)
        )
        raise CheckpointError(f"checkpoint {path} is of {model}, expected one of {expected}")


def _require_robots(
    checkpoint: dict[str, Any], robots: Sequence[str], more: bool, path: Path
) -> None:
    """Refuse a checkpoint that was trained on other robots.

    Raises:
        CheckpointError: naming the robots of both.
    """
    described = policy_description if keys.POLICY in checkpoint else prior_description
    names = [str(robot["name"]) for robot in described(checkpoint, path)["embodiments"]]
    if not (names == list(robots) or (more and set(robots) <= set(names))):
        raise CheckpointError(
            f"checkpoint {path} is of {', '.join(names)}; the recipe's robots are "
            f"{', '.join(robots)}"
        )


@rank_zero_only
def _report(line: str) -> None:
    print(f"{LAST}: {printable(line)}", file=sys.stderr)
