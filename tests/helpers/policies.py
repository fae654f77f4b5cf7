"""Small untrained policies that answer quickly, and observations for them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from actionprior.checkpoints.policy import SETTINGS
from actionprior.embodiment import Embodiment
from actionprior.embodiment.recorded_ranges import RecordedRanges
from actionprior.networks.motion_prior import MotionPrior, PriorArchitecture
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.networks.trunks import SmallTrunk
from actionprior.training.settings import grouped_settings
from actionprior.vla import VLAModule
from tests.helpers.robots import delta_arm, windows

SMALL = PriorArchitecture(
    width=32,
    latent_width=16,
    encoder_depth=1,
    decoder_depth=2,
    heads=2,
    chunk_length=12,
    history_length=4,
    decoder_sees_state=True,
)


def tiny_network(robots: list[Embodiment] | None = None, **settings: Any) -> PolicyNetwork:
    """Build an untrained network with statistics, in which every part affects the output."""
    torch.manual_seed(3)
    robots = robots or [delta_arm()]
    prior = MotionPrior(robots, SMALL)
    prior.normalizer.fit(windows(robots, 40, SMALL.chunk_length))
    for module in prior.decoder.modules():  # a new decoder outputs zeros
        if isinstance(module, torch.nn.Linear) and not module.weight.any():
            torch.nn.init.normal_(module.weight, std=0.2)
    trunk = settings.pop("trunk", None)
    trunk = trunk or SmallTrunk(image_size=32, channels=16, text_width=16, width=48)
    return PolicyNetwork(robots, trunk, prior, **{"width": 32, "heads": 2, **settings}).eval()


def limited(network: PolicyNetwork, bound: float) -> PolicyNetwork:
    """Give the first robot recorded limits of ±bound for actions, and of ±1 for states."""
    actions, states = np.ones(37, dtype=np.float32), np.ones(74, dtype=np.float32)
    network.recorded_ranges[network.embodiments[0].name] = RecordedRanges(
        -bound * actions, bound * actions, actions, -states, states
    )
    return network


def observation(robot: Embodiment, step: int = 0) -> dict[str, Any]:
    """Return a random observation of a robot; any two steps differ."""
    rng = np.random.default_rng(step)
    images = {camera: rng.integers(0, 255, (40, 48, 3), dtype=np.uint8) for camera in robot.cameras}
    state = rng.uniform(-1, 1, len(robot.state_features)).astype(np.float32)
    return {robot.state_key: state, "task": f"reach for thing {step % 3}", **images}


def write_checkpoint(network: PolicyNetwork, path: Path, step: int = 7) -> Path:
    """Write the checkpoint that a run of Stage 2 would save for a network."""
    module = VLAModule(
        [robot.to_dict() for robot in network.embodiments],
        network.trunk,
        architecture=network.prior.architecture,
        **grouped_settings({key: getattr(network, key) for key in SETTINGS}),
    )
    module.network = network
    checkpoint = {
        "pytorch-lightning_version": "2.6.6",
        "global_step": step,
        "state_dict": module.state_dict(),
    }
    module.on_save_checkpoint(checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)
    return path


def lerobot_batch(observations: list[dict[str, Any]]) -> dict[str, Any]:
    """Batch observations as LeRobot passes them to a policy; images are float (B, 3, Y, X)."""
    batch: dict[str, Any] = {"task": [o["task"] for o in observations]}
    for key in observations[0].keys() - {"task"}:
        stacked = torch.from_numpy(np.stack([o[key] for o in observations]))
        if stacked.dtype == torch.uint8:
            stacked = stacked.movedim(-1, 1).contiguous().float() / 255
        batch[key] = stacked
    return batch
