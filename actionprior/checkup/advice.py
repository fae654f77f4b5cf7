"""What to set because of a finding, as text that can be pasted.

Options and lines of a recipe stand between backticks: `--data.skip_idle true` on the command line,
`resample: true` on the robot, `unit: deg` in one of its groups.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from actionprior.checkup.subject import Subject
from actionprior.embodiment import ActionGroup, Embodiment, EmbodimentError, StateGroup
from actionprior.embodiment.feature_groups import ACTION_SLOTS, STATE_SLOTS

EXCLUDE = (
    "exclude: add `--exclude_episodes excluded.yaml` to this command, then "
    "`--data.mixture.exclude_episodes excluded.yaml` to training"
)
RECORD = "no option repairs this: record again, or correct the dataset"
PRETRAINED = "`--config recipes/trunks/siglip2.yaml` takes a pretrained trunk"
LISTED = 8  # most episodes that an advice lists

Changes = Mapping[tuple[str, str], Mapping[str, Any]]
"""Keys to set in groups, by kind (``action`` or ``state``) and name of the group."""


def line(key: str, value: object) -> str:
    """Return a line of a recipe between backticks."""
    import yaml

    text = yaml.safe_dump(
        {key: value}, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True
    )
    return f"`{text.strip()[1:-1]}`"


def on_robot(**keys: object) -> str:
    """Name keys of the robot's block in a recipe."""
    return f"{', '.join(line(*item) for item in keys.items())} on the robot"


def in_groups(changes: Changes) -> str:
    """Name keys of the robot's groups in a recipe."""
    parts = [
        f"{', '.join(line(*item) for item in keys.items())} in {kind} group {name!r}"
        for (kind, name), keys in changes.items()
    ]
    return " and ".join(parts)


def exclude_listed(subject: Subject, episodes: Iterable[int]) -> str:
    """Say how to exclude episodes that the list of the doctor does not have.

    Args:
        subject: Dataset of the episodes.
        episodes: Numbers of the episodes among those that are examined.
    """
    numbers = [int(subject.number_E[e]) for e in episodes][:LISTED]
    entry = line(subject.robot.name, {subject.dataset: numbers})
    return f"`--data.mixture.exclude_episodes excluded.yaml`, a file with the line {entry}"


def fits(robot: Embodiment, changes: Changes) -> bool:
    """Check whether a robot is valid with other keys in its groups."""
    try:
        changed(robot, changes)
    except EmbodimentError:
        return False
    return True


def changed(robot: Embodiment, changes: Changes) -> Embodiment:
    """Copy a robot with other keys in its groups.

    Raises:
        EmbodimentError: The robot would not be valid.
    """
    plain = Embodiment.from_dict(robot.to_dict())  # without the keys that a subclass adds
    action = [replace(g, **changes.get(("action", g.name), {})) for g in plain.action]
    state = [replace(g, **changes.get(("state", g.name), {})) for g in plain.state]
    return replace(plain, action=action, state=state)


def of_joints(robot: Embodiment, kind: str, name: str) -> list[tuple[str, str]]:
    """List the groups that share a unit with one: the state of an action, and its actions."""
    if kind == "action":
        (state,) = {g.relative_to for g in robot.action if g.name == name}
    else:
        state = name
    actions = [("action", g.name) for g in robot.action if g.relative_to and g.relative_to == state]
    if not state:
        return [(kind, name)]
    return [*actions, ("state", state)]


def unit(robot: Embodiment, kind: str, name: str, value: str) -> str:
    """Name the lines that give a group, and those of the same joints, another unit."""
    changes = {group: {"unit": value} for group in of_joints(robot, kind, name)}
    if not fits(robot, changes):
        return f"this group cannot be in {value}: convert it in the dataset"
    return in_groups(changes)


