"""What the doctor advises can be pasted, is accepted, and ends the finding."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from actionprior import checkup
from actionprior.checkup import Finding, Subject, check_images, examine
from actionprior.checkup.advice import EXCLUDE, exclude_listed
from actionprior.data import Contents
from actionprior.data.store import Recording
from actionprior.embodiment import Embodiment
from bench.clean_recordings import CleanSet, clean_sets
from bench.planted_faults import FAULTS, Planter
from data_modules.lerobot.exclusion import read_excluded
from tests.helpers.advice import named, obeyed
from tests.helpers.checked import clean, found, robot


def test_every_error_and_warning_of_a_check_has_an_advice() -> None:
    """Look at the source, because no test reaches all branches."""
    without = []
    for path in Path(checkup.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr != "say":
                continue
            level, check = node.args[:2]
            note = isinstance(level, ast.Constant) and level.value == "note"
            if not note and not any(keyword.arg == "advice" for keyword in node.keywords):
                without.append(f"{path.name}: {ast.unparse(check)}")
    assert not without


@pytest.fixture(scope="module")
def recorded() -> list[CleanSet]:
    return clean_sets(5, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_advice_about_a_planted_fault_is_accepted(fault: str, recorded: list[CleanSet]) -> None:
    """The fixture of this folder checks each finding; see ``conftest.py``."""
    for index, clean_set in enumerate(recorded):
        if fault == "whole_turn" and clean_set.robot.name == "deltas":
            continue
        planted = FAULTS[fault][1](Planter(clean_set, np.random.default_rng(index)))
        contents = planted.found.contents
        subject = Subject(clean_set.robot, "set", contents, 15)
        findings = [*examine(subject), *check_images(subject, planted.found.cameras)]
        assert findings


def follow(arm: Embodiment, finding: Finding) -> Embodiment:
    """Describe the robot as the advice says."""
    return Embodiment.from_dict(obeyed(arm.to_dict(), finding.advice))


@pytest.mark.parametrize(("factor", "other"), [(57.3, "deg"), (700.0, "ticks")])
def test_the_unit_that_is_advised_ends_the_finding(factor: float, other: str) -> None:
    recording = clean()
    for values_N in (recording.action_Na, recording.state_Ns):
        values_N[:, :3] = (values_N[:, :3] * factor).round() + 1000 * (other == "ticks")
    finding = found(recording)["unit"]
    arm = follow(robot(), finding)
    assert {g.unit for g in (arm.action[0], arm.state[0])} == {other}
    assert "unit" not in found(recording, arm)


def test_radians_called_degrees_are_renamed() -> None:
    finding = found(clean(), robot("deg"))["unit"]
    assert "`unit: rad`" in finding.advice
    assert follow(robot("deg"), finding) == robot("rad")


@pytest.mark.parametrize(("kind", "units"), [("state", ("rad", "deg")), ("action", ("deg", "rad"))])
def test_actions_and_states_in_different_units_are_learnt_absolute(
    kind: str, units: tuple[str, str]
) -> None:
    recording = clean()
    values_N = recording.state_Ns if kind == "state" else recording.action_Na
    values_N[:, :3] *= 57.3
    start = robot("")
    mixed = next(
        f
        for f in examine(Subject(start, "data", Contents(recording), 15))
        if f.check == "unit" and "mixed up" in f.message
    )
    arm = follow(start, mixed)
    assert (arm.action[0].unit, arm.state[0].unit) == units
    assert arm.action[0].relative_to == ""
    assert not {"unit", "scale"} & set(found(recording, arm))


@pytest.mark.parametrize("joints", [3, 7])
def test_joints_that_turn_past_their_end_wrap_as_advised(joints: int) -> None:
    names = [f"j{i}" for i in range(joints)]
    recording = clean()
    turning = np.concatenate([recording.state_Ns[:, :1] * 0 + np.linspace(0, 20, 140)[:, None]], 1)
    columns = np.concatenate([np.sin(turning + i) for i in range(joints - 1)], axis=1)
    state = np.concatenate([columns, np.mod(turning, 2 * np.pi)], axis=1).astype(np.float32)
    plain = Recording(np.roll(state, -1, axis=0), state, np.array([80, 60]))
    arm = Embodiment(
        "arm",
        10,
        [replace(robot().action[0], features=names)],
        [replace(robot().state[0], features=names)],
    )
    finding = found(plain, arm)["whole_turn"]
    wrapped = follow(arm, finding)
    assert wrapped.state[0].slot == ("joints" if joints == 3 else "body")
    assert "whole_turn" not in found(plain, wrapped)


def test_a_joint_that_never_moves_is_left_out_as_advised() -> None:
    recording = clean()
    recording.action_Na[:, 1] = recording.state_Ns[:, 1] = 0.25
    finding = found(recording)["constant"]
    arm = follow(robot(), finding)
    assert arm.action[0].features == arm.state[0].features == ["j1", "j3"]
    assert arm.ignored == ["j2"]
    rest = [0, 2, 3]
    less = replace(
        recording, action_Na=recording.action_Na[:, rest], state_Ns=recording.state_Ns[:, rest]
    )
    assert "constant" not in found(less, arm)


def test_exchanged_features_are_exchanged_back_as_advised() -> None:
    recording = clean(lengths=(120, 110, 130, 120))
    recording.action_Na[:, [0, 1]] = recording.action_Na[:, [1, 0]]
    finding = found(recording)["swapped"]
    arm = follow(robot(), finding)
    order = [robot().action[0].features.index(name) for name in arm.action[0].features]
    assert order == [1, 0, 2]
    recording.action_Na[:, :3] = recording.action_Na[:, order]
    assert "swapped" not in found(recording, arm)


def test_a_chunk_as_long_as_advised_is_padded_less() -> None:
    recording = clean(lengths=(12, 13, 14))
    for check in ("padded", "short"):
        finding = found(recording)[check]
        words = named(finding.advice).words
        length = int(words[words.index("--data.chunk_length") + 1])
        subject = Subject(robot(), "data", Contents(recording), length)
        (after,) = (f for f in examine(subject) if f.check == "padded")
        assert after.level == "note"
        longer = Subject(robot(), "data", Contents(recording), length + 1)
        (before,) = (f for f in examine(longer) if f.check == "padded")
        assert check == "short" or before.level == "warning"
    # The recipe's chunk is counted at the robot's rate, and the recording has twice that.
    resampled = Subject(robot(), "data", Contents(recording), 30, 15)
    (finding,) = (f for f in examine(resampled) if f.check == "short")
    assert named(finding.advice).words[:2] == ["--data.chunk_length", "6"]


def test_a_file_as_advised_excludes_the_episodes(tmp_path: Path) -> None:
    recording = clean(lengths=(400, 400, 80))
    recording.state_Ns[430, 2] = 700.0
    for place in ("data", "hf://datasets/me/set: 1@v3.0"):
        subject = Subject(robot(), place, Contents(recording, excluded=[0]), 15)
        (wild,) = (f for f in examine(subject) if f.check == "wild")
        assert wild.episode == 1
        line = wild.advice.split("the line `")[1].removesuffix("`")
        path = tmp_path / "excluded.yaml"
        path.write_text(line + "\n")
        assert read_excluded(str(path)).of("arm", [place], place, 3) == {1}
    assert yaml.safe_load(exclude_listed(subject, [1]).split("`")[3]) == {"arm": {place: [2]}}


def test_findings_about_episodes_say_how_to_exclude_them() -> None:
    recording = clean(lengths=(80, 60, 90))
    recording.action_Na[80:140] = recording.action_Na[80]
    recording.state_Ns[80:140] = recording.state_Ns[80]
    assert found(recording)["still_episode"].advice == EXCLUDE


def test_another_vector_is_named_as_the_action() -> None:
    findings = found(clean(lag=0), other_actions=["action_leader"])
    assert findings["action_is_state"].advice.endswith("`action_key: action_leader` on the robot")
    assert "record again" in found(clean(lag=0))["action_is_state"].advice


def test_times_are_resampled_or_replaced_by_the_frame_rate() -> None:
    time_N = np.concatenate([np.arange(80), np.arange(60)]) / 10
    time_N[100:140] -= 1
    findings = found(clean(), timestamp_N=time_N)
    assert (findings["timestamps"].level, findings["timestamps"].feature) == ("error", "timestamp")
    assert "`trust_fps: true` on the robot" in findings["timestamps"].advice
    trusted = found(clean(), timestamp_N=time_N, trust_fps=True, trust_rate=True)
    assert trusted["timestamps"].level == "warning"
    assert "`resample: true` on the robot" in found(clean(), timestamp_N=time_N * 2)["rate"].advice
