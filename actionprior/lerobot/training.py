"""Create a policy that LeRobot trains, from the dataset's robot and its statistics."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from actionprior.embodiment import Embodiment
from actionprior.errors import UserError
from actionprior.networks.motion_prior import MotionPrior, PriorArchitecture
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.networks.trunks import SmallTrunk


class VectorNames(NamedTuple):
    """Names of the entries of a dataset's state and action vectors, in order."""

    states: Sequence[str]
    actions: Sequence[str]


def dataset_names(features: dict[str, Any], robot: Embodiment) -> VectorNames:
    """Return the names of the entries of a robot's vectors in a LeRobot dataset.

    Args:
        features: The dataset's ``features``.
        robot: Robot whose state and action vectors are looked up.

    Raises:
        UserError: The dataset has no such vector.
    """
    from data_modules.lerobot.source import feature_names

    wanted = [robot.action_key, *([robot.state_key] if robot.state else [])]
    if missing := [key for key in wanted if key not in features]:
        raise UserError(f"the dataset has no {missing} of robot {robot.name!r}: {sorted(features)}")
    states = feature_names(features[robot.state_key]) if robot.state else []
    return VectorNames(states, feature_names(features[robot.action_key]))


def new_network(root: str, chunk_length: int) -> PolicyNetwork:
    """Create a small policy with new weights for the robot that a dataset's feature names describe.

    Its statistics are fitted on the dataset's windows, as in Stage 1. LeRobot's statistics are of
    single frames, so they cannot describe actions relative to a chunk's first state.

    Args:
        root: Folder of the dataset.
        chunk_length: Steps H of a chunk.

    Raises:
        UserError: The feature names do not determine the slots, or the data are damaged.
    """
    from data_modules.lerobot.columns import LeRobotEmbodiment
    from data_modules.lerobot.description import describe
    from data_modules.trajectories import LeRobotTrajectories

    recorded = LeRobotEmbodiment.from_dict(describe(root))
    data = LeRobotTrajectories([recorded], chunk_length, history_length=chunk_length)
    data.prepare_data()
    data.setup("fit")
    known = {f.name for f in fields(Embodiment)}
    robot = Embodiment.from_dict({k: v for k, v in vars(recorded).items() if k in known})
    sizes = PriorArchitecture(chunk_length, chunk_length, decoder_sees_state=True)
    prior = MotionPrior([robot], sizes)
    prior.normalizer.fit(data.statistics_sample())
    return PolicyNetwork([robot], SmallTrunk(), prior, history="off")
