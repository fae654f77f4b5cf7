"""Test that a policy behind LeRobot's interface acts as elsewhere, and trains."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies import make_policy, make_pre_post_processors
from lerobot.rollout.inference.rtc import supports_rtc_inference
from torch.utils.data import default_collate

from actionprior.checkpoints.formats import FormatError
from actionprior.checkpoints.reading import CheckpointError
from actionprior.embodiment import Embodiment
from actionprior.errors import PolicyError, UserError
from actionprior.files.weights import WeightsError
from actionprior.lerobot.configuration_actionprior import ActionPriorConfig
from actionprior.lerobot.modeling_actionprior import ActionPriorPolicy
from actionprior.lerobot.processor_actionprior import make_actionprior_pre_post_processors
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.policy import Policy
from tests.helpers.datasets import arm, write_dataset
from tests.helpers.policies import lerobot_batch, limited, observation, tiny_network
from tests.helpers.robots import delta_arm, position_arm, tool_arm


def lerobot_policy(network: PolicyNetwork, robot: str = "", **settings: Any) -> ActionPriorPolicy:
    execution = {
        key: settings.pop(key) for key in ("execute_steps", "delay_steps") if key in settings
    }
    config = ActionPriorConfig(
        device="cpu",
        actionprior={"embodiment": robot, **execution},
        chunk_size=network.chunk_length,
        **settings,
    )
    return ActionPriorPolicy(config, network=network).eval()


def saved(policy: ActionPriorPolicy, folder: Path) -> Path:
    policy.save_pretrained(folder)
    for processor in make_actionprior_pre_post_processors(policy.config):
        processor.save_pretrained(folder)
    return folder


def through_lerobot(
    folder: Path, observations: list[list[dict[str, Any]]], **overrides: Any
) -> Any:
    """Return the actions (T, B, n) that LeRobot's tools get from a folder."""
    arguments = [f"--{key}={value}" for key, value in overrides.items()]
    config = PreTrainedConfig.from_pretrained(folder, cli_overrides=arguments)
    config.pretrained_path = folder
    policy = ActionPriorPolicy.from_pretrained(folder, config=config)
    before, after = make_pre_post_processors(config, str(folder))
    policy.reset()
    with torch.inference_mode():
        return np.stack(
            [after(policy.select_action(before(lerobot_batch(o)))).numpy() for o in observations]
        )


@pytest.mark.parametrize(("execute", "delay"), [(5, 0), (5, 2), (4, 4)])
@pytest.mark.parametrize("robot", [delta_arm(), position_arm(), tool_arm()], ids=lambda r: r.name)
def test_three_ways_to_load_give_the_same_actions(
    robot: Embodiment, execute: int, delay: int, tmp_path: Path
) -> None:
    network = tiny_network([robot], prefix_steps=delay)
    seen = [[observation(robot, 100 * row + t) for row in range(3)] for t in range(20)]
    saved(lerobot_policy(network, execute_steps=execute, delay_steps=delay), tmp_path)
    done = through_lerobot(tmp_path, seen, seed=40)
    direct = Policy(network, execute_steps=execute, delay_steps=delay)
    for policy in (direct, Policy.load(tmp_path)):
        assert (policy.execute_steps, policy.delay_steps) == (execute, delay)
        for row in range(3):
            policy.reset(40 + row)
            expected = np.stack([policy.select_action(o[row]) for o in seen])
            np.testing.assert_allclose(done[:, row], expected, atol=1e-5)


def test_episodes_count_up_from_torchs_seed() -> None:
    network, robot = tiny_network(), delta_arm()
    policy, direct = lerobot_policy(network), Policy(network)
    torch.manual_seed(1000)
    policy.reset()
    for first in (1000, 1002):
        done = policy.select_action(lerobot_batch([observation(robot)] * 2))
        for row in range(2):
            direct.reset(first + row)
            np.testing.assert_allclose(
                done[row], direct.select_action(observation(robot)), atol=1e-5
            )
        policy.reset()


def test_images_are_converted_exactly() -> None:
    seen: list[np.ndarray] = []
    robot = delta_arm()
    policy = lerobot_policy(tiny_network())
    request = policy._planner.request
    policy._planner.request = lambda *a: seen.append(a[2]) or request(*a)  # type: ignore[method-assign]  # a spy
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    policy.select_action(lerobot_batch([observation(robot) | {robot.cameras[0]: values}]))
    np.testing.assert_array_equal(seen[0][0, 0], values)


