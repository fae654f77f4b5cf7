"""Whether a checkpoint's weights would mean in a module what they meant where they were trained."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from actionprior.checkpoints.policy import (
    PRETRAINED_ARGS,
    SETTINGS,
    STAGE2,
    described_trunk,
)
from actionprior.checkpoints.prior import DESCRIPTION, check_robots, missing_prior_message
from actionprior.checkpoints.reading import CheckpointError
from actionprior.embodiment import Embodiment
from actionprior.networks.motion_prior import MotionPrior
from actionprior.networks.policy_network import PolicyNetwork

_FREE = {"integration_steps", "integrator"}  # settings that no weight was trained for
_TRAINING_ARGS = {  # of a trunk: they change nothing that it computes
    "freeze",
    "freeze_image",
    "freeze_text",
    "lr_scale",
    "layer_decay",
    "train_image_blocks",
    "train_text_blocks",
}


def require_same_prior(prior: MotionPrior, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Refuse a checkpoint whose weights would mean something else in ``prior``.

    Raises:
        CheckpointError: of no prior, of other robots or in another order, or of other sizes.
    """
    if DESCRIPTION not in checkpoint:
        raise CheckpointError(missing_prior_message(checkpoint, path))
    described = checkpoint[DESCRIPTION]
    theirs = [Embodiment.from_dict(e) for e in described["embodiments"]]
    names, wanted = ([e.name for e in robots] for robots in (theirs, prior.embodiments))
    if names != wanted:
        raise CheckpointError(f"{path} was trained on {names}, in this order, and not on {wanted}")
    check_robots(prior, theirs, path, may_join=False)
    mine = asdict(prior.architecture)
    differences = [
        f"architecture.{key} is {value!r} there and {mine[key]!r} here"
        for key, value in described["architecture"].items()
        if key in mine and value != mine[key]
    ]
    if differences:
        raise CheckpointError(f"{path} is of another prior: {'; '.join(differences)}")


def require_same_policy(
    network: PolicyNetwork, settings: dict[str, Any], checkpoint: dict[str, Any], path: str | Path
) -> None:
    """Refuse a checkpoint whose weights would act otherwise in ``network``.

    Most differences leave no trace in names and shapes of weights: without this a policy that was
    trained without history acts with one.

    Args:
        network: that the weights are for.
        settings: what it was made with.
        checkpoint: of Stage 2.
        path: for messages.

    Raises:
        CheckpointError: it is of Stage 1, or naming what differs.
    """
    if STAGE2 not in checkpoint:
        raise CheckpointError(
            f"{path} is not of Stage 2; a prior is given as --model.prior_checkpoint"
        )
    require_same_prior(network.prior, checkpoint, path)
    told, trunk = checkpoint[STAGE2], described_trunk(network.trunk)
    found = [
        f"{key} is {told['settings'][key]!r} there and {settings[key]!r} here"
        for key in SETTINGS
        if key not in _FREE and told["settings"].get(key, settings[key]) != settings[key]
    ]
    if told["trunk"]["name"] != trunk["name"]:
        found.append(f"trunk is {told['trunk']['name']} there and {trunk['name']} here")
    else:
        found += [
            f"trunk.{key} is {value!r} there and {trunk['init_args'][key]!r} here"
            for key, value in told["trunk"]["init_args"].items()
            if key not in PRETRAINED_ARGS | _TRAINING_ARGS
            and value != trunk["init_args"].get(key, value)
        ]
    if found:
        raise CheckpointError(f"{path} is of another policy: {'; '.join(found)}")
