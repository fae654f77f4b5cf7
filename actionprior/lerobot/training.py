"""What a policy learns from when LeRobot trains it: the dataset's robot and its statistics."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from actionprior.embodiment import Embodiment
from actionprior.errors import UserError
from actionprior.networks.motion_prior import MotionPrior, PriorArchitecture
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.networks.trunks import SmallTrunk


class Names(NamedTuple):
    """Entries of a dataset's vectors, in their order."""

    states: Sequence[str]
    actions: Sequence[str]


def dataset_names(features: dict[str, Any], robot: Embodiment) -> Names:
    """The entries of the vectors that LeRobot reads for a robot from a dataset.

    Raises:
        UserError: the dataset has no such vector.
    """
    from data_modules.lerobot.source import feature_names

    wanted = [robot.action_key, *([robot.state_key] if robot.state else [])]
    if missing := [key for key in wanted if key not in features]:
        raise UserError(f"the dataset has no {missing} of robot {robot.name!r}: {sorted(features)}")
    states = feature_names(features[robot.state_key]) if robot.state else []
    return Names(states, feature_names(features[robot.action_key]))


def new_network(root: str, chunk_length: int) -> PolicyNetwork:
    """A small policy with fresh weights for a dataset's robot, which its names describe.

    Its statistics are fitted on the dataset's own windows, as in Stage 1: LeRobot's statistics
    are of single frames and tell nothing of actions relative to a chunk's first state.

    Args:
        root: folder of the dataset.
        chunk_length: H.

    Raises:
        UserError: the names do not tell where the features go, or the data are damaged.
    """
    from data_modules.lerobot.columns import LeRobotEmbodiment
    from data_modules.lerobot.description import describe
    from data_modules.trajectories import LeRobotTrajectories

    recorded = LeRobotEmbodiment.from_dict(describe(root))
    data = LeRobotTrajectories([recorded], chunk_length, history_length=chunk_length)
    data.prepare_data()
    data.setup("fit")
    ours = {f.name for f in fields(Embodiment)}
    robot = Embodiment.from_dict({k: v for k, v in vars(recorded).items() if k in ours})
    sizes = PriorArchitecture(chunk_length, chunk_length, decoder_sees_state=True)
    prior = MotionPrior([robot], sizes)
    prior.normalizer.fit(data.statistics_sample())
    return PolicyNetwork([robot], SmallTrunk(), prior, history="off")
