"""Test gym-aloha with the bounds of its joints."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from actionprior.benchmarks.aloha_experts import WaypointExpert
from actionprior.benchmarks.optional_import import BenchmarkError
from actionprior.recording.scripted import RedrawsScenes
from tests.helpers.environments import needs

pytestmark = needs("gym_aloha", "aloha")


def make_env(env_id: str = "aloha/transfer_cube", **kwargs: Any) -> gym.Env[Any, Any]:
    return gym.make(env_id, disable_env_checker=True, **kwargs)


@pytest.mark.slow
def test_the_arms_can_keep_their_initial_pose() -> None:
    env = make_env()
    observation, info = env.reset(seed=0)
    start = observation["state"]
    assert env.observation_space.contains(observation)
    assert env.action_space.contains(start)
    assert np.abs(start).max() > 1  # outside of the package's own bounds
    observation, _, terminated, _, after = env.step(start)
    np.testing.assert_allclose(observation["state"], start, atol=0.05)
    assert not terminated
    assert not after["success"]
    assert info["instruction"].startswith("pick up the cube")
    env.close()


@pytest.mark.slow
def test_an_image_equals_the_packages() -> None:
    env = make_env()
    observation, _ = env.reset(seed=0)
    bare: Any = env.unwrapped
    expected = bare.physics.render(480, 640, camera_id="top")
    np.testing.assert_array_equal(observation["image"], expected)
    env.close()


def test_small_images_and_other_cameras() -> None:
    env = make_env(image_size=[24, 32], shadow_size=64, render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    assert observation["image"].shape == (24, 32, 3)
    assert observation["image"].std() > 10
    bare: Any = env.unwrapped
    np.testing.assert_array_equal(env.render(), observation["image"])
    assert (bare.render_camera("angle") != observation["image"]).any()
    with pytest.raises(BenchmarkError, match="no camera 'front'; it has"):
        bare.render_camera("front")
    env.close()


def test_without_images_the_same_episode_is_simulated() -> None:
    states = []
    for kwargs in ({"images": False}, {"image_size": 8, "shadow_size": 64}):
        env = make_env("aloha/insertion", **kwargs)
        observation, _ = env.reset(seed=3)
        assert ("image" in observation) == ("images" not in kwargs)
        assert observation in env.observation_space
        for _ in range(3):
            observation, *_ = env.step(observation["state"] + np.float32(0.05))
        bare: Any = env.unwrapped
        assert bare.object_poses.shape == (2, 7)
        states.append(observation["state"])
        env.close()
    np.testing.assert_array_equal(*states)


def test_saved_scenes_are_drawn_as_they_were() -> None:
    env = make_env(images=False, image_size=32, shadow_size=64, render_mode="rgb_array")
    bare: Any = env.unwrapped
    assert isinstance(bare, RedrawsScenes)
    expert = WaypointExpert(env)
    env.reset(seed=4)
    expert.reset(4)
    scenes, images = [bare.save_scene()], [env.render()]
    for step in range(60):
        env.step(expert())
        if step % 20 == 19:
            scenes.append(bare.save_scene())
            images.append(env.render())
    bare.free_renderer()
    for scene, image in zip(scenes, images, strict=True):
        bare.show_scene(scene)
        np.testing.assert_array_equal(env.render(), image)
    assert np.any(np.asarray(images[0]) != np.asarray(images[-1]))
    env.close()


def test_unknown_names_and_sizes_are_rejected() -> None:
    with pytest.raises(BenchmarkError, match="no task 'juggle'"):
        make_env("aloha/insertion", task="juggle")
    for size in (0, [480], [480, 0]):
        with pytest.raises(BenchmarkError, match="expected one positive number, or height and"):
            make_env(image_size=size)
