"""Folded normalisations compute the same; where they would not, nothing is folded."""

import timm
import torch
from torch import Tensor, nn

from actionprior.networks.fold_norms import fold_norms, weights_state


def run(model: nn.Module) -> list[Tensor]:
    return [model(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))]


def with_statistics(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return model.eval()


def test_the_copy_gives_the_same_without_normalisations() -> None:
    model = with_statistics(
        timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2))
    )
    image = torch.randn(3, 3, 64, 64)
    folded = fold_norms(model, lambda m: list(m(image)))
    assert folded is not None
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert not any(p.requires_grad for p in folded.parameters())
    for wanted, found in zip(model(image), folded(image), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules()), "the model is unchanged"


def test_without_a_normalisation_nothing_is_folded() -> None:
    assert fold_norms(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), run) is None


def test_neighbours_that_do_not_follow_each_other_are_not_folded() -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.conv(x)) + self.norm(x)

    assert fold_norms(with_statistics(Other()), run) is None


def test_weights_that_move_or_change_have_another_state() -> None:
    model = nn.Conv2d(3, 4, 3)
    before = weights_state(model)
    assert weights_state(model) == before
    with torch.no_grad():
        model.weight.mul_(2)
    changed = weights_state(model)
    assert changed != before
    model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})
    assert weights_state(model) not in (before, changed)
