"""Read a motion prior from a checkpoint of either stage, without unpickling.

A checkpoint describes its prior in plain data, so that a recipe need not repeat its architecture
and robots.
"""

from pathlib import Path
from typing import Any

from actionprior.checkpoints import keys
from actionprior.checkpoints.formats import FORMAT
from actionprior.checkpoints.policy import load_weights_into
from actionprior.checkpoints.reading import CheckpointError
from actionprior.checkpoints.sharded import read_file_or_folder
from actionprior.embodiment import Embodiment
from actionprior.networks.motion_prior import MotionPrior


def describe_into(checkpoint: dict[str, Any], prior: MotionPrior) -> None:
    """Add the format and the prior's description to a checkpoint that is about to be saved."""
    checkpoint[keys.PRIOR] = prior.describe()
    checkpoint[keys.FORMAT] = FORMAT


def prior_description(checkpoint: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """Return the description of a checkpoint's prior.

    Raises:
        CheckpointError: the checkpoint holds no motion prior.
    """
    if keys.PRIOR not in checkpoint:
        raise CheckpointError(
            f"{path} holds no motion prior (found keys {sorted(checkpoint)[:8]}); "
            "expected a checkpoint of MotionPriorModule or VLAModule"
        )
    description: dict[str, Any] = checkpoint[keys.PRIOR]
    return description


def load_prior(path: str | Path) -> MotionPrior:
    """Load a prior from a checkpoint: architecture, robots, statistics and weights.

    Args:
        path: Checkpoint of either stage: a file, or a folder that ``ShardedStrategy`` wrote.

    Raises:
        CheckpointError: the file is missing, truncated, or holds no motion prior.
    """
    checkpoint = read_file_or_folder(path)
    prior = MotionPrior.from_description(prior_description(checkpoint, path))
    prefix = keys.PRIOR_PREFIX
    if keys.POLICY in checkpoint:
        prefix = keys.NETWORK_PREFIX + prefix
    load_weights_into(prior, keys.below(prefix, checkpoint[keys.WEIGHTS]), path)
    return prior


def check_robots(
    prior: MotionPrior, robots: list[Embodiment], path: str | Path, may_join: bool
) -> None:
    """Refuse a prior that was trained on other robots, or on others of the same names.

    Args:
        prior: Prior that was loaded.
        robots: Robots that it has to know.
        path: Checkpoint of the prior, for the message.
        may_join: Accept robots whose names the prior does not know.

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
    """Load the prior from which Stage 2 starts.

    Args:
        path: Checkpoint of either stage; its architecture and statistics are always used.
        robots: Robots of Stage 2.
        use_prior: Use its weights; False: fresh weights throughout.
        reuse_decoder: Use its decoder's weights; False: fresh decoder, pretrained encoder.
        may_join: Let robots join that the prior does not know.

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
