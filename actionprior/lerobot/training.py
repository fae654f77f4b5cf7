"""Create a policy that LeRobot trains, from the dataset's robot and its statistics."""

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from actionprior.embodiment import Embodiment
from actionprior.embodiment.image_shape import ImageShape
from actionprior.embodiment.recorded_ranges import widen_ranges
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
    from data_modules.lerobot.names import feature_names

    wanted = [robot.action_key, *([robot.state_key] if robot.state else [])]
    if missing := [key for key in wanted if key not in features]:
        raise UserError(f"the dataset has no {missing} of robot {robot.name!r}: {sorted(features)}")
    states = feature_names(features[robot.state_key]) if robot.state else []
    return VectorNames(states, feature_names(features[robot.action_key]))


def chosen_episodes(words: Sequence[str] | None = None) -> list[int] | None:
    """Return the episodes that ``lerobot-train`` was asked for, None for all.

    LeRobot creates a policy without them, so they are read from the command line
    (``--dataset.episodes``), or from the configuration that it names (``--config_path``).

    Args:
        words: Words of the command line; None reads ``sys.argv``.

    Raises:
        UserError: They are no list of whole numbers.
    """
    from lerobot.configs.parser import parse_arg

    found: Any = parse_arg("dataset.episodes", words)
    path = parse_arg("config_path", words)
    if found is None and path is not None and Path(path).is_file():
        found = (json.loads(Path(path).read_text("utf-8")).get("dataset") or {}).get("episodes")
    try:
        episodes = json.loads(found) if isinstance(found, str) else found
    except ValueError:
        episodes = found
    if episodes is None:
        return None
    if not isinstance(episodes, list) or not all(type(e) is int and e >= 0 for e in episodes):
        raise UserError(f"dataset.episodes is {found!r}, expected a list such as [0, 1, 2]")
    return episodes


def new_network(
    root: str, chunk_length: int, episodes: Sequence[int] | None = None
) -> PolicyNetwork:
    """Create a small policy with new weights for the robot that a dataset's feature names describe.

    Its statistics are fitted on the dataset's windows, as in Stage 1. LeRobot's statistics are of
    single frames, so they cannot describe actions relative to a chunk's first state. Cameras of
    different size are stretched to the trunk's size.

    Args:
        root: Folder of the dataset.
        chunk_length: Steps H of a chunk.
        episodes: Numbers of the episodes to fit the statistics on; None for all.

    Raises:
        UserError: The feature names do not determine the slots, the data are damaged, or an
            episode does not exist.
    """
    from data_modules.images.camera_files import recorded_size
    from data_modules.lerobot.columns import LeRobotEmbodiment
    from data_modules.lerobot.description import describe
    from data_modules.lerobot.source import read_info
    from data_modules.trajectories import LeRobotTrajectories

    class ChosenEpisodes(LeRobotTrajectories):
        """Windows of the chosen episodes."""

        def excluded_episodes(self, dataset: int) -> set[int]:
            return set() if episodes is None else set(range(count)) - set(episodes)

    recorded = LeRobotEmbodiment.from_dict(describe(root).robot)
    count = int(read_info(Path(root))["total_episodes"])
    if unknown := [e for e in episodes or () if e >= count]:
        raise UserError(f"{root}: has {count} episodes, dataset.episodes names {unknown[0]}")
    data = ChosenEpisodes(
        [recorded],
        chunk_length,
        history_length=chunk_length,
        val_fraction=0.1 if episodes is None else 0.0,
    )
    data.prepare_data()
    data.setup("fit")
    known = {f.name for f in fields(Embodiment)}
    robot = Embodiment.from_dict({k: v for k, v in vars(recorded).items() if k in known})
    sizes = PriorArchitecture(chunk_length, chunk_length, decoder_sees_state=True)
    prior = MotionPrior([robot], sizes)
    windows = data.statistics_sample()
    prior.normalizer.fit(windows)
    widen_ranges(prior.normalizer.ranges, prior.embodiments, windows)
    trunk, features = SmallTrunk(), read_info(Path(root))["features"]
    found = {recorded_size(features[camera]) for camera in robot.cameras}
    size = found.pop() if len(found) == 1 else (trunk.image_size, trunk.image_size)
    return PolicyNetwork([robot], trunk, prior, history="off", image_shape=ImageShape(*size))
