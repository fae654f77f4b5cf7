"""Each planted cause is named, and a healthy policy is not accused."""

import pytest
import torch

from actionprior.diagnosis.run import diagnose_policy
from actionprior.errors import UserError
from tests.diagnosis.conftest import Diagnose, Fitted, accused, in_simulator, value
from tests.helpers.linear_policy import fitted_policy
from tests.helpers.signal_task import SignalData

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_a_healthy_policy_is_not_accused(diagnose: Diagnose) -> None:
    results = diagnose(simulator="")
    assert accused(results) == set()
    assert {f.check for f in results.findings} == {"error"}
    assert value(results, "error of the policy") < 0.2
    assert value(results, "success", "test/Signals-v0") == 1
    assert value(results, "place of the object read from the trunk", "") < 5
    assert value(results, "place of the object read from a constant", "") > 50
    assert value(results, "goes where the instruction says", "") > 0.7
    assert value(results, "avoids the other task's goal", "") > 0.9


@pytest.mark.parametrize(
    ("fault", "check", "feature", "words"),
    [
        ("frozen", "unused_camera", "front", "one and the same picture"),
        ("shuffled", "unused_instruction", "instruction", "were not shuffled"),
        ("late", "late_gripper", "gripper", "is recorded 4 steps after the gripper has moved"),
        ("still", "action_is_state", "arm", "would stand still"),
    ],
)
def test_a_cause_in_the_data_is_named(
    diagnose: Diagnose, fault: str, check: str, feature: str, words: str
) -> None:
    results = diagnose(fault)
    [found] = [f for f in results.findings if (f.check, f.feature) == (check, feature)]
    assert found.level in ("error", "warning")
    assert words in found.message
    assert check not in accused(diagnose())


def test_a_policy_that_hardly_looks_is_named(fitted: Fitted) -> None:
    data = SignalData()
    network = fitted_policy(data)
    tokens = network.trunk(*_one_look(data)).tokens_BNW.flatten(1).shape[1]
    network.fusion.weight_FK[:tokens] *= 0.1
    results = diagnose_policy(network, data, 96)
    [found] = [f for f in results.findings if f.check == "hardly_looks"]
    assert found.level == "warning"
    assert "acts almost without looking" in found.message
    assert "--push" in found.message


def _one_look(data: SignalData) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    seen = next(iter(data.train_dataloader())).observation
    return seen.images_BCKYX[:1], seen.camera_mask_BC[:1], list(seen.task)[:1]


def test_a_live_camera_beside_a_frozen_one_is_not_accused(diagnose: Diagnose) -> None:
    assert [f.feature for f in diagnose("frozen").findings if f.check == "unused_camera"] == [
        "front"
    ]


def test_scenes_that_allow_one_task_each_are_blamed_on_the_data(diagnose: Diagnose) -> None:
    results = diagnose("one_task_per_scene")
    assert value(results, "read from the start", "") > 0.9
    [found] = [f for f in results.findings if f.check == "readable_task"]
    assert "each scene allows one task" in found.message


def test_a_latent_of_two_numbers_is_too_narrow(diagnose: Diagnose) -> None:
    results = diagnose(latent_width=2)
    assert "narrow_latent" in accused(results)
    assert "latent_width" in next(f.message for f in results.findings if f.check == "narrow_latent")
    assert value(results, "error with the best z found (the decoder's limit)") > 0.5


def test_a_decoder_of_random_weights_is_named(fitted: Fitted) -> None:
    data = SignalData()
    network = fitted_policy(data)
    basis_FK = network.prior.decoder.basis_FK
    network.prior.decoder.basis_FK = torch.randn_like(basis_FK) * basis_FK.std()
    found = accused(diagnose_policy(network, data, 96))
    assert "decoder" in found
    assert "narrow_latent" not in found


def test_a_policy_whose_latent_is_wrong_is_named(fitted: Fitted) -> None:
    data = SignalData()
    network = fitted_policy(data)
    network.fusion.weight_FK = torch.zeros_like(network.fusion.weight_FK)
    results = diagnose_policy(network, data, 96)
    assert {"latent", "blind", "unused_instruction"} <= accused(results)
    assert "decoder" not in accused(results)
    assert value(results, "error with the encoder's z of the true chunk") < 0.05


def test_a_trunk_that_sees_nothing_is_named(fitted: Fitted) -> None:
    data = SignalData()
    network = fitted_policy(data)
    torch.nn.init.zeros_(network.trunk.see.weight)
    found = accused(diagnose_policy(network, data, 96, in_simulator()))
    assert {"places", "blind"} <= found


def test_a_gripper_that_switches_at_another_time_than_recorded(diagnose: Diagnose) -> None:
    results = diagnose(on="late")
    assert value(results, "predicted after recorded", "gripper") == -5
    [found] = [f for f in results.findings if f.check == "gripper_timing"]
    assert "5 steps too early (0.50 s)" in found.message


def test_a_gripper_that_never_closes_is_named(fitted: Fitted) -> None:
    data = SignalData()
    network = fitted_policy(data)
    decoder, slot = network.prior.decoder, 29 + 7
    for values in (decoder.mean_F, decoder.basis_FK):
        values.view(data.chunk_length, 37, -1)[:, slot] = -1.0 if values is decoder.mean_F else 0.0
    results = diagnose_policy(network, data, 96)
    assert value(results, "missed switches from low to high", "gripper") == 1
    assert "gripper_missed" in accused(results)


@pytest.mark.parametrize(
    ("simulator", "check", "words"),
    [
        ("cameras", "camera_order", "the cameras are exchanged"),
        ("mirror", "camera_image", "looks like training upside down"),
        ("degrees", "state_range", "is it degrees for radians, or the reverse?"),
    ],
)
def test_another_deployment_than_in_training_is_named(
    diagnose: Diagnose, simulator: str, check: str, words: str
) -> None:
    results = diagnose(simulator=simulator)
    assert words in next(f.message for f in results.findings if f.check == check)


def test_an_offset_lets_the_policy_drift_and_replays_fail(diagnose: Diagnose) -> None:
    results = diagnose(simulator="offset")
    assert {"drift", "replay"} <= accused(results)
    assert value(results, "success of 4 replayed demonstrations", "test/Signals-v0") < 0.9


def test_replays_of_disturbed_demonstrations_accuse_nobody(
    fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, data = fitted()
    monkeypatch.setattr(data, "disturbed", lambda robot: robot == 0)
    results = diagnose_policy(network, data, 128, in_simulator("offset"), episodes=4)
    (replay,) = (f for f in results.findings if f.check == "replay")
    assert replay.level == "note"
    assert "they were recorded with noise or pushes" in replay.message


def test_demonstrations_are_replayed_in_their_own_scenes(diagnose: Diagnose) -> None:
    what = "success of 4 replayed demonstrations"
    assert value(diagnose(simulator=""), what, "test/Signals-v0") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": 4}, "windows is 4 and episodes 5, expected at least 8 and 1"),
        ({"episodes": 0}, "episodes 0"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(
    fitted: Fitted, options: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        diagnose_policy(*fitted(), **options)
