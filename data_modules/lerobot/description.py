"""Guess a robot's description from the feature names of its LeRobot dataset.

What the names do not say is left out of the description, and said in its notes.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from actionprior.data import DataError
from actionprior.embodiment.feature_groups import ACTION_SLOTS, STATE_SLOTS
from actionprior.errors import UserError
from actionprior.networks.trunks.instruction_signs import reading_faults
from actionprior.networks.trunks.word_encoder import word_signs
from data_modules.images.camera_files import recorded_size
from data_modules.images.pixels import why_no_colour
from data_modules.lerobot.body_parts import BodyPart, sort_parts
from data_modules.lerobot.columns import LeRobotEmbodiment
from data_modules.lerobot.hub import locate
from data_modules.lerobot.names import feature_names, has_names
from data_modules.lerobot.remote import is_url, local_folder
from data_modules.lerobot.source import read_info
from data_modules.lerobot.tasks import read_tasks
from data_modules.lerobot.value_ranges import Range, value_ranges

ACTION_KEYS = ("action", "actions")
STATE_KEYS = ("observation.state", "state", "observation.states")
LARGEST_ANGLE = 12.6  # two turns [rad]; larger values are not radians
LARGEST_PLACE = 10.0  # [m]; larger values are millimetres
TICKS = 720.0  # larger values are no degrees
OVERLAP = 0.5  # share of the joint range that targets and states of one part have in common
SMALL = 0.2  # range of changes per step, as a share of the state's

Ranges = dict[str, Range]


class Description(NamedTuple):
    """Guessed description of a robot.

    Attributes:
        robot: Plain data of a ``LeRobotEmbodiment``.
        notes: What is left out or uncertain, a sentence each.
        instructions: Instructions in the data; none if they cannot be read.
    """

    robot: dict[str, Any]
    notes: list[str]
    instructions: list[str]


def describe(dataset: str, name: str | None = None) -> Description:
    """Guess a robot's description from the feature names of its dataset, and the range of values.

    Joints whose names contain a side go to the slot of that arm, hands and waists to their own
    slots. A single arm goes to ``joints``, followed by its gripper. A tool's position goes to
    ``right_arm`` (action) and ``end_effector`` (state), and so does an orientation whose encoding
    the names say. Actions are relative to the state group of the same part, width and unit.
    Features whose place is uncertain are listed under ``ignored`` and in the notes.

    Args:
        dataset: Folder, URL, or ``user/name`` on the hub.
        name: Name of the robot; by default the dataset's ``robot_type``.

    Raises:
        DataError: the dataset is missing or damaged.
        UserError: the dataset has no action, or the names of its actions do not say where they
            belong.
    """
    on_hub = not (Path(dataset).expanduser().exists() or is_url(dataset)) and (
        re.fullmatch(r"[\w.-]+/[\w.-]+(@.+)?", dataset) is not None
    )
    root = locate(dataset, videos=False) if on_hub else local_folder(dataset)
    info = read_info(root)
    guess = _Guess(root, info)
    action, state = guess.groups()
    known = info["features"]
    robot: dict[str, Any] = {
        "name": name or _identifier(info.get("robot_type"), root),
        "control_hz": info["fps"],
        "repo_ids" if on_hub else "roots": [dataset],
        "action": action,
        "state": state,
        "ignored": sorted(guess.ignored),
        "cameras": guess.cameras(),
    }
    for argument, key, usual in (
        ("action_key", guess.action_key, ACTION_KEYS[0]),
        ("state_key", guess.state_key, STATE_KEYS[0]),
    ):
        if key in known and key != usual:
            robot[argument] = key
    LeRobotEmbodiment.from_dict(robot)  # raises if the guess is not a valid description
    try:
        instructions = sorted(set(read_tasks(root, info).values()))
    except DataError:  # the doctor and training say what is wrong
        instructions = []
    notes = guess.notes + _notes_of_stage_two(info, robot["cameras"], instructions)
    return Description(robot, notes, instructions)


def _notes_of_stage_two(
    info: dict[str, Any], cameras: list[str], instructions: list[str]
) -> list[str]:
    """Return what a policy's recipe needs for these images, and cannot read of instructions."""
    notes = []
    sizes = {camera: recorded_size(info["features"][camera]) for camera in cameras}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{camera} {rows}x{columns}" for camera, (rows, columns) in sizes.items())
        notes.append(
            f"cameras differ in size ({found}); set images.image_size in Stage 2, and images.fit "
            "to pad or crop to keep the aspect ratio"
        )
    return notes + reading_faults(instructions, word_signs(instructions), "SmallTrunk")


