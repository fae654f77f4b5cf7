"""Cameras of any size become a policy's images in one way, wherever the policy is used."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from actionprior.checkpoints.reading import CheckpointError
from actionprior.cli import main
from actionprior.diagnosis.simulator import Simulator
from actionprior.embodiment.image_shape import Fit, ImageShape
from actionprior.errors import PolicyError, UserError
from actionprior.export.onnx import SEE, OnnxError, export_onnx
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.policy import Policy
from actionprior.rollout import ObservationMap, rollout
from actionprior.training.settings import FusionSize
from actionprior.visualization.predictions import load_predictor
from actionprior.vla import VLAModule
from data_modules import FeatureSettings, LeRobotVLA
from data_modules.vla import ImageSettings
from tests.helpers.datasets import CAMERAS, arm, write_dataset
from tests.helpers.feature_runs import frozen_trunk
from tests.helpers.policies import SMALL, lerobot_batch, observation, tiny_network
from tests.helpers.robots import position_arm
from tests.helpers.serving_client import Client, serving
from tests.helpers.stage1_runs import trainer
from tests.helpers.synthetic import BrightnessTrunk

SIZES = dict(zip(CAMERAS, [(40, 96), (64, 48)], strict=True))
FITS: tuple[Fit, ...] = ("stretch", "pad", "crop")
edges = st.integers(1, 60)


def picture(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    drawn = np.random.default_rng(seed).integers(0, 256, (1, 3, rows, columns), dtype=np.uint8)
    return torch.from_numpy(drawn)


@given(edges, edges, edges, edges, st.sampled_from(FITS))
def test_any_image_becomes_the_shape(
    rows: int, columns: int, new_rows: int, new_columns: int, fit: Fit
) -> None:
    shape, image = ImageShape(new_rows, new_columns, fit), picture(rows, columns)
    fitted = shape.apply(image)
    assert fitted.shape == (1, 3, new_rows, new_columns)
    assert fitted.dtype == torch.uint8
    assert torch.equal(shape.apply(fitted), fitted)
    as_array = shape.apply_to_array(image[0].permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(as_array, fitted[0].permute(1, 2, 0))
    plain = ImageShape.from_plain(shape.to_plain())
    assert plain == shape


def test_each_fit_is_what_it_says() -> None:
    image = picture(20, 60)

    def resized(part: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        exact = F.interpolate(part.float(), (rows, columns), mode="bilinear", antialias=True)
        return exact.round()

    def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
        return bool(((found - expected).abs() <= 1).all())  # of 255

    assert close(ImageShape(30, 30).apply(image), resized(image, 30, 30))
    padded = ImageShape(30, 30, "pad").apply(image)
    assert close(padded[:, :, 10:20], resized(image, 10, 30))
    assert not padded[:, :, :10].any()
    assert not padded[:, :, 20:].any()
    assert close(ImageShape(30, 30, "crop").apply(image), resized(image[..., 20:40], 30, 30))
    long = torch.full((1, 3, 1, 100_000), 7, dtype=torch.uint8)
    assert ImageShape(224, 224, "crop").apply(long).eq(7).all()  # takes no memory


@pytest.mark.parametrize("wrong", [0, -3, 8193, 2.0, True, None, "64"])
def test_wrong_shapes_are_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match="number of rows is"):
        ImageShape(wrong, 4)
    with pytest.raises(UserError, match="number of columns is"):
        ImageShape(4, wrong)
    with pytest.raises(UserError, match="fit is 'squeeze', expected one of stretch, pad, crop"):
        ImageShape(4, 4, "squeeze")  # type: ignore[arg-type]


# ---- the same pixels everywhere --------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("data") / "two",
        (20, 20, 20),
        cameras=dict.fromkeys(CAMERAS, "image"),
        sizes=SIZES,
    )


def data_of(root: Path, fit: Fit, folder: Path, **images: Any) -> LeRobotVLA:
    settings = ImageSettings(image_size=(28, 36), fit=fit, cache_dir=str(folder), **images)
    return LeRobotVLA(
        [arm(root, cameras=CAMERAS)], 12, 4, batch_size=4, val_fraction=0.4, images=settings
    )


def watch(network: PolicyNetwork, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """List the images that a policy's trunk gets from now on."""
    seen: list[torch.Tensor] = []
    forward = network.trunk.forward

    def record(images: torch.Tensor, *rest: Any) -> Any:
        seen.append(images)
        return forward(images, *rest)

    monkeypatch.setattr(network.trunk, "forward", record)
    return seen


