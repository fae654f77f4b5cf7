"""Damaged and hostile descriptions are refused when a policy is loaded, not when it acts."""

import copy
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actionprior.checkpoints.description import check_sizes
from actionprior.checkpoints.folder import _description_digest, write_folder
from actionprior.checkpoints.prior import load_prior
from actionprior.checkpoints.reading import CheckpointError
from actionprior.errors import UserError
from actionprior.files.weights import load_weights, save_weights
from actionprior.networks.trunks import hub
from actionprior.policy import Policy
from tests.helpers.policies import observation, tiny_network, write_checkpoint
from tests.helpers.robots import delta_arm

ODD = [None, "8", "", -1, 0, 1.5, True, [], {}, ["x"], 10**9, 10**30, 1e308, "../x", float("nan")]
Path_ = tuple[str | int, ...]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    write_folder(tiny_network(), {"actionprior": {"execute_steps": 5}}, folder)
    return folder


def places(value: Any, place: Path_ = ()) -> Iterator[Path_]:
    """List the place of each value in nested plain data."""
    if place:
        yield place
    entries: Any = ()
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list):
        entries = enumerate(value[:2])
    for key, inner in entries:
        yield from places(inner, (*place, key))


def changed(value: Any, place: Path_, new: Any) -> Any:
    copied = copy.deepcopy(value)
    inner = copied
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = new
    return copied


def write_description(exported: Path, description: dict[str, Any], folder: Path) -> Path:
    """Write a folder with another description, whose digest is right."""
    config = json.loads((exported / "config.json").read_text())
    description.pop("content_sha256", None)
    config["actionprior"] = description | {"content_sha256": _description_digest(description)}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if not (folder / "model.safetensors").exists():
        (folder / "model.safetensors").symlink_to(exported / "model.safetensors")
    return folder


def described(exported: Path) -> dict[str, Any]:
    part: dict[str, Any] = json.loads((exported / "config.json").read_text())["actionprior"]
    return part


def refuse_or_act(path: Path) -> bool:
    """Load a policy and act. Return whether it was refused when it was loaded."""
    try:
        policy = Policy.load(path)
    except UserError as error:
        sentence = str(error)
    else:
        sentence = ""
    if sentence:
        assert "\n" not in sentence
        assert len(sentence) < 1000
        return True
    robot = policy.robot
    if len(robot.state_features) == 8:  # the robot is still the one of the observations
        actions = policy.predict_chunk(observation(robot))
        assert np.isfinite(actions).all()
    return False


@pytest.mark.slow
def test_every_odd_value_is_refused_at_load_or_acts(exported: Path, tmp_path: Path) -> None:
    description = described(exported)
    refused = tried = 0
    for place in places(description):
        if place[0] == "content_sha256":
            continue
        for new in ODD:
            tried += 1
            folder = write_description(exported, changed(description, place, new), tmp_path / "x")
            refused += refuse_or_act(folder)
    assert tried > 900
    assert refused > 0.7 * tried


def test_every_missing_value_is_refused_at_load_or_acts(exported: Path, tmp_path: Path) -> None:
    description = described(exported)
    for place in places(description):
        if isinstance(place[-1], str) and place[0] != "content_sha256":
            without = copy.deepcopy(description)
            inner = without
            for key in place[:-1]:
                inner = inner[key]
            del inner[place[-1]]
            refuse_or_act(write_description(exported, without, tmp_path / "x"))


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (("execute_steps",), "8", "execute_steps is '8', expected a whole number"),
        (("embodiments",), [], "embodiments is empty"),
        (("motion_prior", "architecture", "heads"), 0, "architecture.heads is 0"),
        (("settings", "heads"), 0, "fusion.heads is 0"),
        (("settings", "integrator"), "heun", "settings.integrator is 'heun', expected one of"),
        (("settings", "integration_steps"), 0, "integration_steps is 0"),
        (("settings", "integration_steps"), 4000, "expected a whole number, from 1 to 1000"),
        (("motion_prior", "embodiments"), None, "motion_prior.embodiments is None, expected a"),
        (("embodiments", 0, "control_hz"), math.inf, "control_hz is inf, expected a finite"),
    ],
)
def test_the_sentence_names_the_value(
    exported: Path, tmp_path: Path, place: Path_, value: Any, sentence: str
) -> None:
    folder = write_description(exported, changed(described(exported), place, value), tmp_path / "x")
    with pytest.raises(CheckpointError) as error:
        Policy.load(folder)
    assert sentence in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("motion_prior", "architecture", "encoder_depth"), 100_000),
        (("motion_prior", "architecture", "encoder_depth"), 4000),
        (("motion_prior", "architecture", "width"), 1_000_000),
        (("motion_prior", "architecture", "dataset_tokens"), 10**8),
        (("settings", "depth"), 100_000),
        (("settings", "width"), 4096 * 256),
        (("trunk", "init_args", "channels"), 8 * 10**6),
        (("trunk", "init_args", "width"), 10**7),
        (("trunk", "init_args", "text_width"), 4 * 10**6),
    ],
)
def test_bombs_are_refused_before_they_are_built(
    exported: Path, tmp_path: Path, place: Path_, value: int
) -> None:
    folder = write_description(exported, changed(described(exported), place, value), tmp_path / "x")
    start = time.perf_counter()
    with pytest.raises(CheckpointError):
        Policy.load(folder)
    assert time.perf_counter() - start < 5


