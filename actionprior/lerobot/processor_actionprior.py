"""LeRobot's steps around a policy of ours: they rename, batch and move, and normalise nothing.

Our normalisation is a part of the network: actions are learnt relative to the chunk's first state,
with statistics for each of its steps, which no step of LeRobot's can hold. It lies in
``model.safetensors``; ``statistics.json`` of an exported folder shows it. The pipelines have
LeRobot's normalising steps all the same, for its tools set them by name; all of them are
``IDENTITY``, and the policy gives and takes the robot's own units.
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
    """Steps before and after the policy; ``dataset_stats`` are kept in their files, unused."""
    return make_default_pre_post_processors(config, dataset_stats)  # type: ignore[no-any-return]  # lerobot is untyped