class TwoCameras(gymnasium.Env[Any, Any]):
    """Environment that shows two given images of different size, one of them by rendering."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  Gymnasium's

    def __init__(self, observation: dict[str, Any], render_mode: str | None = None) -> None:
        self.shown, self.render_mode = observation, render_mode
        front = Box(0, 255, (*SIZES[CAMERAS[0]], 3), np.uint8)
        self.observation_space = Dict({"state": Box(-9, 9, (3,), np.float32), "front": front})
        self.action_space = Box(-9, 9, (3,), np.float32)

    def _observe(self) -> dict[str, Any]:
        return {"state": self.shown["observation.state"], "front": self.shown[CAMERAS[0]]}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        return self._observe(), 0.0, False, True, {"success": True}

    def render(self) -> Any:
        return self.shown[CAMERAS[1]]


gymnasium.register("test/TwoCameras-v0", TwoCameras)
MAP = ObservationMap(images={CAMERAS[0]: "front", CAMERAS[1]: "__render__"}, text="push the cube")


@pytest.mark.parametrize("fit", FITS)
def test_a_policy_sees_the_same_pixels_everywhere(
    fit: Fit, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from actionprior.lerobot.modeling_actionprior import ActionPriorPolicy

    # Training, with decoded images, from their cache, and while features are computed.
    data = data_of(root, fit, tmp_path / "cache")
    robots = [robot.to_dict() for robot in data.embodiments]
    module = VLAModule(
        robots, frozen_trunk(), architecture=SMALL, use_prior=False, fusion=FusionSize(32, 1, 2)
    )
    runner = trainer(tmp_path, 1, limit_val_batches=0)
    runner.fit(module, data)
    frame = int(data.frames.train.frames()[0])
    batch = data.windows(training=False).__getitems__([frame])
    expected = batch.observation.images_BCKYX
    assert expected.shape == (1, 2, 3, 28, 36)
    direct = data_of(root, fit, tmp_path / "cache", cache_images=False)
    cached = data_of(
        root, fit, tmp_path / "features", features=FeatureSettings(cache=True), cache_images=False
    )
    for other in (direct, cached):
        other.prepare_data()
        other.setup("fit")
        found = other.windows(training=False).__getitems__([frame]).observation.images_BCKYX
        assert torch.equal(found, expected)
    featured = VLAModule(
        robots, frozen_trunk(), architecture=SMALL, use_prior=False, fusion=FusionSize(32, 1, 2)
    )
    trainer(tmp_path, 1, limit_val_batches=0).fit(featured, cached)
    part = featured.network.trunk.frozen_part()
    assert part is not None
    stored = cached.windows(training=True).__getitems__([frame]).observation.features_BCF
    own = part.features(expected.flatten(0, 1)).half()
    torch.testing.assert_close(stored[0], own, rtol=1e-2, atol=1e-2)

    # Everything after training starts from the images as they were recorded.
    row = LeRobotDataset("two", root=root)[frame]
    observation = {camera: _pixels(row[camera]) for camera in CAMERAS}
    observation |= {"observation.state": row["observation.state"].numpy(), "task": row["task"]}
    assert [observation[c].shape[:2] for c in CAMERAS] == list(SIZES.values())
    checkpoint, folder = tmp_path / "policy.ckpt", tmp_path / "exported"
    runner.save_checkpoint(checkpoint)
    main(["export", "--ckpt_path", str(checkpoint), "--out", str(folder)])

    chunks = []
    for path in (checkpoint, folder):
        policy = Policy.load(path)
        seen = watch(policy.network, monkeypatch)
        chunks.append(policy.predict_chunk(observation))
        assert torch.equal(seen[0], expected)
        assert policy.network.image_shape == ImageShape(28, 36, fit)
    np.testing.assert_array_equal(*chunks)

    served = Policy.load(folder)
    seen = watch(served.network, monkeypatch)
    with serving(served) as server:
        answer = Client(server.host, server.port).infer(observation)
    assert torch.equal(seen[-1], expected)
    np.testing.assert_allclose(answer["actions"], chunks[0], atol=1e-5)

    behind_lerobot = ActionPriorPolicy.from_pretrained(folder)
    seen = watch(behind_lerobot.network, monkeypatch)
    behind_lerobot.select_action(lerobot_batch([observation]))
    assert torch.equal(seen[0], expected)
    behind_lerobot.predict_action_chunk(lerobot_batch([observation]))
    assert torch.equal(seen[1], expected)

    rolled = Policy.load(folder)
    seen = watch(rolled.network, monkeypatch)
    kwargs = {"observation": observation}
    rollout(rolled.network, "test/TwoCameras-v0", 2, MAP, "arm", num_envs=2, env_kwargs=kwargs)
    assert all(torch.equal(images, expected.expand_as(images)) for images in seen)
    assert sum(map(len, seen)) == 2

    simulator = Simulator(
        ["test/TwoCameras-v0"],
        MAP,
        "arm",
        env_kwargs=kwargs,
        image_shape=rolled.network.image_shape,
    )
    diagnosed, _ = simulator.make("test/TwoCameras-v0", rolled.robot).reset(seed=0)
    assert torch.equal(torch.from_numpy(diagnosed["images"]).movedim(-1, 1), expected[0])

    predictor = load_predictor(str(checkpoint), data)
    assert len(predictor(rolled.robot, batch)[0]) == 12
    other = data_of(root, "pad" if fit != "pad" else "crop", tmp_path / "cache")
    other.prepare_data()
    other.setup("fit")
    with pytest.raises(UserError, match=rf"the policy's images are 28x36 \({fit}\), and those of"):
        load_predictor(str(checkpoint), other)(rolled.robot, batch)


def test_a_resumed_run_needs_images_of_the_same_shape(root: Path, tmp_path: Path) -> None:
    def run(fit: Fit, checkpoint: Path | None = None) -> VLAModule:
        data = data_of(root, fit, tmp_path / "cache")
        robots = [robot.to_dict() for robot in data.embodiments]
        module = VLAModule(robots, BrightnessTrunk(), architecture=SMALL, use_prior=False)
        runner = trainer(tmp_path, 2 if checkpoint else 1, limit_val_batches=0)
        runner.fit(module, data, ckpt_path=checkpoint)
        runner.save_checkpoint(tmp_path / "policy.ckpt")
        return module

    run("pad")
    checkpoint = tmp_path / "policy.ckpt"
    assert VLAModule.load(checkpoint, BrightnessTrunk).image_shape == ImageShape(28, 36, "pad")
    message = r"images are 28x36 \(pad\) in the checkpoint and 28x36 \(crop\) in the data"
    with pytest.raises(CheckpointError, match=message):
        run("crop", checkpoint)
    # A checkpoint of version 0.1.0 does not say it, and takes the recipe's.
    contents = torch.load(checkpoint, weights_only=True)
    del contents["vla"]["image_shape"]
    torch.save(contents, checkpoint)
    assert VLAModule.load(checkpoint, BrightnessTrunk).image_shape is None
    assert run("crop", checkpoint).image_shape == ImageShape(28, 36, "crop")
    contents["vla"]["image_shape"] = {"rows": 10**9, "columns": 4, "fit": "pad"}
    torch.save(contents, checkpoint)
    message = r"policy\.ckpt is damaged: its description has the number 1000000000"
    with pytest.raises(CheckpointError, match=message):
        Policy.load(checkpoint, BrightnessTrunk)


def test_without_a_known_shape_cameras_must_have_one_size() -> None:
    network = tiny_network([position_arm()], trunk=BrightnessTrunk())
    policy = Policy(network)
    shown = observation(policy.robot)
    policy.select_action(shown)
    shown[policy.robot.cameras[0]] = np.zeros((7, 9, 3), np.uint8)
    if len(policy.robot.cameras) > 1:
        with pytest.raises(PolicyError, match="differ in size"):
            policy.select_action(shown)


@pytest.mark.slow
@pytest.mark.parametrize("fit", FITS)
def test_a_graph_takes_each_camera_at_its_own_size(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    robot = arm(cameras=CAMERAS)
    network = tiny_network([robot], integration_steps=2, image_shape=ImageShape(28, 36, fit))
    policy = Policy(network)
    shown = observation(policy.robot) | {
        camera: picture(*size)[0].permute(1, 2, 0).numpy() for camera, size in SIZES.items()
    }
    with pytest.raises(OnnxError, match=r"onnx_image_size has sizes of \['top'\], expected"):
        export_onnx(network, tmp_path, 0, shown["task"], {"top": (4, 4)})
    export_onnx(network, tmp_path, 0, shown["task"], SIZES)
    sensed = policy.check_observation(shown)
    assert sensed.images is not None
    question = policy.planner.request([policy.memory], sensed.state[None], sensed.images[None])
    seen = question.observation._replace(task=[shown["task"]])
    session = runtime.InferenceSession(tmp_path / SEE)
    names = [wanted.name for wanted in session.get_inputs()]
    assert names[:2] == ["image_0", "image_1"]
    past = seen.history
    given = {
        "image_0": shown[CAMERAS[0]].transpose(2, 0, 1)[None],
        "image_1": shown[CAMERAS[1]].transpose(2, 0, 1)[None],
        "state": seen.state_BS.numpy(),
        "history_action": past.action_BHA.numpy(),
        "history_state": past.state_BHS.numpy(),
        "history_reference": past.reference_BA.numpy(),
        "history_mask": past.step_mask_BH.numpy(),
    }
    (latent,) = session.run(None, {name: given[name] for name in names})
    # Some pixels are the neighbouring one of 256 levels.
    np.testing.assert_allclose(latent, network.latent(seen).detach(), atol=1e-2)


def _pixels(image: torch.Tensor) -> np.ndarray:
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
