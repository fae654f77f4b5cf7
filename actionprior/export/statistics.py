"""A policy's normalisation statistics in a readable form: by robot, group and feature."""

from typing import Any

import torch

from actionprior.embodiment import ActionGroup, StateGroup
from actionprior.embodiment.representations.base import Representation
from actionprior.networks.policy_network import PolicyNetwork

STATISTICS = {"mean": "mean", "std": "std", "q01": "1 %", "q99": "99 %"}


def readable_statistics(network: PolicyNetwork) -> dict[str, Any]:
    """Return plain data: robot → ``state`` and ``relative_action`` → group → feature → statistic.

    A statistic of a state is one number. A statistic of an action has one number per step of the
    chunk, in the form that the decoder learns (relative to the chunk's first state, or summed).
    """
    n = network.prior.normalizer
    readable: dict[str, Any] = {}
    for row, robot in zip(network.rows.tolist(), network.embodiments, strict=True):
        statistics = {
            what: {
                key: getattr(n, f"{kind}_{statistic}")[row].movedim(-1, 0)
                for statistic, key in STATISTICS.items()
            }
            for what, kind in (("state", "state"), ("relative_action", "action"))
        }
        readable[robot.name] = {
            "state": {
                group.name: _group(group, known, robot.state_slots(group), statistics["state"])
                for group, known in zip(robot.state, robot.state_representations, strict=True)
            },
            "relative_action": {
                group.name: _group(
                    group, known, robot.action_slots(group), statistics["relative_action"]
                )
                for group, known in zip(robot.action, robot.action_representations, strict=True)
            },
        }
    return readable


def _group(
    group: ActionGroup | StateGroup,
    representation: Representation,
    slots: slice,
    statistics: dict[str, torch.Tensor],
) -> dict[str, Any]:
    names = representation.entry_names(group.features, group.name)
    return {
        "unit": group.unit,
        "representation": group.representation,
        "features": {
            name: {key: value[slots][k].tolist() for key, value in statistics.items()}
            for k, name in enumerate(names)
        },
    }
