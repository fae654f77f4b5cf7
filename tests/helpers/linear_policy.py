"""A policy that is fitted in closed form, in milliseconds: real trunk, normaliser and network.

Encoder, fusion and decoder are linear in their features. A latent is the chunk's principal
components, put on the unit sphere.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.data import EmbodiedDataModule
from actionprior.diagnosis.windows import Windows, gather
from actionprior.networks.motion_prior import MotionPrior, PriorArchitecture
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.networks.trunks.base import TrunkTokens
from tests.helpers.synthetic import BrightnessTrunk

FEATURES = 300  # random features of the state, for what is not linear in it
REACH = 3.0  # divisor of components, so that latents stay away from the sphere's equator


def on_sphere(components_BK: Tensor) -> Tensor:
    ones_B1 = torch.ones_like(components_BK[:, :1])
    return F.normalize(torch.cat([components_BK / REACH, ones_B1], dim=1), dim=1)


def from_sphere(z_BZ: Tensor) -> Tensor:
    return z_BZ[:, :-1] / z_BZ[:, -1:].clamp(min=0.05) * REACH


class LinearEncoder(nn.Module):
    def __init__(self, mean_F: Tensor, basis_FK: Tensor) -> None:
        super().__init__()
        self.mean_F, self.basis_FK = mean_F, basis_FK

    def forward(self, action_BHA: Tensor, *_: Tensor) -> Tensor:
        return on_sphere((action_BHA.flatten(1) - self.mean_F) @ self.basis_FK)


class LinearDecoder(nn.Module):
    """Flows in a straight line to the chunk of a latent."""

    def __init__(self, mean_F: Tensor, basis_FK: Tensor) -> None:
        super().__init__()
        self.mean_F, self.basis_FK = mean_F, basis_FK

    def forward(self, x_BHA: Tensor, r_BT: Tensor, z_BZ: Tensor, *_: Tensor) -> Tensor:
        end_BF = self.mean_F + from_sphere(z_BZ) @ self.basis_FK.T
        left_BT1 = (1 - r_BT)[..., None].clamp(min=0.05)
        return (end_BF.view_as(x_BHA) - x_BHA) / left_BT1


class LinearFusion(nn.Module):
    def __init__(self, state_width: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.turn_SF = 2 * torch.randn(state_width, FEATURES, generator=draw)
        self.shift_F = 2 * torch.randn(FEATURES, generator=draw)
        self.weight_FK = torch.zeros(0, 0)

    def features(self, tokens_BNW: Tensor, state_BS: Tensor) -> Tensor:
        bent_BF = (state_BS @ self.turn_SF + self.shift_F).relu()
        ones_B1 = torch.ones(len(state_BS), 1)
        return torch.cat([tokens_BNW.flatten(1), state_BS, bent_BF, ones_B1], dim=1)

    def fit(self, features_BF: Tensor, components_BK: Tensor) -> None:
        x_BF, y_BK = features_BF.double(), components_BK.double()
        gram_FF = x_BF.T @ x_BF + 1e-3 * torch.eye(x_BF.shape[1], dtype=torch.float64)
        self.weight_FK = torch.linalg.solve(gram_FF, x_BF.T @ y_BK).float()

    def forward(
        self, tokens: TrunkTokens, dataset_BPW: Tensor, state_BS: Tensor, *_: Tensor
    ) -> Tensor:
        return on_sphere(self.features(tokens.tokens_BNW, state_BS) @ self.weight_FK)


def fitted_policy(data: EmbodiedDataModule, latent_width: int = 24) -> PolicyNetwork:
    """Fit a policy to all training windows of a data module with one robot."""
    torch.manual_seed(0)
    data.setup("fit")
    architecture = PriorArchitecture(
        data.chunk_length, data.history_length, 16, latent_width, 1, 1, heads=1
    )
    prior = MotionPrior(data.embodiments, architecture)
    prior.normalizer.fit(data.statistics_sample())
    network = PolicyNetwork(
        data.embodiments, BrightnessTrunk(), prior, history="off", integration_steps=4
    ).eval()
    windows = gather(data, 0, data.frames.train.frames())
    with torch.no_grad():
        _fit(network, windows, latent_width - 1)
    return network.requires_grad_(False)


def _fit(network: PolicyNetwork, windows: Windows, components: int) -> None:
    prior, seen = network.prior, windows.observation
    action_BF = prior.normalizer.normalize_action(windows.future).flatten(1)
    mean_F = action_BF.mean(0)
    basis_FK = torch.linalg.svd(action_BF - mean_F, full_matrices=False)[2][:components].T
    prior.encoder = LinearEncoder(mean_F, basis_FK)
    prior.decoder = LinearDecoder(mean_F, basis_FK)
    tokens = network.trunk(seen.images_BCKYX, seen.camera_mask_BC, seen.task).tokens_BNW
    state_BS = prior.normalizer.normalize_state(seen.state_BS[:, None], seen.embodiment_B)[:, 0]
    network.fusion = fusion = LinearFusion(state_BS.shape[1])
    fusion.fit(fusion.features(tokens, state_BS), (action_BF - mean_F) @ basis_FK)
