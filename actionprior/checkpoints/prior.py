"""Read a motion prior from a checkpoint of either stage, without unpickling.

A checkpoint describes its prior in plain data, so that a recipe need not repeat its architecture
and robots.
"""

from pathlib import Path
from typing import Any

from actionprior.checkpoints import keys
from actionprior.checkpoints.description import PriorFields, check_fields
from actionprior.checkpoints.formats import FORMAT
from actionprior.checkpoints.policy import building_from, load_weights_into, weights_of
from actionprior.checkpoints.reading import CheckpointError
from actionprior.checkpoints.sharded import read_file_or_folder
from actionprior.embodiment import Embodiment
from actionprior.errors import UserError
from actionprior.networks.language_start import new_prior
from actionprior.networks.motion_prior import MotionPrior, PriorArchitecture


def describe_into(checkpoint: dict[str, Any], prior: MotionPrior) -> None:
    """Add the format and the prior's description to a checkpoint that is about to be saved."""
    checkpoint[keys.PRIOR] = prior.describe()
    checkpoint[keys.FORMAT] = FORMAT


def prior_description(checkpoint: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """Return the description of a checkpoint's prior.

    Raises:
        CheckpointError: the checkpoint holds no motion prior, or its description is damaged.
    """
    if keys.PRIOR not in checkpoint:
        raise CheckpointError(
            f"{path} holds no motion prior (found keys {sorted(checkpoint)[:8]}); "
            "expected a checkpoint of MotionPriorModule or VLAModule"
        )
    return check_fields(PriorFields, checkpoint[keys.PRIOR], path, keys.PRIOR)


def load_prior(path: str | Path) -> MotionPrior:
    """Load a prior from a checkpoint: architecture, robots, statistics and weights.

    Args:
        path: Checkpoint of either stage: a file, or a folder that ``ShardedStrategy`` wrote.

    Raises:
        CheckpointError: the file is missing, truncated, or holds no motion prior.
    """
    checkpoint = read_file_or_folder(path)
    description = prior_description(checkpoint, path)
    prefix = keys.PRIOR_PREFIX
    if keys.POLICY in checkpoint:
        prefix = keys.NETWORK_PREFIX + prefix
    weights = keys.below(prefix, weights_of(checkpoint, path))
    with building_from(description, weights, path):
        prior = MotionPrior.from_description(description)
    load_weights_into(prior, weights, path)
    return prior


def check_robots(
    prior: MotionPrior, robots: list[Embodiment], path: str | Path, may_join: bool
) -> None:
    """Refuse a prior that was trained on other robots, or on others of the same names.

    Args:
        prior: Prior of the checkpoint.
        robots: Robots of the recipe, which it has to know.
        path: Checkpoint of the prior, for the message.
        may_join: Accept robots whose names the prior does not know.

    Raises:
        CheckpointError: naming the robot and what differs.
    """
    known = {e.name: e for e in prior.embodiments}
    for robot in robots:
        if robot.name in known:
            require_same_robot(robot, known[robot.name], path)
        elif not may_join:
            raise CheckpointError(
                f"checkpoint {path} was trained on {sorted(known)} and does not know the recipe's "
                f"{robot.name!r}; pretrain on it too, or set allow_new_embodiments: true to let "
                "it join"
            )


def require_same_robot(mine: Embodiment, recorded: Embodiment, path: str | Path) -> None:
    """Refuse a checkpoint whose robot differs from the recipe's of the same name.

    Args:
        mine: Robot of the recipe.
        recorded: Robot of the checkpoint.
        path: The checkpoint, for the message.

    Raises:
        CheckpointError: naming what differs.
    """
    if differences := mine.differences(recorded):
        raise CheckpointError(f"{path}: robot {mine.name!r} differs: {'; '.join(differences)}")


def starting_prior(
    path: str,
    robots: list[Embodiment],
    architecture: PriorArchitecture | None,
    *,
    use_prior: bool,
    reuse_decoder: bool,
    may_join: bool,
) -> MotionPrior:
    """Load the prior from which Stage 2 starts, or build one with fresh weights.

    Args:
        path: As for ``load_starting_prior``; empty for fresh weights.
        robots: Robots of Stage 2.
        architecture: Architecture of a prior with fresh weights.
        use_prior: As for ``load_starting_prior``. If True, fresh weights are warned of.
        reuse_decoder: As for ``load_starting_prior``.
        may_join: As for ``load_starting_prior``.

    Raises:
        CheckpointError: as ``load_starting_prior``.
        UserError: neither a checkpoint nor an architecture is given while ``use_prior`` is set.
    """
    if path:
        return load_starting_prior(
            path, robots, use_prior=use_prior, reuse_decoder=reuse_decoder, may_join=may_join
        )
    if use_prior and architecture is None:
        raise UserError(
            "no motion prior: give model.init_args.prior_checkpoint (a Stage-1 checkpoint), "
            "or use_prior: false to train without one"
        )
    if use_prior:
        from lightning.fabric.utilities import rank_zero_warn

        rank_zero_warn(
            "there is no prior_checkpoint, so this policy aligns itself with a motion prior of "
            "fresh weights, which has learnt nothing; give prior_checkpoint (a Stage-1 "
            "checkpoint), or use_prior=False to train without a prior"
        )
    return new_prior(robots, architecture)


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
        fresh.normalizer.ranges = prior.normalizer.ranges
        prior = fresh
    elif not reuse_decoder:
        prior.decoder = prior.new_decoder()
    known = {e.name for e in prior.embodiments}
    prior.add_embodiments([r for r in robots if r.name not in known])
    return prior
