"""``--ckpt_path last``: the newest whole checkpoint of a run, each read before it is believed."""

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.rank_zero import rank_zero_only

from actionprior.checkpoints.policy import STAGE2
from actionprior.checkpoints.prior import DESCRIPTION
from actionprior.checkpoints.reading import CheckpointError
from actionprior.checkpoints.sharded import ShardedCheckpoint, read_either
from actionprior.errors import UserError

LAST = "last"


def folders(trainer: Namespace) -> list[Path]:
    """Where a run with these trainer settings writes: its root, its checkpoints', its loggers'."""
    found = [trainer.get("default_root_dir")]
    for key, argument in (("callbacks", "dirpath"), ("logger", "save_dir")):
        parts = trainer.get(key) or []
        for part in parts if isinstance(parts, list) else [parts]:
            if isinstance(part, Namespace):
                found.append((part.get("init_args") or {}).get(argument))
    return list(dict.fromkeys(Path(folder) for folder in found if folder))


def newest(places: Iterable[Path], stage: int) -> Path | None:
    """The newest checkpoint under ``places`` from which ``stage`` can go on.

    Files that are damaged, half-written or another run's are skipped, newest first, each told in
    one line on stderr; so is the choice, also where there is none and the run starts afresh.

    Args:
        places: folders, searched with all that they hold; missing ones are empty.
        stage: 1 or 2: whose checkpoints; any other: of a model that is not ours.
    """
    places = list(places)
    parts = {part.resolve() for place in places for part in place.rglob(".*.part")}
    for part in sorted(parts):
        _tell(f"{part} was left by a save that was cut short; it may be deleted")
    named = {path.resolve() for place in places for path in place.rglob("*.ckpt")}
    for path in sorted(named, key=_age):
        try:
            if path.is_dir():
                ShardedCheckpoint(path).verify()
            checkpoint = read_either(path, weights=False)
            _require_of(checkpoint, stage, path)
        except UserError as error:
            _tell(f"skipped: {error}")
        else:
            _tell(f"going on from {path}, step {checkpoint.get('global_step')}")
            return path
    searched = ", ".join(str(place) for place in places)
    _tell(f"no whole checkpoint of this model under {searched}: starting afresh")
    return None


def _age(path: Path) -> tuple[float, str]:
    written = path.stat().st_mtime_ns if path.exists() else math.inf  # a link to nothing is told
    return (-written, str(path))


def _require_of(checkpoint: dict[str, Any], stage: int, path: Path) -> None:
    """Refuse what training cannot go on from.

    Raises:
        CheckpointError: weights alone, or of another model.
    """
    if "optimizer_states" not in checkpoint or "loops" not in checkpoint:
        raise CheckpointError(f"checkpoint {path} holds weights alone, training cannot go on")
    found = 2 if STAGE2 in checkpoint else 1 if DESCRIPTION in checkpoint else 0
    if found != stage:
        model = f"of Stage {found}" if found else "of no stage of ours"
        wanted = f"Stage {stage}" if stage else "a model of one's own"
        raise CheckpointError(f"checkpoint {path} is {model}, expected one of {wanted}")


@rank_zero_only
def _tell(line: str) -> None:
    print(f"{LAST}: {line}", file=sys.stderr)
