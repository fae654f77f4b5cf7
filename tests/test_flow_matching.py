"""Test the flow: paths, integrators, time laws and features, in float64."""

import math

import pytest
import torch

from actionprior.flow_matching import (
    INTEGRATORS,
    Integrator,
    integrate,
    integration_times,
    path_sample,
    sample_time,
    time_features,
)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5, 7)])  # B equal and unequal to D
def test_path_ends_are_noise_and_data(shape: tuple[int, ...]) -> None:
    data, noise = torch.randn(2, *shape, dtype=torch.float64)
    zero, one = torch.zeros(shape[0]).double(), torch.ones(shape[0]).double()
    assert torch.equal(path_sample(data, noise, zero).x_r, noise)
    assert torch.equal(path_sample(data, noise, one).x_r, data)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5, 7)])
def test_velocity_is_the_derivative_of_the_path_and_leads_to_data(shape: tuple[int, ...]) -> None:
    data, noise = torch.randn(2, *shape, dtype=torch.float64)
    r = torch.rand(shape[0], dtype=torch.float64)
    sample = path_sample(data, noise, r)
    later = path_sample(data, noise, r + 1e-3).x_r
    torch.testing.assert_close((later - sample.x_r) / 1e-3, sample.velocity)
    rest = (1 - r).reshape(-1, *([1] * (len(shape) - 1)))
    torch.testing.assert_close(sample.x_r + rest * sample.velocity, data)


def test_each_row_has_its_own_time() -> None:
    data, noise = torch.randn(2, 4, 4, dtype=torch.float64)
    r = torch.tensor([0.0, 1.0, 0.25, 0.5], dtype=torch.float64)
    x = path_sample(data, noise, r).x_r
    for row in range(4):
        torch.testing.assert_close(x[row], r[row] * data[row] + (1 - r[row]) * noise[row])
    with pytest.raises(ValueError, match="one time per row"):
        path_sample(data, noise, r[:3])


@pytest.mark.parametrize("method", INTEGRATORS)
def test_integration_of_a_straight_flow_is_exact(method: str) -> None:
    data, noise = torch.randn(2, 3, 5, dtype=torch.float64)
    end = integrate(lambda x, r: data - noise, noise, steps=7, method=method)
    torch.testing.assert_close(end, data)


def test_integrators_have_their_orders() -> None:
    start = torch.ones(2, 3, dtype=torch.float64)
    exact = start * math.e

    def error(method: str, steps: int) -> float:
        return float((integrate(lambda x, r: x, start, steps, method) - exact).abs().max())

    assert error("euler", 10) / error("euler", 20) == pytest.approx(2, rel=0.1)
    assert error("midpoint", 10) / error("midpoint", 20) == pytest.approx(4, rel=0.1)
    assert error("rk4", 10) / error("rk4", 20) == pytest.approx(16, rel=0.1)


def test_the_field_is_evaluated_at_times_from_noise_to_data() -> None:
    seen = []
    integrate(lambda x, r: seen.append(float(r[0])) or torch.zeros_like(x), torch.ones(1, 1), 4)
    assert seen == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("method", INTEGRATORS)
def test_the_times_of_all_calls_are_known_before(method: Integrator) -> None:
    seen: list[torch.Tensor] = []
    start = torch.ones(2, 1)
    integrate(lambda x, r: seen.append(r) or torch.zeros_like(x), start, 7, method)
    times = integration_times(7, method, start)
    assert torch.equal(torch.stack(seen), times[:, None].expand(-1, 2))


def test_times_are_stratified_and_follow_their_law() -> None:
    g = torch.Generator().manual_seed(0)
    uniform = sample_time(64, "uniform", generator=g)
    assert sorted((uniform * 64).long().tolist()) == list(range(64))  # one in each stratum
    beta = sample_time(20_000, "beta", generator=g)
    assert float(beta.min()) >= 0
    assert float(beta.max()) <= 1
    # 1 - r = 0.001 + 0.999·u with u ~ Beta(1.5, 1), whose mean is 0.6
    assert float(1 - beta.double().mean()) == pytest.approx(0.001 + 0.999 * 0.6, abs=1e-3)
    with pytest.raises(ValueError, match="'gamma' is unknown"):
        sample_time(3, "gamma")


def test_time_features_distinguish_times() -> None:
    r = torch.linspace(0, 1, 101, dtype=torch.float64)
    f = time_features(r, 64)
    assert f.shape == (101, 64)
    assert float(torch.pdist(f).min()) > 0.1


def test_bad_integration_is_rejected() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        integrate(lambda x, r: x, torch.ones(1, 1), 0)
    with pytest.raises(ValueError, match="'rk9' is unknown"):
        integrate(lambda x, r: x, torch.ones(1, 1), 1, "rk9")
