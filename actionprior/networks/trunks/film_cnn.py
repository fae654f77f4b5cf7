"""A small text-conditioned CNN whose cells vote for where target and goal are.

Depthwise-separable blocks are fast on a CPU. With FiLM (arXiv 1709.07871) the instruction decides
what to look for. Each cell of the feature map scores whether it shows the target or the goal (a
spatial softmax, arXiv 1504.00702, Sec. 4.2). Each cell also votes for the object's place in metres,
so that places are finer than a cell.

Axes: I images, W text width, C channels, Y rows, X columns, N = Y · X cells, R = 2 roles.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROLES = ("target", "goal")
STRIDE = 4
"""Edge of a cell [pixels]."""


class VisionOutput(NamedTuple):
    """Feature map of an image under an instruction, and each cell's scores and votes."""

    map_ICYX: Tensor
    logit_IRN: Tensor  # score of each cell for showing the role's object
    vote_IRN3: Tensor  # each cell's vote for the object's place [m], robot base frame

    @property
    def weight_IRN(self) -> Tensor:
        """Weight of each cell's vote; sums to 1 over the cells."""
        return self.logit_IRN.softmax(dim=-1)

    @property
    def place_IR3(self) -> Tensor:
        """Places of target and goal [m], robot base frame: the weighted mean of the votes."""
        # In a matrix product, autocast would round metres to bfloat16: 2 mm at 0.5 m.
        return (self.weight_IRN[..., None] * self.vote_IRN3).sum(dim=-2)


class FiLMBlock(nn.Module):
    """Residual block x + pointwise(relu(film(norm(depthwise(x)))))."""

    def __init__(self, channels: int, text_width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        # With batch normalisation, other rows and masked cameras would change an image's output.
        self.norm = nn.GroupNorm(1, channels, affine=False)
        self.film = nn.Linear(text_width, 2 * channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x_ICYX: Tensor, text_IW: Tensor) -> Tensor:
        """Apply the block: (I, C, Y, X) → (I, C, Y, X)."""
        scale, shift = self.film(text_IW)[:, :, None, None].chunk(2, dim=1)
        y = self.norm(self.depthwise(x_ICYX)) * (1 + scale) + shift
        # In place, because at 64 pixels the allocation costs more than the arithmetic.
        out: Tensor = x_ICYX + self.pointwise(F.relu(y, inplace=True))
        return out


class FiLMCNN(nn.Module):
    """FiLM blocks at a quarter of the resolution with context from an eighth, then votes."""

    workspace_mean_R3: Tensor
    workspace_scale_R3: Tensor

    def __init__(self, channels: int, text_width: int, depth: int = 3) -> None:
        """Create the network.

        Args:
            channels: Number C of channels.
            text_width: Width W of the text features.
            depth: Number of blocks before the context.
        """
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(24, channels, 3, stride=2, padding=1),
        )
        self.coordinates = nn.Conv2d(6, channels, 1)
        self.blocks = nn.ModuleList([FiLMBlock(channels, text_width) for _ in range(depth)])
        self.down = nn.Conv2d(channels, channels, 2, stride=2)
        self.context = nn.ModuleList([FiLMBlock(channels, text_width) for _ in range(2)])
        self.up = nn.Conv2d(channels, channels, 1)
        self.overall = nn.Linear(channels + text_width, channels)
        self.last = FiLMBlock(channels, text_width)
        self.norm = nn.GroupNorm(1, channels)
        self.query = nn.Linear(text_width, len(ROLES) * channels)
        self.vote = nn.Conv2d(channels + 6, 3 * len(ROLES), 1)
        # Votes start over a table in front of an arm; `lightning ground` fits this to its data.
        mean, scale = torch.tensor([0.5, 0.0, 0.03]), torch.tensor([0.1, 0.15, 0.05])
        self.register_buffer("workspace_mean_R3", mean.repeat(len(ROLES), 1))
        self.register_buffer("workspace_scale_R3", scale.repeat(len(ROLES), 1))

    def forward(self, images_IKYX: Tensor, text_IW: Tensor) -> VisionOutput:
        """Look at images (I, 3, 4·Y, 4·X) in [-1, 1] for what the texts (I, W) describe."""
        x = self.stem(images_IKYX.contiguous(memory_format=torch.channels_last))
        coordinates = _coordinates(x).expand(len(x), -1, -1, -1)
        x = x + self.coordinates(coordinates[:1])
        for block in self.blocks:
            x = block(x, text_IW)
        context = self.down(x)
        for block in self.context:
            context = block(context, text_IW)
        overall = self.overall(torch.cat([context.mean(dim=(2, 3)), text_IW], dim=1))
        x = x + F.interpolate(self.up(context), scale_factor=2) + overall[:, :, None, None]
        x = self.norm(self.last(x, text_IW))
        query_IRC = self.query(text_IW).unflatten(1, (len(ROLES), -1))
        logit_IRN = query_IRC @ x.flatten(2) / x.shape[1] ** 0.5
        vote = self.vote(torch.cat([x, coordinates], dim=1)).flatten(2)
        vote_IRN3 = vote.unflatten(1, (len(ROLES), 3)).transpose(2, 3)
        mean, scale = self.workspace_mean_R3[:, None], self.workspace_scale_R3[:, None]
        return VisionOutput(x, logit_IRN, vote_IRN3 * scale + mean)


def _coordinates(like_ICYX: Tensor) -> Tensor:
    """Return cell coordinates in [-1, 1] and their products, (1, 6, Y, X).

    The second order is needed to turn a perspective view of a table into metres.
    """
    rows, columns = like_ICYX.shape[2:]
    y = torch.linspace(-1.0, 1.0, rows, device=like_ICYX.device)[:, None].expand(-1, columns)
    x = torch.linspace(-1.0, 1.0, columns, device=like_ICYX.device).expand(rows, -1)
    return torch.stack([x, y, x * y, y * y, x * x, x * y * y])[None]
