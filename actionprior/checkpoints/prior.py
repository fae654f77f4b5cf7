"""Read a motion prior from a checkpoint of either stage, without unpickling.

A checkpoint describes its prior in plain data, so that a recipe need not repeat its architecture
and robots.
"""

from collections.abc import Mapping
from dataclasses import asdict
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

_BY_LANGUAGE_MODEL = {"init_from", "init_layers", "language", "width", "heads"}
_BY_LANGUAGE_MODEL |= {"encoder_depth", "decoder_depth"}
"""Entries of an architecture that a language model decides, from which it starts."""


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


def require_same_architecture(
    mine: PriorArchitecture, saved: Mapping[str, Any], path: str | Path
) -> None:
    """Refuse a checkpoint whose prior has other sizes or switches than the recipe's.

    Args:
        mine: Architecture of the recipe.
        saved: Architecture of the checkpoint, as plain data.
        path: The checkpoint, for the message.

    Raises:
        CheckpointError: naming what differs.
    """
    saved = asdict(PriorArchitecture()) | dict(saved)  # older files have fewer keys
    decided = _BY_LANGUAGE_MODEL if mine.init_from else set()
    differences = [
        f"architecture.{key} is {saved.get(key)!r} in the checkpoint and {value!r} in the recipe"
        for key, value in asdict(mine).items()
        if saved.get(key) != value and key not in decided
    ]
    if differences:
        raise CheckpointError(
            f"{path} is of another prior: {'; '.join(differences)}; leave architecture out "
            "(`--model.architecture null`), since a checkpoint brings its own"
        )


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
        architecture: Architecture of a prior with fresh weights. With a ``path``, as for
            ``load_starting_prior``.
        use_prior: As for ``load_starting_prior``. If True, fresh weights are warned of.
        reuse_decoder: As for ``load_starting_prior``.
        may_join: As for ``load_starting_prior``.

    Raises:
        CheckpointError: as ``load_starting_prior``.
        UserError: neither a checkpoint nor an architecture is given while ``use_prior`` is set.
    """
    if path:
        return load_starting_prior(
            path,
            robots,
            architecture,
            use_prior=use_prior,
            reuse_decoder=reuse_decoder,
            may_join=may_join,
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
    architecture: PriorArchitecture | None = None,
    *,
    use_prior: bool = True,
    reuse_decoder: bool = True,
    may_join: bool = False,
) -> MotionPrior:
    """Load the prior from which a stage starts.

    Args:
        path: Checkpoint of either stage; its architecture and statistics are always used.
        robots: Robots of the stage.
        architecture: Architecture that the checkpoint must have; None accepts any.
        use_prior: Use its weights; False: fresh weights throughout.
        reuse_decoder: Use its decoder's weights; False: fresh decoder, pretrained encoder.
        may_join: Let robots join that the prior does not know.

    Raises:
        CheckpointError: as ``load_prior``, ``check_robots`` and ``require_same_architecture``.
    """
    prior = load_prior(path)
    check_robots(prior, robots, path, may_join)
    if architecture is not None:
        require_same_architecture(architecture, asdict(prior.architecture), path)
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
