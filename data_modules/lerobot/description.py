"""Guess a robot's description from the feature names of its LeRobot dataset."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from actionprior.embodiment.feature_groups import ACTION_SLOTS, STATE_SLOTS
from actionprior.embodiment.representations.by_name import ACTION_REPRESENTATIONS
from actionprior.errors import UserError
from data_modules.lerobot.columns import LeRobotEmbodiment
from data_modules.lerobot.hub import locate
from data_modules.lerobot.remote import is_url, local_folder
from data_modules.lerobot.source import feature_names, read_info

SIDES = {"left": r"left|(^|_)l_|(^|_)arm1(_|$)", "right": r"right|(^|_)r_|(^|_)arm2(_|$)"}
KINDS = {
    "tool": r"^(ee|eef|tcp|end_?effector|pose)([_.]|$)|^[xyz]$|^[rq][xyzw]$|^(roll|pitch|yaw)$",
    **{r.name: r.name_pattern for r in ACTION_REPRESENTATIONS.values() if r.name_pattern},
    "hand": r"hand|finger|thumb|pinky|index|middle|ring(?!_)",
    "waist": r"waist|torso",
}
LARGEST_ANGLE = 12.6  # two turns [rad]; larger values are not radians


class BodyPart(NamedTuple):
    """Features of one part of a robot, such as ``arm`` or ``left_hand``.

    Attributes:
        side: ``left``, ``right`` or empty.
        kind: ``arm`` or a key of ``KINDS``.
        features: The dataset's names of the features.
    """

    side: str
    kind: str
    features: list[str]

    @property
    def name(self) -> str:
        """Name of the part's group."""
        return f"{self.side}_{self.kind}" if self.side else self.kind


def describe(dataset: str, name: str | None = None) -> dict[str, Any]:
    """Guess a robot's description, as plain data, from the feature names of its dataset.

    Joints whose names contain a side go to the slot of that arm, hands and waists to their own
    slots. A single arm goes to ``joints``, followed by its gripper. Actions are relative to the
    state group of the same part and width. Units follow from the range of values. Features that
    fit no slot are listed under ``ignored``, and so are poses of a tool, because their names do
    not say how an orientation is encoded.

    Args:
        dataset: Folder, URL, or ``user/name`` on the hub.
        name: Name of the robot; by default the dataset's ``robot_type``.

    Raises:
        DataError: the dataset is missing or damaged.
        UserError: the dataset has no ``action`` or no ``observation.state``, or the names of its
            actions do not say where they belong.
    """
    on_hub = not (Path(dataset).expanduser().exists() or is_url(dataset)) and (
        re.fullmatch(r"[\w.-]+/[\w.-]+(@.+)?", dataset) is not None
    )
    root = locate(dataset, videos=False) if on_hub else local_folder(dataset)
    info = read_info(root)
    known = info["features"]
    for key in ("action", "observation.state"):
        if key not in known:
            raise UserError(f"{root}: has no {key!r}, only {sorted(known)}; describe it by hand")
    actions, states = (_parts(feature_names(known[k])) for k in ("action", "observation.state"))
    largest = _largest(root, known)
    ignored: list[str] = []
    state = _place(states, _state_place, STATE_SLOTS, largest, "observation.state", ignored)
    action = _place(actions, _action_place, ACTION_SLOTS, largest, "action", ignored)
    if not action:
        raise UserError(
            f"{root}: the names of its actions ({', '.join(feature_names(known['action']))}) do "
            "not say where they belong; describe it by hand, as docs/add_your_robot.md shows"
        )
    for group in action:
        for same in (s for s in state if s["name"] == group["name"]):
            matches = len(same["features"]) == len(group["features"])
            if matches and "representation" not in group and same["unit"] == group["unit"]:
                group["relative_to"] = group["name"]
    robot = {
        "name": name or _identifier(info.get("robot_type") or root.name),
        "control_hz": info["fps"],
        "repo_ids" if on_hub else "roots": [dataset],
        "action": action,
        "state": state,
        "ignored": sorted(set(ignored)),
        "cameras": sorted(k for k, f in known.items() if f["dtype"] in ("image", "video")),
    }
    LeRobotEmbodiment.from_dict(robot)  # raises if the guess is not a valid description
    return robot


def _parts(names: Sequence[str]) -> list[BodyPart]:
    """Sort features into parts of the robot by their names."""
    found: dict[tuple[str, str], BodyPart] = {}
    for name in names:
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        side = next((s for s, pattern in SIDES.items() if re.search(pattern, words)), "")
        kind = next((k for k, pattern in KINDS.items() if re.search(pattern, words)), "arm")
        found.setdefault((side, kind), BodyPart(side, kind, [])).features.append(name)
    return list(found.values())


def _place(
    parts: list[BodyPart],
    place: Callable[[BodyPart, dict[str, int]], tuple[str, int]],
    slots: dict[str, tuple[int, int]],
    largest: dict[str, dict[str, float]],
    key: str,
    ignored: list[str],
) -> list[dict[str, Any]]:
    """Describe the group of each part that fits into a slot; add the others to ``ignored``."""
    taken: dict[str, int] = {}
    groups = []
    for part in sorted(parts, key=lambda p: p.kind == "gripper"):  # after their arms
        slot, offset = place(part, taken)
        start, stop = slots[slot]
        if part.kind == "tool" or offset + len(part.features) > stop - start:
            ignored += part.features
            continue
        taken[slot] = offset + len(part.features)
        group: dict[str, Any] = {"name": part.name, "slot": slot, "features": part.features}
        if part.kind in ACTION_REPRESENTATIONS:
            group["representation"] = part.kind
        else:
            group["unit"] = _unit(part, largest.get(key, {}))
        if offset:
            group["offset"] = offset
        groups.append(group)
    return groups


def _action_place(part: BodyPart, taken: dict[str, int]) -> tuple[str, int]:
    if part.kind == "waist":
        return "waist", 0
    if part.kind == "hand":
        return f"{part.side or 'right'}_hand", 0
    slot = f"{part.side}_arm" if part.side else "joints"
    if part.kind == "gripper":
        return slot, max(taken.get(slot, 0), 7 if slot == "joints" else 0)
    return slot, taken.get(slot, 0)


def _state_place(part: BodyPart, taken: dict[str, int]) -> tuple[str, int]:
    if not part.side and part.kind in ("arm", "gripper") and len(part.features) <= 7:
        return "joints", 7 if part.kind == "gripper" else taken.get("joints", 0)
    return "body", taken.get("body", 0)


def _unit(part: BodyPart, largest: dict[str, float]) -> str:
    """Guess the unit from the largest value; the doctor checks it more closely."""
    most = max((largest.get(f, 0.0) for f in part.features), default=0.0)
    if part.kind == "hand" and 0 < most <= 1:
        return "0-1"
    if most <= LARGEST_ANGLE:
        return "rad"
    return "normalised" if most <= 110 and part.features[0].endswith(".pos") else "deg"


def _largest(root: Path, features: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Read the largest absolute value of each feature from meta/stats.json; empty without it."""
    try:
        stats = json.loads((root / "meta" / "stats.json").read_text())
        return {
            key: {
                name: max(abs(low), abs(high))
                for name, low, high in zip(
                    feature_names(features[key]), stats[key]["min"], stats[key]["max"], strict=True
                )
            }
            for key in ("action", "observation.state")
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _identifier(text: str) -> str:
    return re.sub(r"\W+", "_", text).strip("_").lower() or "robot"
