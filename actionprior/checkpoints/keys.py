"""Keys of checkpoints, state dicts and exported folders; files of version 0.1.0 hold these strings.

Each key is defined once, here, so that the modules that write and read it agree.
"""

from collections.abc import Mapping

# Keys of a checkpoint that Lightning defines.
WEIGHTS = "state_dict"
RAW_WEIGHTS = "current_model_state"
"""Weights in training, where ``state_dict`` holds averages (``WeightAveraging``)."""
OPTIMIZERS = "optimizer_states"
LOOPS = "loops"
VERSION = "pytorch-lightning_version"

# Keys of a checkpoint that this project adds.
FORMAT = "actionprior_format"
PRIOR = "motion_prior"
"""Description of the prior: architecture and robots; checkpoints of both stages have it."""
POLICY = "vla"
"""Description of a policy except its prior; only checkpoints of Stage 2 have it."""
BAD_STEPS = "bad_steps"
"""State of ``BadSteps``, which counts skipped steps."""

# Prefixes of names in a state dict.
NETWORK_PREFIX = "network."
"""``PolicyNetwork`` in ``VLAModule``."""
PRIOR_PREFIX = "prior."
"""``MotionPrior`` in ``MotionPriorModule`` and in ``PolicyNetwork``."""

# Keys of an exported folder's config.json.
CONFIG_PART = "actionprior"
"""The part that describes the network; LeRobot reads the rest."""
CONFIG_FORMAT = "format"
CONFIG_DIGEST = "content_sha256"


def below[T](prefix: str, state: Mapping[str, T]) -> dict[str, T]:
    """Select the entries of a state dict whose names start with a prefix, and cut it off."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
