"""Reading a motion prior back from a checkpoint of either stage, with nothing unpickled.

A checkpoint describes its prior in plain data under ``motion_prior``: the architecture and the
robots are read, never repeated in a recipe.
"""

from pathlib import Path
from typing import Any

from actionprior.checkpoints.formats import mark
from actionprior.checkpoints.reading import CheckpointError
from actionprior.checkpoints.sharded import read_either
from actionprior.embodiment import Embodiment
from actionprior.errors import shorten
from actionprior.networks.motion_prior import MotionPrior

DESCRIPTION = "motion_prior"  # the checkpoint's key of ``MotionPrior.describe()``


def describe_into(checkpoint: dict[str, Any], prior: MotionPrior) -> None:
    """Write the prior's plain description into a checkpoint that is about to be saved."""
    checkpoint[DESCRIPTION] = prior.describe()
    mark(checkpoint)


def load_prior(path: str | Path) -> MotionPrior:
    """The prior of a checkpoint of either stage: architecture, robots, statistics, weights.

    Args:
        path: a file, or a folder of ``ShardedStrategy``.

    Raises:
        CheckpointError: the file is missing, truncated, or holds no motion prior.
    """
    checkpoint = read_either(path)
    prior = _described(checkpoint, path)
    weights = {
        key.removeprefix("network.").removeprefix("prior."): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith(("prior.", "network.prior."))
    }
    try:
        prior.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: weights do not fit the checkpoint's own description ({shorten(error)})"
        ) from None
    return prior


def check_robots(
    prior: MotionPrior, robots: list[Embodiment], path: str | Path, may_join: bool
) -> None:
    """Refuse a prior that was trained on other robots, or on others of the same names.

    Raises:
        CheckpointError: naming the robot and what differs.
    """
    known = {e.name: e for e in prior.embodiments}
    for robot in robots:
        if robot.name in known:
            if differences := robot.differences(known[robot.name]):
                raise CheckpointError(
                    f"{path}: robot {robot.name!r} differs: {'; '.join(differences)}"
                )
        elif not may_join:
            raise CheckpointError(
                f"{path} was trained on {sorted(known)} and does not know {robot.name!r}; "
                "pretrain on it too, or set allow_new_embodiments: true to let it join"
            )


def load_starting_prior(
    path: str | Path,
    robots: list[Embodiment],
    *,
    use_prior: bool = True,
    reuse_decoder: bool = True,
    may_join: bool = False,
) -> MotionPrior:
    """What Stage 2 starts from.

    Args:
        path: checkpoint of either stage; its architecture and statistics always serve.
        robots: of Stage 2.
        use_prior: False: fresh weights throughout.
        reuse_decoder: False: fresh decoder, pretrained encoder.
        may_join: let robots join that the prior does not know.

    Raises:
        CheckpointError: as ``load_prior`` and ``check_robots``.
    """
    prior = load_prior(path)
    check_robots(prior, robots, path, may_join)
    if not use_prior:
        fresh = MotionPrior(prior.embodiments, prior.architecture)
        fresh.normalizer.load_state_dict(prior.normalizer.state_dict())
        prior = fresh
    elif not reuse_decoder:
        prior.decoder = prior.new_decoder()
    known = {e.name for e in prior.embodiments}
    prior.add_embodiments([r for r in robots if r.name not in known])
    return prior


def _described(checkpoint: dict[str, Any], path: str | Path) -> MotionPrior:
    if DESCRIPTION not in checkpoint:
        raise CheckpointError(missing_prior_message(checkpoint, path))
    return MotionPrior.from_description(checkpoint[DESCRIPTION])


def missing_prior_message(checkpoint: dict[str, Any], path: str | Path) -> str:
    """What is said of a checkpoint without a prior."""
    return (
        f"{path} holds no motion prior (found keys {sorted(checkpoint)[:8]}); "
        "expected a checkpoint of MotionPriorModule or VLAModule"
    )