def test_vectors_are_in_lerobots_order() -> None:
    network, robot = tiny_network(), delta_arm()
    order = np.random.default_rng(0).permutation(8)
    policy = lerobot_policy(network)
    expected = policy.select_action(lerobot_batch([observation(robot)]))
    names = [robot.action_features[k] for k in order], ["clock", *robot.state_features]
    config = ActionPriorConfig(device="cpu", chunk_size=12)
    config.describe_robot(robot, states=names[1], actions=names[0])
    other = ActionPriorPolicy(config, network=network)
    batch = lerobot_batch([observation(robot)])
    batch["observation.state"] = torch.nn.functional.pad(batch["observation.state"], (1, 0))
    np.testing.assert_array_equal(other.select_action(batch)[0], expected[0, order])
    chunk = other.predict_action_chunk(batch)
    held = other.predict_action_chunk(batch, 2, chunk[0, 3:])
    np.testing.assert_allclose(held[0, :2], chunk[0, 3:5], atol=2e-5)


# ---- real-time chunking -------------------------------------------------------------------


def test_the_next_chunk_begins_with_the_committed_actions() -> None:
    robot = position_arm()
    policy = lerobot_policy(tiny_network([robot], prefix_steps=3))
    batch = lerobot_batch([observation(robot, k) for k in range(2)])
    first = policy.predict_action_chunk(batch)
    assert first.shape == (2, 12, 6)
    assert policy.supports_rtc()
    second = policy.predict_action_chunk(
        batch, inference_delay=3, prev_chunk_left_over=first[:, 4:]
    )
    np.testing.assert_allclose(second[:, :3], first[:, 4:7], atol=2e-5)
    assert not np.allclose(second[:, 3], first[:, 7], atol=1e-3)
    free = policy.predict_action_chunk(batch, inference_delay=0, prev_chunk_left_over=first[:, 4:])
    assert not np.allclose(free[:, :3], first[:, 4:7], atol=1e-3)


def test_lerobots_padding_is_not_committed() -> None:
    robot = position_arm()
    network = tiny_network([robot], prefix_steps=5)
    batch = lerobot_batch([observation(robot)])
    left = lerobot_policy(network).predict_action_chunk(batch)[0, 10:]
    filled = torch.cat([left, torch.zeros(8, 6)])
    exact, padded = (
        lerobot_policy(network, seed=3).predict_action_chunk(batch, 5, prefix)
        for prefix in (left, filled)
    )
    assert torch.equal(exact, padded)
    assert padded[0, 2].abs().sum() > 1e-3


def test_lerobots_own_compilation_changes_nothing() -> None:
    network, batch = tiny_network(), lerobot_batch([observation(delta_arm())])
    plain, compiled = lerobot_policy(network, seed=1), lerobot_policy(network, seed=1)
    compiled.predict_action_chunk = torch.compile(compiled.predict_action_chunk, backend="eager")
    assert supports_rtc_inference(compiled)
    expected = plain.predict_action_chunk(batch)
    with torch.inference_mode():
        assert torch.equal(compiled.predict_action_chunk(batch), expected)


# ---- files --------------------------------------------------------------------------------


def test_a_flag_changes_how_chunks_are_executed(tmp_path: Path) -> None:
    saved(lerobot_policy(tiny_network(), execute_steps=5), tmp_path)
    policy = ActionPriorPolicy.from_pretrained(tmp_path)
    assert policy.execute_steps == 5
    overrides = ["--n_action_steps=2", "--seed=9"]
    config = PreTrainedConfig.from_pretrained(tmp_path, cli_overrides=overrides)
    changed = ActionPriorPolicy.from_pretrained(tmp_path, config=config)
    assert (changed.execute_steps, changed.config.seed) == (2, 9)
    config = PreTrainedConfig.from_pretrained(tmp_path, cli_overrides=["--chunk_size=99"])
    with pytest.raises(
        PolicyError, match=r"chunk_size is 99, but .* config\.json has chunks of 12"
    ):
        ActionPriorPolicy.from_pretrained(tmp_path, config=config)


