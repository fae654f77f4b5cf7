"""A policy's normalisation statistics as people read them: by robot, group and feature."""

from typing import Any

import torch

from actionprior.embodiment.feature_groups import ROTATIONS, ActionGroup, StateGroup
from actionprior.networks.policy_network import PolicyNetwork

STATISTICS = {"mean": "mean", "std": "std", "q01": "1 %", "q99": "99 %"}


def readable_statistics(network: PolicyNetwork) -> dict[str, Any]:
    """Plain data: robot → ``state`` and ``relative_action`` → group → feature → statistic.

    Of a state each statistic is one number; of an action, in the form it is learnt in (relative to
    the chunk's first state, or summed), one for each step of the chunk.
    """
    n = network.prior.normalizer
    told: dict[str, Any] = {}
    for row, robot in zip(network.rows.tolist(), network.embodiments, strict=True):
        of_robot = {
            what: {
                key: getattr(n, f"{kind}_{statistic}")[row].movedim(-1, 0)
                for statistic, key in STATISTICS.items()
            }
            for what, kind in (("state", "state"), ("relative_action", "action"))
        }
        told[robot.name] = {
            "state": {
                group.name: _group(group, robot.state_slots(group), of_robot["state"])
                for group in robot.state
            },
            "relative_action": {
                group.name: _group(group, robot.action_slots(group), of_robot["relative_action"])
                for group in robot.action
            },
        }
    return told


def _group(
    group: ActionGroup | StateGroup, slots: slice, statistics: dict[str, torch.Tensor]
) -> dict[str, Any]:
    names = _entries(group)
    return {
        "unit": group.unit,
        "representation": group.representation,
        "features": {
            name: {key: value[slots][k].tolist() for key, value in statistics.items()}
            for k, name in enumerate(names)
        },
    }


def _entries(group: ActionGroup | StateGroup) -> list[str]:
    """Names of a group's entries in the unified space."""
    if group.representation == "angle_sincos":
        return [f"{part}({feature})" for feature in group.features for part in ("sin", "cos")]
    if group.representation in ROTATIONS:
        return [f"{group.name}[{k}]" for k in range(group.slot_width)]
    return group.features
