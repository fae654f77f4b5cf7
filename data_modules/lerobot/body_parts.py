"""Sort the features of a dataset's vector into parts of a robot, by their names."""

import re
from collections.abc import Sequence
from typing import NamedTuple

SIDES = {
    "left": r"left|(^|[_.])l[_.]|[_.]l$|(^|[_.])arm1([_.]|$)",
    "right": r"right|(^|[_.])r[_.]|[_.]r$|(^|[_.])arm2([_.]|$)",
}
_SIDE_WORDS = {"left", "right", "l", "r"}
_FILLERS = {"pos", "position", "target", "goal", "cmd", "command", "main", "abs"}
_RATES = {
    "vel", "velocity", "velocities", "speed", "effort", "torque", "torques", "current", "currents",
    "acc", "accel", "acceleration", "force", "forces", "wrench", "temp", "temperature", "voltage",
    "load", "stiffness", "damping", "tau",
}  # fmt: skip
_BASE = {
    "base", "wheel", "wheels", "chassis", "mobile", "odom", "steering", "throttle", "brake",
    "linear", "angular", "theta", "gas", "rudder",
}  # fmt: skip
_DELTAS = {"delta", "d", "rel", "relative", "diff", "change", "deltas"}
_GRIPPER = r"grip|jaw|claw"
_HAND = r"hand|finger|thumb|pinky|index|middle|ring(?!_)"
_ELSEWHERE = r"head|neck|hip|knee|ankle|leg|foot"
_TORSO = r"torso|trunk|spine|lumbar|waist"
_JOINT = (
    r"joint|shoulder|elbow|wrist|forearm|(^|_)arm|waist|pan|lift|flex|motor|servo|link|rotate|"
    r"roll|pitch|yaw|angle|(^|_)[a-z]?\d+($|_)|(^|_)(j|q|m|s|e|w|theta|joint|motor)\d+"
)
_ORIENTATION = {"rot", "rotation", "ori", "orn", "orientation", "euler", "rpy", "angle", "rotvec"}

UNKNOWN = "nothing that is known by its name"


class BodyPart(NamedTuple):
    """Features of one part of a robot, such as ``arm`` or ``left_hand``.

    Attributes:
        side: ``left``, ``right`` or empty.
        kind: ``arm``, ``gripper``, ``hand``, ``waist``, ``elsewhere`` (other joints), ``position``
            or ``rotation`` of a tool, or ``left_out``. With ``_delta``: changes per step.
        features: The dataset's names of the features.
        note: Encoding of a rotation, or why the features are left out.
    """

    side: str
    kind: str
    features: list[str]
    note: str = ""

    @property
    def name(self) -> str:
        """Name of the part's group."""
        kind = self.kind.removesuffix("_delta")
        if kind in ("position", "rotation"):
            kind = f"tool_{kind}"
        return f"{self.side}_{kind}" if self.side else kind


def sort_parts(names: Sequence[str]) -> list[BodyPart]:
    """Sort features into parts of the robot. Poses that are not complete are left out."""
    found: dict[tuple[str, str, str], BodyPart] = {}
    words = [_words(name) for name in names]
    sides = [_side(w) for w in words]
    for name, spelt, side in zip(names, words, sides, strict=True):
        kind, note = _kind(spelt)
        # The waist of an arm is its first joint; a body's waist belongs to no side.
        if kind == "waist" and "waist" in spelt and (side or _is_arm(words)):
            kind = "arm"
        part = BodyPart(side, kind, [], note)
        found.setdefault((side, kind, note), part).features.append(name)
    return [_complete(part) for part in found.values()]


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _side(words: str) -> str:
    return next((s for s, pattern in SIDES.items() if re.search(pattern, words)), "")


def _is_arm(words: Sequence[str]) -> bool:
    """Return whether the vector is one arm whose first joint is its waist."""
    waists = [w for w in words if "waist" in w]
    return len(waists) == 1 and not any(_side(w) for w in words)


def _kind(words: str) -> tuple[str, str]:
    """Return the kind of a feature, and its encoding or why it is left out."""
    tokens = [t for t in re.split(r"[^a-z0-9]+", words) if t]
    bare = [t for t in tokens if t not in _SIDE_WORDS | _FILLERS] or tokens
    if not tokens:
        return "left_out", UNKNOWN
    if _RATES & set(tokens):
        return "left_out", "a velocity, force or the like, which has no slot"
    if _BASE & set(tokens):
        return "left_out", "motion of a base, which has no slot"
    if re.search(_GRIPPER, words):
        return "gripper", ""
    if pose := _pose(bare):
        return pose
    if re.search(_HAND, words):
        return "hand", ""
    if re.search(_TORSO, words):
        return "waist", ""
    if re.search(_ELSEWHERE, words):
        return "elsewhere", ""
    if re.search(_JOINT, words):
        return ("arm_delta" if _DELTAS & set(bare) else "arm"), ""
    return "left_out", UNKNOWN


def _pose(tokens: list[str]) -> tuple[str, str] | None:
    """Recognise an entry of a tool's position or orientation."""
    rest, last = set(tokens[:-1]), tokens[-1]
    delta = (
        "_delta" if _DELTAS & rest or re.fullmatch(r"d([xyz]|r[xyz]|roll|pitch|yaw)", last) else ""
    )
    axis = last[1:] if delta and last[0] == "d" and len(last) > 1 else last
    text = "_".join(tokens)
    if re.search(r"rot(ation)?_?6d|(^|_)r6d?_?\d|(^|_)6d", text):
        return "left_out", "an orientation: rotation_6d (columns of the matrix) or rotation_6d_rows"
    if re.search(r"axis_?angle|rotvec|rot_vec", text):
        return f"rotation{delta}", "axis_angle"
    if re.fullmatch(r"q[xyzw]", axis) or ("quat" in text and axis in ("x", "y", "z", "w")):
        return f"rotation{delta}", "quaternion"
    if re.search(r"quat|rotmat|rot_mat", text):
        return "left_out", "an orientation whose encoding the names do not say"
    if axis in ("x", "y", "z"):
        return (f"position{delta}", "") if not _ORIENTATION & rest else _turn(delta)
    joint = re.search(r"joint|wrist|shoulder|elbow|forearm|waist|torso|hip|ankle|head|neck", text)
    if re.fullmatch(r"[rw][xyz]|roll|pitch|yaw", axis) and not joint:
        return _turn(delta)
    return None


def _turn(delta: str) -> tuple[str, str]:
    if delta:  # small changes add up in every encoding
        return "rotation_delta", ""
    return "left_out", "an orientation: axis_angle, or euler_xyz, or another order"


def _complete(part: BodyPart) -> BodyPart:
    """Fill in the order of a quaternion; leave out poses that lack an entry."""
    kind, count = part.kind.removesuffix("_delta"), len(part.features)
    if kind not in ("position", "rotation"):
        return part
    if kind == "rotation" and part.note == "quaternion":
        axes = "".join(re.split(r"[^a-z0-9]+", _words(name))[-1][-1] for name in part.features)
        if axes in ("xyzw", "wxyz") and part.kind == "rotation":
            return part._replace(note=f"quaternion_{axes}")
        return part._replace(kind="left_out", note="a quaternion that is not complete")
    if count != 3:
        return part._replace(kind="left_out", note=f"a tool's {kind} of {count} entries, not three")
    return part
