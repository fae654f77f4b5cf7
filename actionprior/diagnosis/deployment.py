"""Whether images and states of the simulator look like those of training.

Axes: N and M observations, C cameras, F features of a thumbnail, n_s (s) states.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from actionprior.checkup import Finding
from actionprior.data import EmbodiedDataModule
from actionprior.data.frame_ranges import IntArray
from actionprior.diagnosis import windows
from actionprior.diagnosis.measurement import Diagnosis, MeasuredValue, finding
from actionprior.diagnosis.readout import THUMBNAIL
from actionprior.diagnosis.replay import recorded_episodes
from actionprior.diagnosis.simulator import Simulator
from actionprior.embodiment import Embodiment, FloatArray
from actionprior.rollout.results import Frame

SCENES, TRAINED = 8, 48
LIKELIER = 0.6  # a changed picture is that much nearer to training than the picture itself
UNLIKE = 2.0  # distance of pictures over that among the training's own
OUTSIDE = 1.0  # of the training's range
Change = Callable[[Tensor], Tensor]
CHANGES: dict[str, Change] = {
    "with red and blue exchanged": lambda image: image.flip(-3),
    "upside down": lambda image: image.flip(-2),
    "mirrored": lambda image: image.flip(-1),
    "turned by 180 degrees": lambda image: image.flip(-1, -2),
}
FACTORS = {180 / np.pi: "degrees for radians", 1000.0: "mm for m", 100.0: "cm for m"}


class Seen(NamedTuple):
    """First observations of episodes: thumbnails (N, C, 3, 8, 8) in 0 … 255, states (N, n_s)."""

    small_NCKYX: Tensor
    state_Ns: FloatArray


def shrink(images_NCKYX: Tensor) -> Tensor:
    """Shrink images to thumbnails."""
    if not images_NCKYX.shape[1]:
        return images_NCKYX.float()
    pool = torch.nn.functional.adaptive_avg_pool2d
    return torch.stack([pool(image.float(), THUMBNAIL) for image in images_NCKYX])


def seen_in_training(data: EmbodiedDataModule, robot: int) -> Seen:
    """Read the first observations of a robot's training episodes."""
    spans = windows.robot_spans(data, robot, data.frames.train)
    store = data.frames.store
    episodes = np.unique(np.searchsorted(store.stop_E, spans.start_K, side="right"))
    chosen = episodes[np.linspace(0, len(episodes) - 1, min(TRAINED, len(episodes))).astype(int)]
    frame_N = store.start_E[chosen]
    some = windows.gather(data, robot, frame_N)
    return Seen(
        shrink(some.observation.images_BCKYX)[:, : len(data.embodiments[robot].cameras)],
        _first_states(data, robot, chosen),
    )


def _first_states(data: EmbodiedDataModule, robot: int, episodes: IntArray) -> FloatArray:
    store = data.frames.store
    owner_E = store.robot_R[np.searchsorted(store.stop_R, store.start_E, side="right")]
    numbers = np.nonzero(owner_E == robot)[0].tolist()
    by_number = dict(zip(numbers, recorded_episodes(data, robot), strict=True))
    return np.stack([by_number[e].state_s for e in episodes.tolist()])


def seen_in_simulator(simulator: Simulator, robot: Embodiment, env_id: str) -> Seen:
    """Read the first observations of the evaluation's scenes."""
    images: list[Frame] = []
    states = []
    with closing(simulator.make(env_id, robot)) as env:
        for seed in range(simulator.seed, simulator.seed + SCENES):
            observation, _ = env.reset(seed=seed)
            states.append(observation["state"])
            images.append(observation.get("images", np.zeros((0, 8, 8, 3), np.uint8)))
    return Seen(shrink(torch.from_numpy(np.stack(images)).movedim(-1, 2)), np.stack(states))


def diagnose_deployment(data: EmbodiedDataModule, robot: int, simulator: Simulator) -> Diagnosis:
    """Compare first images and states in the simulator with those of training."""
    body, results = data.embodiments[robot], Diagnosis([], [])
    trained = seen_in_training(data, robot)
    for env_id in simulator.of_robot(body.name):
        deployed = seen_in_simulator(simulator, body, env_id)
        results.measurements.extend(_rows(body, env_id, trained, deployed))
        results.findings.extend(compare_cameras(body, env_id, trained, deployed))
        results.findings.extend(compare_states(body, env_id, trained, deployed))
    return results


def _apart(first_NF: Tensor, second_MF: Tensor) -> float:
    """Mean distance of pictures from the nearest of others, in brightness levels."""
    first, second = first_NF.flatten(1), second_MF.flatten(1)
    return float(torch.cdist(first, second, p=1).min(1).values.mean() / first.shape[1])