def different_units(robot: Embodiment, action: ActionGroup, units: Mapping[str, str]) -> str:
    """Name the lines for an action and a state in different units: it is then learnt absolute.

    Args:
        robot: Robot of both.
        action: Group of the action.
        units: Unit of the ``action``, and of the ``state`` that it is relative to.
    """
    changes: dict[tuple[str, str], dict[str, str]] = {
        ("action", action.name): {"unit": units["action"], "relative_to": ""}
    }
    state = action.relative_to or next(g.name for g in robot.state if g.features == action.features)
    changes["state", state] = {"unit": units["state"]}
    return in_groups(changes) if fits(robot, changes) else ""


def wrapped_angles(robot: Embodiment, kind: str, name: str) -> str:
    """Name the lines that make a group's angles, as action and as state, wrap after a turn."""
    groups = of_joints(robot, kind, name)
    if kind == "action" and groups == [("action", name)]:
        (group,) = (g for g in robot.action if g.name == name)
        same = [s for s in robot.state if s.features == group.features and s.unit == group.unit]
        if not same:
            return "a joint that turns past its end needs a state of the same joints: " + RECORD
        groups.append(("state", same[0].name))
    changes: dict[tuple[str, str], dict[str, Any]] = {
        group: {"representation": "wrapped_angle"} for group in groups
    }
    state = groups[-1]
    for kind_, group_name in groups[:-1]:
        (group,) = (g for g in robot.action if g.name == group_name)
        if not group.relative_to:
            changes[kind_, group_name]["relative_to"] = state[1]
    if fits(robot, changes):
        return in_groups(changes)
    # Sine and cosine take two entries per joint, for which ``body`` has room.
    for offset in range(STATE_SLOTS["body"][1] - STATE_SLOTS["body"][0]):
        changes[state] = {"representation": "wrapped_angle", "slot": "body", "offset": offset}
        if fits(robot, changes):
            return in_groups(changes)
    return "the state's slots have no room for sine and cosine: " + RECORD


def another_offset(robot: Embodiment, name: str) -> str:
    """Name the line that moves an action group to free entries of its slot; empty if none is."""
    (group,) = (g for g in robot.action if g.name == name)
    start, stop = ACTION_SLOTS[group.slot]
    for offset in reversed(range(stop - start)):
        changes = {("action", name): {"offset": offset}}
        if offset != group.offset and fits(robot, changes):
            return in_groups(changes)
    return ""


def exchange(robot: Embodiment, first: str, second: str) -> str:
    """Name the line that exchanges two action features; empty if they are in two groups."""
    for group in robot.action:
        if {first, second} <= set(group.features):
            other = {first: second, second: first}
            features = [other.get(feature, feature) for feature in group.features]
            return in_groups({("action", group.name): {"features": features}})
    return ""


def ignore(robot: Embodiment, kind: str, feature: str) -> str:
    """Name the lines that leave a feature out, as action and as state; empty if it must stay."""
    everything = [("action", g) for g in robot.action] + [("state", g) for g in robot.state]
    ((mine, index),) = (
        (g, g.features.index(feature)) for k, g in everything if k == kind and feature in g.features
    )
    names = of_joints(robot, kind, mine.name)
    members = [(k, g) for k, g in everything if (k, g.name) in names]
    if len(mine.features) == 1:
        return ""
    changes = {
        (k, g.name): {"features": g.features[:index] + g.features[index + 1 :]} for k, g in members
    }
    if not fits(robot, changes):
        return ""
    left_out = dict.fromkeys([*robot.ignored, *(g.features[index] for _, g in members)])
    return f"{in_groups(changes)} and {on_robot(ignored=list(left_out))}"


def groups_as(groups: Sequence[ActionGroup] | Sequence[StateGroup], kind: str) -> str:
    """Name the line with all groups of a robot, without the keys that have their default."""
    plain = []
    for group in groups:
        empty = type(group)()
        keys = [f.name for f in fields(group)]
        plain.append({k: v for k in keys if (v := getattr(group, k)) != getattr(empty, k)})
    return on_robot(**{kind: plain})
