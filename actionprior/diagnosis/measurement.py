"""One measured number, and helpers that make findings about a policy."""

from collections.abc import Iterable
from typing import NamedTuple

from actionprior.checkup import Finding, Level


class MeasuredValue(NamedTuple):
    """One number of a diagnosis.

    Attributes:
        robot: Name of the robot.
        subject: Part of the diagnosis, such as ``latent``.
        what: What was measured.
        group: Action group, camera or environment that the number is about; empty: all.
        value: The number.
        unit: Unit of the number; empty: none.
    """

    robot: str
    subject: str
    what: str
    group: str
    value: float
    unit: str


class Diagnosis(NamedTuple):
    """Measured values and findings, of one subject or of all."""

    measurements: list[MeasuredValue]
    findings: list[Finding]


def join(parts: Iterable[Diagnosis]) -> Diagnosis:
    """Join the results of several subjects."""
    joined = Diagnosis([], [])
    for part in parts:
        joined.measurements.extend(part.measurements)
        joined.findings.extend(part.findings)
    return joined


def finding(level: Level, check: str, robot: str, feature: str, message: str) -> Finding:
    """Create a finding about a policy, which has no place in a dataset."""
    return Finding(level, check, robot, "", feature, -1, -1, message)