class _Guess:
    """Groups of one dataset, and what is left out of them.

    Raises:
        UserError: The dataset has no action.
    """

    def __init__(self, root: Path, info: dict[str, Any]) -> None:
        self.root, self.info, self.known = root, info, info["features"]
        self.ignored: set[str] = set()
        self.notes: list[str] = []
        self.action_key = next((k for k in ACTION_KEYS if k in self.known), "")
        self.state_key = next((k for k in STATE_KEYS if k in self.known), "")
        if not self.action_key:
            raise UserError(
                f"{root}: has no {' or '.join(map(repr, ACTION_KEYS))}, only {sorted(self.known)}; "
                "describe it by hand, as docs/add_your_robot.md shows"
            )
        self._ranges: dict[str, Ranges] = {
            key: value_ranges(root, info, key) for key in (self.action_key, self.state_key) if key
        }

    def groups(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the action groups and the state groups.

        Raises:
            UserError: No action has a place.
        """
        actions, states = self._parts(self.action_key), self._parts(self.state_key)
        if not self.state_key:
            self.notes.append("the dataset has no state, so that actions are learnt absolute")
        actions = [self._as_changes(part, states) for part in self._without_poses(actions)]
        unnamed = not has_names(self.known[self.action_key])
        if unnamed and len(actions[0].features) != sum(len(p.features) for p in states):
            actions = [actions[0]._replace(kind="left_out", note="an entry without a name")]
        elif unnamed:
            self.notes.append(
                f"the entries of {self.action_key!r} have no names: they are taken for the joints "
                "of one arm"
            )
        state = self._place(states, _state_place(states), STATE_SLOTS, self.state_key)
        action = self._place(actions, _action_place, ACTION_SLOTS, self.action_key)
        if not action:
            raise UserError(
                f"{self.root}: the names of its actions "
                f"({', '.join(feature_names(self.known[self.action_key])[:40])}) do not say where "
                "they belong; describe it by hand, as docs/add_your_robot.md shows "
                f"({'; '.join(self.notes)})"
            )
        for group in action:
            for same in state:
                if _fits(group, same):
                    group["relative_to"] = same["name"]
        return action, state

    def cameras(self) -> list[str]:
        """Return the colour cameras; the others go to the notes."""
        cameras = []
        for key, feature in sorted(self.known.items()):
            if feature.get("dtype") not in ("image", "video"):
                continue
            if reason := why_no_colour(feature):
                self.notes.append(f"{key} is not listed as a camera: {reason}")
            else:
                cameras.append(key)
        return cameras

    def _parts(self, key: str) -> list[BodyPart]:
        return sort_parts(feature_names(self.known[key])) if key else []

    def _without_poses(self, parts: list[BodyPart]) -> list[BodyPart]:
        """Leave out the pose of a tool whose joints are commanded, too."""
        armed = {part.side for part in parts if part.kind in ("arm", "arm_delta")}
        beside = "a tool's pose beside the joints of the same arm"
        return [
            part._replace(kind="left_out", note=beside)
            if part.kind.split("_")[0] in ("position", "rotation") and part.side in armed
            else part
            for part in parts
        ]

    def _as_changes(self, part: BodyPart, states: Sequence[BodyPart]) -> BodyPart:
        """Recognise changes per step by their values if their names do not say so."""
        same = [s for s in states if (s.side, s.kind) == (part.side, part.kind)]
        if part.kind not in ("arm", "position") or not same:
            return part
        actions, targets = self._ranges[self.action_key], self._ranges[self.state_key]
        pairs = [
            (actions[a], targets[s])
            for a, s in zip(part.features, same[0].features, strict=False)
            if a in actions and s in targets
        ]
        small = [
            a.high - a.low < SMALL * (s.high - s.low) and a.low <= 0 <= a.high for a, s in pairs
        ]
        units = [a.largest <= 1.001 and a.low < 0 < a.high for a, _ in pairs]
        apart = [_overlap(a, s) < OVERLAP for a, s in pairs]
        changes = bool(pairs) and (all(small) or (all(units) and any(apart)))
        if not changes:
            return part
        self.notes.append(
            f"the values of {', '.join(part.features)} in {self.action_key!r} do not lie where "
            "those of the state do: they are taken for changes per step"
        )
        return part._replace(kind=f"{part.kind}_delta")

    def _place(
        self,
        parts: list[BodyPart],
        place: Callable[[BodyPart, dict[str, int]], tuple[str, int] | None],
        slots: dict[str, tuple[int, int]],
        key: str,
    ) -> list[dict[str, Any]]:
        """Describe the group of each part that fits into a slot."""
        taken: dict[str, int] = {}
        groups = []
        for part in sorted(parts, key=lambda p: p.kind == "gripper"):  # after their arms
            group = _group(part, self._ranges.get(key, {}), in_action=slots is ACTION_SLOTS)
            width = len(part.features)
            if "encoding" in group:  # rotation vectors as actions, quaternions as states
                width = 3 if slots is ACTION_SLOTS else 4
            where = place(part, taken)
            if where is None or where[1] + width > slots[where[0]][1] - slots[where[0]][0]:
                reason = part.note if where is None and part.note else "no slot has room for them"
                self._leave_out(part, key, reason)
                continue
            slot, offset = where
            taken[slot] = offset + width
            group["slot"] = slot
            if offset:
                group["offset"] = offset
            if "unit" in group and not self._ranges.get(key):
                self.notes.append(f"the unit of {part.name} is a guess: no value could be read")
            groups.append(group)
        return groups

    def _leave_out(self, part: BodyPart, key: str, reason: str) -> None:
        self.ignored.update(part.features)
        self.notes.append(f"{key!r}: left out {', '.join(part.features)}: {reason}")


def _group(part: BodyPart, ranges: Ranges, *, in_action: bool) -> dict[str, Any]:
    """Describe a part without its place."""
    group: dict[str, Any] = {"name": part.name, "slot": "", "features": part.features}
    largest = max((ranges[f].largest for f in part.features if f in ranges), default=0.0)
    if part.kind == "gripper":
        return group | {"representation": "gripper"}
    if part.kind == "rotation":
        kind = "end_effector_rotation" if in_action else "rotation_quaternion"
        return group | {"representation": kind, "encoding": part.note, "unit": "rad"}
    if part.kind.endswith("_delta"):
        plain = {"arm_delta": "rad", "position_delta": "m", "rotation_delta": "rad"}[part.kind]
        kind = "joint_delta" if part.kind == "arm_delta" else "end_effector_delta"
        unit = "normalised" if 0.5 < largest <= 1.001 else plain
        return group | {"representation": kind, "unit": unit}
    if part.kind == "position":
        unit = "m" if largest <= LARGEST_PLACE else "mm"
        if in_action:
            group["representation"] = "end_effector_position"
        return group | {"unit": unit}
    return group | {"unit": _joint_unit(part, largest)}


def _joint_unit(part: BodyPart, largest: float) -> str:
    """Guess the unit from the largest value; the doctor checks it more closely."""
    if part.kind == "hand" and 0 < largest <= 1:
        return "0-1"
    if largest <= LARGEST_ANGLE:
        return "rad"
    if largest <= 110 and part.features[0].endswith(".pos"):
        return "normalised"
    return "deg" if largest <= TICKS else "ticks"


def _action_place(part: BodyPart, taken: dict[str, int]) -> tuple[str, int] | None:
    if part.kind in ("left_out", "elsewhere"):
        return None
    if part.kind == "waist":
        return "waist", 0
    if part.kind == "hand":
        return f"{part.side or 'right'}_hand", 0
    tool = part.kind.split("_")[0]
    arm = f"{part.side or 'right'}_arm"
    if tool in ("position", "rotation"):
        return arm, 0 if tool == "position" else 3
    if part.kind == "gripper" and not part.side and taken.get(arm) and not taken.get("joints"):
        return arm, 6  # behind a tool's pose
    slot = arm if part.side else "joints"
    if part.kind == "gripper":
        return slot, max(taken.get(slot, 0), 7 if slot == "joints" else 0)
    return slot, taken.get(slot, 0)


def _state_place(
    parts: Sequence[BodyPart],
) -> Callable[[BodyPart, dict[str, int]], tuple[str, int] | None]:
    """Return the function that places the parts of one robot's state."""
    kinds = {part.kind for part in parts if not part.side}

    def place(part: BodyPart, taken: dict[str, int]) -> tuple[str, int] | None:
        if part.kind == "left_out" or part.kind.endswith("_delta"):
            return None
        if not part.side and part.kind in ("position", "rotation"):
            return "end_effector", 0 if part.kind == "position" else 3
        beside_pose = "position" in kinds and "arm" not in kinds and len(part.features) == 1
        if not part.side and part.kind == "gripper" and beside_pose:
            return "end_effector", 7
        if not part.side and part.kind in ("arm", "gripper") and len(part.features) <= 7:
            offset = 7 if part.kind == "gripper" else taken.get("joints", 0)
            if offset + len(part.features) <= 8:
                return "joints", offset
        return "body", taken.get("body", 0)

    return place


def _fits(action: dict[str, Any], state: dict[str, Any]) -> bool:
    """Return whether an action group is learnt relative to a state group."""
    if action["name"] != state["name"]:
        return False
    if "encoding" in action:
        return "encoding" in state
    absolute = action.get("representation", "") in ("", "end_effector_position")
    same = len(action["features"]) == len(state["features"])
    return absolute and same and action.get("unit") == state.get("unit") and "unit" in action


def _overlap(first: Range, second: Range) -> float:
    """Return the share of two ranges' union that both cover."""
    union = max(first.high, second.high) - min(first.low, second.low)
    both = min(first.high, second.high) - max(first.low, second.low)
    return max(0.0, both) / union if union > 0 else 1.0


def _identifier(robot_type: object, root: Path) -> str:
    text = robot_type if isinstance(robot_type, str) else root.name
    return re.sub(r"\W+", "_", text).strip("_").lower() or "robot"
