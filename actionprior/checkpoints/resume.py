"""``--ckpt_path last``: find the newest undamaged checkpoint of a run."""

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.rank_zero import rank_zero_only

from actionprior.checkpoints import keys
from actionprior.checkpoints.reading import CheckpointError
from actionprior.checkpoints.sharded import ShardedCheckpoint, read_file_or_folder
from actionprior.errors import UserError

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


def newest(places: Iterable[Path], stage: int) -> Path | None:
    """Find the newest checkpoint from which training can resume.

    Damaged and half-written files and checkpoints of other models are skipped. Each is reported
    in one line on stderr, and so is the choice, or that the run starts from scratch.

    Args:
        places: Folders to search with their subfolders; missing ones count as empty.
        stage: Stage of the model, 1 or 2; 0: a user's own model.
    """
    places = list(places)
    parts = {part.resolve() for place in places for part in place.rglob(".*.part")}
    for part in sorted(parts):
        _report(f"{part} was left by a save that was cut short; it may be deleted")
    named = {path.resolve() for place in places for path in place.rglob("*.ckpt")}
    for path in sorted(named, key=_age):
        try:
            if path.is_dir():
                ShardedCheckpoint(path).verify()
            checkpoint = read_file_or_folder(path, weights=False)
            _require_resumable(checkpoint, stage, path)
        except UserError as error:
            _report(f"skipped: {error}")
        else:
            _report(f"resuming from {path}, step {checkpoint.get('global_step')}")
            return path
    searched = ", ".join(str(place) for place in places)
    _report(f"no whole checkpoint of this model under {searched}: starting from scratch")
    return None


def _age(path: Path) -> tuple[float, str]:
    written = path.stat().st_mtime_ns if path.exists() else math.inf  # report a broken link first
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


@rank_zero_only
def _report(line: str) -> None:
    print(f"{LAST}: {line}", file=sys.stderr)
