"""Read from a checkpoint which episodes trained and which were held out."""

from pathlib import Path
from typing import Any

from actionprior.checkpoints import keys
from actionprior.checkpoints.sharded import read_file_or_folder


def recorded_split(path: str | Path) -> dict[str, Any]:
    """Return the split that a checkpoint records, by robot.

    It is empty for exported folders and for checkpoints that record none, as those of version
    0.1.0 do.

    Args:
        path: Checkpoint of either stage, exported folder, or an empty text.

    Raises:
        CheckpointError: The checkpoint is missing or damaged.
    """
    if not path or (Path(path) / "config.json").is_file():
        return {}
    record: dict[str, Any] = read_file_or_folder(path, weights=False).get(keys.SPLIT, {})
    return record
