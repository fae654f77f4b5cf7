"""Check that a checkpoint's weights mean the same in the module that loads them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from actionprior.checkpoints import keys
from actionprior.checkpoints.formats import check_checkpoint_format
from actionprior.checkpoints.policy import SETTINGS
from actionprior.checkpoints.prior import check_robots, prior_description
from actionprior.checkpoints.reading import CheckpointError
from actionprior.embodiment import Embodiment
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
            f"{path} was trained on {names}, in this order, and not on {expected}"
        )
    check_robots(prior, trained_on, path, may_join=False)
    saved = described["architecture"]
    differences = [
        f"architecture.{key} is {saved.get(key)!r} there and {value!r} here"
        for key, value in asdict(prior.architecture).items()
        if saved.get(key) != value
    ]
    if differences:
        raise CheckpointError(f"{path} is of another prior: {'; '.join(differences)}")


def require_same_policy(
    network: PolicyNetwork, settings: dict[str, Any], checkpoint: dict[str, Any], path: str | Path
) -> None:
    """Refuse a checkpoint whose weights would act differently in ``network``.

    Most differences do not show in names and shapes of weights: without this check, a policy
    that was trained without history could act with it.

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
    saved, name = checkpoint[keys.POLICY], type(network.trunk).__name__
    found = [
        f"{key} is {saved['settings'][key]!r} there and {settings[key]!r} here"
        for key in SETTINGS
        if key not in _FREE and saved["settings"][key] != settings[key]
    ]
    if saved["trunk"]["name"] != name:
        found.append(f"trunk is {saved['trunk']['name']} there and {name} here")
    else:
        differing = network.trunk.differing_args(saved["trunk"]["init_args"])
        found += [
            f"trunk.{key} is {recorded!r} there and {mine!r} here"
            for key, (recorded, mine) in differing.items()
        ]
    if found:
        raise CheckpointError(f"{path} is of another policy: {'; '.join(found)}")
