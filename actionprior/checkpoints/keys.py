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
IMAGE_SHAPE = "image_shape"
"""Size of the images in a policy's description, in checkpoints and exported folders."""
BAD_STEPS = "bad_steps"
"""State of ``BadSteps``, which counts skipped steps."""
SCHEDULE = "schedule"
"""State of ``Schedule``, the course of the learning rate."""

RUN = "run_settings"
"""Settings of the run that a resumed run compares with its own."""

SPLIT = "episode_split"
"""Episodes that train and that validate, as the data module records them."""

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