def test_missing_and_malicious_weights_are_rejected(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return open, (str(tmp_path / "proof"), "w")

    saved(lerobot_policy(tiny_network()), tmp_path)
    other = tiny_network(width=16)
    broken = tmp_path / "broken"
    saved(lerobot_policy(other), broken)
    (broken / "config.json").write_bytes((tmp_path / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="do not fit the file's own description"):
        ActionPriorPolicy.from_pretrained(broken)
    poison = pickle.dumps(Payload())
    for name in ("model.safetensors", "pytorch_model.bin", "policy_preprocessor.json"):
        (tmp_path / name).write_bytes(poison)
    for load in (Policy.load, ActionPriorPolicy.from_pretrained):
        with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read"):
            load(tmp_path)
    assert not (tmp_path / "proof").exists()


def test_a_folder_of_a_newer_version_is_rejected(tmp_path: Path) -> None:
    saved(lerobot_policy(tiny_network()), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["actionprior"]["format"] = 99
    (tmp_path / "config.json").write_text(json.dumps(config))
    for load in (Policy.load, ActionPriorPolicy.from_pretrained):
        with pytest.raises(FormatError, match=r"of format 99, .* update actionprior"):
            load(tmp_path)


def test_lerobots_part_of_the_file_is_complete(tmp_path: Path) -> None:
    both = tiny_network([delta_arm(), position_arm()])
    saved(lerobot_policy(both, "kuka", default_task="wave"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["type"] == "actionprior"
    assert config["chunk_size"] == 12
    assert config["action_feature_names"] == position_arm().action_features
    assert config["output_features"]["action"]["shape"] == [6]
    assert set(config["input_features"]) == {"observation.state", "observation.images.front"}
    assert set(config["normalization_mapping"].values()) == {"IDENTITY"}
    assert config["push_to_hub"] is False
    with pytest.raises(PolicyError, match=r"several robots, \['panda', 'kuka'\]"):
        lerobot_policy(both)


# ---- training -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "set"
    return write_dataset(root, (30, 20), cameras={"observation.images.front": "image"})


def recorded(root: Path, config: ActionPriorConfig, rows: range = range(8)) -> dict[str, Any]:
    """Return a batch as lerobot-train passes it to a policy."""
    meta = LeRobotDatasetMetadata("set", root=root)
    delta = resolve_delta_timestamps(config, meta)
    frames = LeRobotDataset("set", root=root, delta_timestamps=delta)
    batch: dict[str, Any] = default_collate([frames[k] for k in rows])
    return batch


def test_a_new_policy_is_created_for_a_dataset_and_trains(dataset: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    meta = LeRobotDatasetMetadata("set", root=dataset)
    config = ActionPriorConfig(device="cpu", chunk_size=6)
    policy = make_policy(config, ds_meta=meta).train()
    assert not policy.network.prior.normalizer.missing
    assert config.action_feature_names == ["j1", "j2", "grip"]
    batch = recorded(dataset, config)
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    losses = []
    for _ in range(25):
        loss, log = policy.forward(batch)
        assert log == {"loss_pred": loss.item()}
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    saved(policy, tmp_path)
    assert Policy.load(tmp_path).robot.state_features == ["j1", "j2", "grip"]


def test_an_exported_policy_trains_further_and_acts_without_a_past(
    dataset: Path, tmp_path: Path
) -> None:
    robot = Embodiment.from_dict(arm(cameras=("observation.images.front",)).to_dict())
    saved(lerobot_policy(tiny_network([robot], history="mlp")), tmp_path)
    config = PreTrainedConfig.from_pretrained(tmp_path)
    config.pretrained_path = tmp_path
    policy = make_policy(config, ds_meta=LeRobotDatasetMetadata("set", root=dataset)).train()
    loss, _ = policy.forward(recorded(dataset, config))
    loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in policy.network.trunk.parameters())
    again = tmp_path / "again"
    saved(policy, again)
    assert Policy.load(again).network.history == "off"
    # LeRobot's trainer sets the normalising steps of a loaded pipeline by name.
    stats = LeRobotDatasetMetadata("set", root=dataset).stats
    features = {"features": config.output_features, "norm_map": config.normalization_mapping}
    before, _ = make_pre_post_processors(
        config,
        str(again),
        preprocessor_overrides={"normalizer_processor": features | {"stats": stats}},
        postprocessor_overrides={"unnormalizer_processor": features | {"stats": stats}},
    )
    state = torch.tensor([[0.5, -3.0, 9.0]])
    assert torch.equal(before({"observation.state": state})["observation.state"], state)


def test_steps_beyond_the_end_do_not_affect_the_loss(dataset: Path) -> None:
    robot = Embodiment.from_dict(arm(cameras=("observation.images.front",)).to_dict())
    policy = lerobot_policy(tiny_network([robot]))
    batch = recorded(dataset, policy.config, range(15, 30))
    assert batch["action_is_pad"].any()
    torch.manual_seed(0)
    expected, _ = policy.forward(batch)
    batch["action"][batch["action_is_pad"]] = 1e3
    torch.manual_seed(0)
    loss, _ = policy.forward(batch)
    torch.testing.assert_close(loss, expected)


# ---- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation.state": torch.zeros(2, 7)}, r"shape \(2, 7\), expected \(rows, 8\)"),
        ({"observation.state": torch.full((2, 8), torch.nan)}, "not finite at joint_1"),
        ({"observation.images.front": torch.full((2, 3, 8, 8), 7.0)}, r"outside of \[0, 1\]"),
        ({"observation.images.front": torch.zeros(2, 8, 8, 3)}, r"shape \(2, 8, 8, 3\)"),
    ],
)
def test_bad_batches_are_rejected_in_one_sentence(change: Any, message: str) -> None:
    batch = lerobot_batch([observation(delta_arm(), k) for k in range(2)])
    with pytest.raises(PolicyError, match=message):
        lerobot_policy(tiny_network()).select_action(batch | change)


def test_bad_configurations_are_rejected_in_one_sentence(dataset: Path) -> None:
    policy = lerobot_policy(tiny_network())
    batch = lerobot_batch([observation(delta_arm())])
    with pytest.raises(PolicyError, match=r"lacks \['observation.state'\] of robot 'panda'"):
        policy.select_action({k: v for k, v in batch.items() if k != "observation.state"})
    policy.select_action(batch)
    with pytest.raises(PolicyError, match="has 2 episodes, expected 1 until reset"):
        policy.select_action(lerobot_batch([observation(delta_arm())] * 2))
    with pytest.raises(UserError, match=r"give --policy\.path, or train on a dataset"):
        ActionPriorPolicy(ActionPriorConfig(device="cpu"))
    meta = LeRobotDatasetMetadata("set", root=dataset)
    with pytest.raises(UserError, match=r"state vector lacks \['joint_1', .* of robot 'panda'"):
        ActionPriorPolicy(policy.config, dataset_meta=meta, network=tiny_network())
    policy.network.prior.normalizer.fitted_E.fill_(False)
    policy.reset()
    with pytest.raises(UserError, match="no normalisation statistics for 'panda'"):
        policy.select_action(batch)


# ---- guard --------------------------------------------------------------------------------


def test_actions_are_guarded_as_by_policy(tmp_path: Path) -> None:
    robot, bound = delta_arm(), 0.01
    network = limited(tiny_network(), bound)
    seen = [[observation(robot, 10 * row + t) for row in range(2)] for t in range(6)]
    policy = lerobot_policy(network, guard="clip", guard_margin=0.0)
    with pytest.warns(RuntimeWarning, match="it is clipped"):
        done = through_lerobot(saved(policy, tmp_path), seen, seed=40)
    direct = Policy.load(tmp_path)  # the folder says how to guard
    for row in range(2):
        direct.reset(40 + row)
        with pytest.warns(RuntimeWarning, match="it is clipped"):
            expected = [direct.select_action(o[row]) for o in seen]
        np.testing.assert_allclose(done[:, row], expected, atol=1e-5)
    with pytest.warns(RuntimeWarning, match="it is clipped"):
        chunk = policy.predict_action_chunk(lerobot_batch(seen[0]))
    assert direct.guard.mode == "clip"
    assert np.abs(done).max() < bound + 1e-4
    assert chunk.abs().max() < bound + 1e-4
    assert policy.guard.counts == {"state": 0, "limit": 24, "step": 0}
    with pytest.warns(RuntimeWarning, match="beyond the recorded"):
        free = through_lerobot(tmp_path, seen, seed=40, guard="warn")
    assert np.abs(free).max() > 0.1


def test_actions_under_way_are_not_clipped() -> None:
    policy = lerobot_policy(limited(tiny_network(prefix_steps=3), 0.01), guard="clip")
    batch, under_way = lerobot_batch([observation(delta_arm())]), torch.full((5, 8), 0.3)
    with pytest.warns(RuntimeWarning, match="it is clipped"):
        chunk = policy.predict_action_chunk(batch, 2, under_way)
    np.testing.assert_allclose(chunk[0, :2], under_way[:2], atol=2e-5)
    assert chunk[0, 2:].abs().max() < 0.0121


def test_a_guard_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(UserError, match="guard is 'stop'; expected one of off, warn, clip"):
        lerobot_policy(tiny_network(), guard="stop")
    with pytest.raises(UserError, match="guard is 'clip', but the policy's file records no limits"):
        lerobot_policy(tiny_network(), guard="clip")