def _own(small_NKYX: Tensor) -> float:
    """Mean distance of each picture from its nearest neighbour among the same."""
    flat_NF = small_NKYX.flatten(1)
    apart_NN = torch.cdist(flat_NF, flat_NF, p=1).fill_diagonal_(torch.inf)
    nearest_N = apart_NN.min(1).values
    return (
        float(nearest_N[nearest_N.isfinite()].mean() / flat_NF.shape[1])
        if len(flat_NF) > 1
        else 0.0
    )


def _rows(robot: Embodiment, env_id: str, trained: Seen, deployed: Seen) -> Iterator[MeasuredValue]:
    for camera, name in enumerate(robot.cameras):
        shown, known = deployed.small_NCKYX[:, camera], trained.small_NCKYX[:, camera]
        for what, value in (
            ("distance to training pictures", _apart(shown, known)),
            ("distance among training pictures", _own(known)),
            ("brightness over training's", float(shown.mean() / known.mean().clamp(min=1e-3))),
        ):
            yield MeasuredValue(robot.name, "deployment", what, f"{env_id} {name}", value, "")


def compare_cameras(
    robot: Embodiment, env_id: str, trained: Seen, deployed: Seen
) -> Iterator[Finding]:
    """Find exchanged cameras or colours, turned pictures, and pictures unlike training."""
    names = robot.cameras
    shown = [deployed.small_NCKYX[:, c] for c in range(len(names))]
    known = [trained.small_NCKYX[:, c] for c in range(len(names))]
    exchanged: set[int] = set()
    for a, b in combinations(range(len(names)), 2):
        straight = _apart(shown[a], known[a]) + _apart(shown[b], known[b])
        crossed = _apart(shown[a], known[b]) + _apart(shown[b], known[a])
        if crossed < LIKELIER * straight:
            exchanged |= {a, b}
            message = (
                f"looks like the training's {names[b]!r}, and the other way round: the cameras are "
                "exchanged; correct observation_map.images, or the order on the robot"
            )
            yield finding("error", "camera_order", robot.name, f"{env_id} {names[a]}", message)
    for camera, name in enumerate(names):
        if camera in exchanged:
            continue
        plain = _apart(shown[camera], known[camera])
        usual = max(_own(known[camera]), 1.0)
        changed = {how: _apart(change(shown[camera]), known[camera])
                   for how, change in CHANGES.items()}  # fmt: skip
        how = min(changed, key=changed.__getitem__)
        if plain > usual and changed[how] < LIKELIER * plain:
            message = f"looks like training {how}: turn or convert the images as in training"
            yield finding("error", "camera_image", robot.name, f"{env_id} {name}", message)
        elif plain > UNLIKE * usual:
            message = (
                f"differs from training by {plain:.0f} brightness levels, where training pictures "
                f"differ by {usual:.0f} among themselves: compare light, placement, crop and "
                "renderer"
            )
            yield finding("warning", "camera_image", robot.name, f"{env_id} {name}", message)


def compare_states(
    robot: Embodiment, env_id: str, trained: Seen, deployed: Seen
) -> Iterator[Finding]:
    """Find state features far outside of what training episodes start with."""
    low_s, high_s = trained.state_Ns.min(axis=0), trained.state_Ns.max(axis=0)
    width_s = np.maximum(high_s - low_s, 1e-3 * np.maximum(np.abs(high_s), 1e-3))
    middle_s = np.median(deployed.state_Ns, axis=0)
    over_s = np.maximum(middle_s - high_s, low_s - middle_s) / width_s
    for entry in np.nonzero(over_s > OUTSIDE)[0].tolist():
        known = float(np.abs(trained.state_Ns[:, entry]).mean())
        ratio = float(np.abs(deployed.state_Ns[:, entry]).mean()) / max(known, 1e-9)
        units = [
            text
            for factor, text in FACTORS.items()
            if max(ratio / factor, factor / max(ratio, 1e-9)) < 2
            or max(ratio * factor, 1 / max(ratio * factor, 1e-9)) < 2
        ]
        hint = f"; is it {units[0]}, or the reverse?" if units else ""
        message = (
            f"starts at {middle_s[entry]:.3g}, while training episodes start between "
            f"{low_s[entry]:.3g} and {high_s[entry]:.3g}{hint}; check units, order and start pose"
        )
        feature = f"{env_id} {robot.state_features[entry]}"
        yield finding("warning", "state_range", robot.name, feature, message)
