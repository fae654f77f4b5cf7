"""Data are compared with what a checkpoint was trained on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from actionprior.checkup import Finding, Subject
from actionprior.checkup.trained import Trained, compare, compare_images
from actionprior.data import Contents
from actionprior.data.store import Recording
from actionprior.embodiment import Embodiment
from actionprior.embodiment.image_shape import ImageShape
from actionprior.embodiment.normalization import Law, Normalizer
from tests.helpers.advice import obeyed
from tests.helpers.checked import clean, robot

CAMERAS = ["front", "wrist"]


def subject(recording: Recording, arm: Embodiment | None = None) -> Subject:
    return Subject(arm or robot(), "data", Contents(recording), chunk_length=15)


def trained(law: Law = "quantile", sees: bool = False) -> Trained:
    arm = robot()
    arm.cameras = CAMERAS
    other = robot()
    other.name = "other"
    normalizer = Normalizer([other, arm], law, chunk_length=15)
    batch = subject(clean()).store.future(torch.arange(140), 15)
    of_both = [batch._replace(embodiment_B=torch.full((140,), row)) for row in range(2)]
    normalizer.fit(type(batch)(*(torch.cat(pair) for pair in zip(*of_both, strict=True))))
    return Trained("policy.ckpt", normalizer, sees, ImageShape(96, 128))


def found(
    recording: Recording, arm: Embodiment | None = None, to: Trained | None = None
) -> list[Finding]:
    arm = arm or robot()
    return list(compare(subject(recording, arm), arm, to or trained()))


@pytest.mark.parametrize("law", ["quantile", "mean_std"])
def test_the_data_of_training_fit(law: Law) -> None:
    assert found(clean(), to=trained(law)) == []


def test_an_unknown_robot_is_an_error() -> None:
    arm = robot()
    arm.name = "arm2"
    (finding,) = found(clean(), arm)
    assert (finding.level, finding.check) == ("error", "checkpoint_robot")
    assert "policy.ckpt knows the robots other, arm, and not 'arm2'" in finding.message
    assert "--model.allow_new_embodiments true" in finding.advice


def test_another_unit_and_rate_are_errors() -> None:
    arm = replace(robot(unit="deg"), control_hz=20)
    messages = [f.message for f in found(clean(), arm) if f.check == "checkpoint_robot"]
    assert len(messages) == 3
    assert any("control_hz" in m for m in messages)
    assert any("'rad'" in m and "'deg'" in m for m in messages)


def test_a_robot_described_as_advised_is_the_checkpoint_s() -> None:
    fewer = replace(robot(), action=robot().action[:1])
    for arm in (replace(robot(unit="deg"), control_hz=20), fewer):
        advice = next(f.advice for f in found(clean(), arm) if f.check == "checkpoint_robot")
        obedient = obeyed(arm.to_dict(), advice)
        obedient.pop("resample", None)
        assert robot().differences(Embodiment.from_dict(obedient)) == []


@pytest.mark.parametrize("law", ["quantile", "mean_std"])
def test_values_far_out_of_range_are_named(law: Law) -> None:
    recording = clean()
    recording.state_Ns[:, 1] = recording.state_Ns[:, 1] * 57.3
    findings = found(recording, to=trained(law))
    states = [f for f in findings if f.feature.startswith("state")]
    assert [(f.level, f.check, f.feature) for f in states] == [
        ("warning", "checkpoint_range", "state j2")
    ]
    assert "in training" in states[0].message
    low, high = np.quantile(recording.state_Ns[:, 1], [0.01, 0.99])
    assert f"is from {low:.3g} to {high:.3g} here" in states[0].message


@pytest.mark.parametrize(
    ("cameras", "level"),
    [(["wrist", "front"], "error"), (["front"], "warning"), (CAMERAS, "")],
)
def test_cameras_and_their_order_are_compared(cameras: list[str], level: str) -> None:
    arm = robot()
    arm.cameras = cameras
    findings = found(clean(), arm, trained(sees=True))
    assert [(f.check, f.level) for f in findings] == [("checkpoint_camera", level)] * bool(level)
    assert found(clean(), arm, trained(sees=False)) == []


def test_the_size_of_images_is_compared() -> None:
    data = subject(clean())
    assert list(compare_images(data, trained(), ImageShape(96, 128))) == []
    (finding,) = compare_images(data, trained(), ImageShape(64, 64, "pad"))
    assert "96x128 (stretch), and the recipe makes them 64x64 (pad)" in finding.message
    assert "--data.images.image_size '[96, 128]' --data.images.fit stretch" in finding.advice
