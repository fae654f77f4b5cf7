"""Policies of the task whose causes of error are known, and their diagnoses."""

from collections.abc import Callable
from functools import cache

import pytest

from actionprior.diagnosis.measurement import Diagnosis
from actionprior.diagnosis.run import diagnose_policy
from actionprior.diagnosis.simulator import Simulator
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.rollout import ObservationMap
from tests.helpers.linear_policy import fitted_policy
from tests.helpers.signal_task import CAMERAS, SignalData

Fitted = Callable[..., tuple[PolicyNetwork, SignalData]]
Diagnose = Callable[..., Diagnosis]


@pytest.fixture(scope="session")
def fitted() -> Fitted:
    """Fit a policy to data with a planted fault, or with a narrow latent; each once."""

    @cache
    def fit(fault: str = "", latent_width: int = 24) -> tuple[PolicyNetwork, SignalData]:
        data = SignalData(fault=fault)
        return fitted_policy(data, latent_width), data

    return fit


@pytest.fixture(scope="session")
def diagnose(fitted: Fitted) -> Diagnose:
    """Diagnose a fitted policy on held-out episodes, or with a (faulty) simulator too."""

    @cache
    def run(
        fault: str = "", latent_width: int = 24, simulator: str | None = None, on: str | None = None
    ) -> Diagnosis:
        network, data = fitted(fault, latent_width)
        if on is not None:
            data = SignalData(fault=on)
            data.setup("fit")
        rollouts = None if simulator is None else in_simulator(simulator)
        return diagnose_policy(network, data, 128, rollouts, episodes=4)

    return run


SHARE = "share of the constant chunk's error"


def in_simulator(fault: str = "") -> Simulator:
    images = {camera: camera for camera in CAMERAS}
    return Simulator(
        ["test/Signals-v0"],
        ObservationMap(images=images),
        "signals",
        execute_steps=4,
        env_kwargs={"fault": fault},
    )


def accused(results: Diagnosis) -> set[str]:
    """Checks of the findings that are more than notes."""
    return {f.check for f in results.findings if f.level != "note"}


def value(
    results: Diagnosis, what: str, group: str = "share of the constant chunk's error"
) -> float:
    [found] = [m.value for m in results.measurements if (m.what, m.group) == (what, group)]
    return found
