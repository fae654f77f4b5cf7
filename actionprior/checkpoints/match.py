"""Check that a checkpoint's weights mean the same in the module that loads them."""

from pathlib import Path
from typing import Any

from actionprior.checkpoints import keys
from actionprior.checkpoints.formats import check_checkpoint_format
from actionprior.checkpoints.policy import SETTINGS, policy_description, recorded_image_shape
from actionprior.checkpoints.prior import (
    prior_description,
    require_same_architecture,
    require_same_robot,
)
from actionprior.checkpoints.reading import CheckpointError
from actionprior.embodiment import Embodiment
from actionprior.embodiment.image_shape import ImageShape
from actionprior.errors import UserError
from actionprior.networks.motion_prior import MotionPrior
from actionprior.networks.policy_network import PolicyNetwork

_FREE = {"integration_steps", "integrator"}
"""Settings that weights do not depend on."""


def require_same_prior(prior: MotionPrior, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Refuse a checkpoint whose weights would mean something else in ``prior``.

    Raises:
        CheckpointError: it holds no prior, or one of other robots, of the same robots in another
            order, or of other sizes.
        FormatError: a version with another format wrote it.
    """
    described = prior_description(checkpoint, path)
    check_checkpoint_format(checkpoint, path)
    trained_on = [Embodiment.from_dict(e) for e in described["embodiments"]]
    names, expected = ([e.name for e in robots] for robots in (trained_on, prior.embodiments))
    if names != expected:
        raise CheckpointError(
            f"checkpoint {path} was trained on the robots {names}, in this order, but the recipe "
            f"has {expected} (data.embodiments)"
        )
    for mine, recorded in zip(prior.embodiments, trained_on, strict=True):
        require_same_robot(mine, recorded, path)
    require_same_architecture(prior.architecture, described["architecture"], path)


def require_same_policy(
    network: PolicyNetwork, settings: dict[str, Any], checkpoint: dict[str, Any], path: str | Path
) -> None:
    """Refuse a checkpoint whose weights would act differently in ``network``.

    Most differences do not show in names and shapes of weights: without this check, a policy
    that was trained without history could act with it. A network that does not know the size of
    its images takes that of the checkpoint.

    Args:
        network: Network that loads the weights.
        settings: Arguments that it was built with.
        checkpoint: Checkpoint of Stage 2.
        path: File of the checkpoint, for messages.

    Raises:
        CheckpointError: a checkpoint of Stage 1, or of another policy; naming what differs.
        FormatError: a version with another format wrote it.
    """
    if keys.POLICY not in checkpoint:
        raise CheckpointError(
            f"{path} is not of Stage 2; a prior is given as --model.prior_checkpoint"
        )
    require_same_prior(network.prior, checkpoint, path)
    saved, name = policy_description(checkpoint, path), type(network.trunk).__name__
    heads = [float(s.get("keyframe_weight", 0)) for s in (saved["settings"], settings)]
    found = [
        f"{key} is {saved['settings'][key]!r} in the checkpoint and {settings[key]!r} in the recipe"
        for key in SETTINGS
        if key not in _FREE and saved["settings"][key] != settings[key]
    ]
    if (heads[0] > 0) != (heads[1] > 0):  # only then the policy has a head for keyframes
        found.append(
            f"keyframe_weight is {heads[0]} in the checkpoint and {heads[1]} in the recipe"
        )
    seen = recorded_image_shape(saved)
    if seen and network.image_shape and seen != network.image_shape:
        found.append(
            f"images are {seen} in the checkpoint and {network.image_shape} in the data (set "
            "data.init_args.images.image_size and fit)"
        )
    if saved["trunk"]["name"] != name:
        found.append(
            f"trunk is {saved['trunk']['name']} in the checkpoint and {name} in the recipe"
        )
    else:
        differing = network.trunk.differing_args(saved["trunk"]["init_args"])
        found += [
            f"trunk.{key} is {recorded!r} in the checkpoint and {mine!r} in the recipe"
            for key, (recorded, mine) in differing.items()
        ]
    if found:
        raise CheckpointError(f"{path} is of another policy: {'; '.join(found)}")
    network.image_shape = seen or network.image_shape


def agree_on_images(network: PolicyNetwork, shape: ImageShape | None, source: str) -> None:
    """Give a policy the size of the images that it is shown, or refuse another than its own.

    Args:
        network: Policy. If it does not know the size of its images, it takes ``shape``.
        shape: Size of the images; None if it is unknown.
        source: Where the images come from, for the message.

    Raises:
        UserError: The policy was trained on images of another size.
    """
    if shape and network.image_shape and shape != network.image_shape:
        raise UserError(
            f"the policy's images are {network.image_shape}, and those of {source} {shape}; set "
            "data.init_args.images.image_size and fit as in the policy's training"
        )
    network.image_shape = network.image_shape or shape