def test_configs_that_are_nested_deeply_are_refused(exported: Path, tmp_path: Path) -> None:
    folder = write_description(exported, described(exported), tmp_path / "x")
    for deep in (70, 10_000, 1_000_000):
        nested = '{"actionprior": ' + "[" * deep + "]" * deep + "}"
        (folder / "config.json").write_text(nested)
        with pytest.raises(CheckpointError, match="nested more than 64 levels deep"):
            Policy.load(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(
    exported: Path, tmp_path: Path, value: float
) -> None:
    folder = write_description(exported, described(exported), tmp_path / "x")
    weights = load_weights(exported / "model.safetensors")
    name = next(n for n, w in weights.items() if w.is_floating_point() and w.dim() > 1)
    weights[name].flatten()[3] = value
    (folder / "model.safetensors").unlink()
    save_weights(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"the weights {name} are not finite"):
        Policy.load(folder)


@pytest.mark.parametrize("key", ["state_dict", "vla", "motion_prior", "actionprior_format"])
@pytest.mark.parametrize("value", [None, [], {}, {"network.x": "text"}, 3, "text"])
def test_odd_parts_of_checkpoints_are_refused(tmp_path: Path, key: str, value: Any) -> None:
    path = write_checkpoint(tiny_network(), tmp_path / "policy.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {key: value}, path)
    with pytest.raises(UserError, match=r"policy\.ckpt"):
        Policy.load(path)
    if key != "vla":
        with pytest.raises(UserError, match=r"policy\.ckpt"):
            load_prior(path)


@pytest.mark.parametrize("place", [("architecture", "width"), ("embodiments", 0, "action")])
def test_priors_are_checked_too(tmp_path: Path, place: Path_) -> None:
    path = write_checkpoint(tiny_network([delta_arm()]), tmp_path / "policy.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    for new in ODD:
        damaged = checkpoint | {"motion_prior": changed(checkpoint["motion_prior"], place, new)}
        torch.save(damaged, path)
        with pytest.raises(UserError) as error:
            load_prior(path)
        assert "\n" not in str(error.value)


def test_a_source_of_weights_in_a_description_is_not_followed(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*args: object, **kwargs: object) -> None:
        raise AssertionError("the loader asked a network")

    monkeypatch.setattr(hub, "hf_hub_download", asked)
    place = ("trunk", "init_args", "weights")
    folder = write_description(
        exported, changed(described(exported), place, "hf-hub:stranger/model"), tmp_path / "x"
    )
    expected = Policy.load(exported)
    found = Policy.load(folder)
    observed = observation(expected.robot)
    np.testing.assert_array_equal(found.predict_chunk(observed), expected.predict_chunk(observed))


def test_tables_of_words_are_long_before_weights_are_known() -> None:
    check_sizes({"vocabulary": [32_000, 256, 242_918]}, None, "config.json")
    with pytest.raises(CheckpointError, match="has the number 524289"):
        check_sizes({"width": (1 << 19) + 1}, None, "config.json")
    with pytest.raises(CheckpointError, match="no dimension of its weights is larger than 4096"):
        check_sizes({"width": 5000}, {"weight": torch.zeros(8)}, "policy.ckpt")
