"""LeRobot's processing steps around an ActionPrior policy: rename, batch and move, no normalising.

Normalisation is a part of the network. Actions are learnt relative to the chunk's first state,
with statistics of each chunk step, which LeRobot's steps cannot hold. The statistics are in
``model.safetensors``, and ``statistics.json`` of an exported folder shows them.

The pipelines contain LeRobot's normalising steps nevertheless, since its tools set them by name.
All of them are ``IDENTITY``, and the policy's inputs and outputs are in the robot's own units.
"""

from typing import Any

from lerobot.processor import (
    PolicyAction,
    PolicyProcessorPipeline,
    make_default_pre_post_processors,
)
from torch import Tensor

from actionprior.lerobot.configuration_actionprior import ActionPriorConfig


def make_actionprior_pre_post_processors(
    config: ActionPriorConfig,
    dataset_stats: dict[str, dict[str, Tensor]] | None = None,
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]],
    PolicyProcessorPipeline[PolicyAction, PolicyAction],
]:
    """Return the steps before and after the policy. They store ``dataset_stats`` without use."""
    return make_default_pre_post_processors(config, dataset_stats)  # type: ignore[no-any-return]  # lerobot is untyped
