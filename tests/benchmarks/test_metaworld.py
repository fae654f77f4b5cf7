"""Test MetaWorld with a robot's observations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml

from actionprior.benchmarks import METAWORLD_IDS
from actionprior.benchmarks.metaworld import Expert
from actionprior.benchmarks.metaworld_tasks import METAWORLD_MT10
from actionprior.benchmarks.optional_import import BenchmarkError
from actionprior.benchmarks.tasks import METAWORLD_TASKS
from actionprior.embodiment import Embodiment
from actionprior.networks.trunks.base import resize
from actionprior.recording.scripted import ScriptedTask, environment_robot
from actionprior.rollout import RENDER, ObservationMap
from tests.helpers.environments import needs

pytestmark = needs("metaworld", "metaworld")

RECIPES = Path(__file__).parents[2] / "recipes"


def make_env(env_id: str = "metaworld/push-v3", **kwargs: Any) -> gym.Env[Any, Any]:
    return gym.make(env_id, disable_env_checker=True, **kwargs)


def test_the_tasks_equal_the_packages() -> None:
    from metaworld.env_dict import ENV_CLS_MAP

    assert set(METAWORLD_TASKS) == set(ENV_CLS_MAP)
    assert len(set(METAWORLD_TASKS.values())) == 50


def test_it_follows_gymnasiums_interface() -> None:
    env = make_env()
    from gymnasium.utils.env_checker import check_env

    check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_an_episode_depends_only_on_its_seed() -> None:
    one, other = make_env(images=False), make_env(images=False)
    other.reset(seed=3)
    for _ in range(5):
        other.step(np.ones(4, np.float32))
    for env in (one, other):
        env.reset(seed=7)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 4)).astype(np.float32)
    for action in actions:
        first, second = one.step(action), other.step(action)
        np.testing.assert_array_equal(first[0]["state"], second[0]["state"])
    full = [env.unwrapped.full_observation for env in (one, other)]  # type: ignore[attr-defined]  # MetaWorld's own
    np.testing.assert_array_equal(*full)
    one.reset(seed=8)
    assert not np.array_equal(one.unwrapped.full_observation, full[1])  # type: ignore[attr-defined]  # MetaWorld's own


def test_observations_hold_the_hand_but_no_object() -> None:
    env = make_env(images=False)
    observation, info = env.reset(seed=1)
    full = env.unwrapped.full_observation  # type: ignore[attr-defined]  # MetaWorld's own
    assert observation.keys() == {"state"}
    np.testing.assert_allclose(observation["state"], full[:4], atol=1e-6)
    assert np.abs(full[-3:]).sum() > 0  # the goal, which only the expert observes
    assert info["instruction"] == "push the puck to the goal"


def test_images_show_the_scene_and_differ_by_camera() -> None:
    images = {}
    for camera in ("corner4", "corner2", "topview"):
        env = make_env(image_size=32, camera=camera)
        images[camera] = env.reset(seed=0)[0]["image"]
        env.close()
    assert all(p.shape == (32, 32, 3) and p.std() > 20 for p in images.values())
    assert (images["corner4"] != images["corner2"]).any()
    # Upright: the floor's edge, a black void behind it, is at the top.
    assert images["corner4"][:3].mean() < images["corner4"][-3:].mean()


@pytest.mark.parametrize("env_id", METAWORLD_IDS[::7])
def test_experts_succeed(env_id: str) -> None:
    env = make_env(env_id, images=False)
    expert = Expert(env)
    succeeded = 0
    for seed in range(3):
        env.reset(seed=seed)
        expert.reset(seed)
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(expert())
            over = terminated or truncated
        succeeded += info["success"]
    assert succeeded >= 2


def test_success_ends_an_episode_unless_asked_otherwise() -> None:
    for ends in (True, False):
        env = make_env("metaworld/reach-v3", images=False, ends=ends)
        expert = Expert(env)
        env.reset(seed=0)
        info: dict[str, Any] = {}
        while not info.get("success"):
            _, _, terminated, _, info = env.step(expert())
        assert terminated == ends


def test_the_finetune_recipe_rolls_out(jitter: Callable[..., Any]) -> None:
    recipe = yaml.safe_load((RECIPES / "metaworld" / "finetune.yaml").read_text())
    known = recipe["data"]["init_args"]["embodiments"][0]
    robot = Embodiment.from_dict({k: v for k, v in known.items() if k not in _DATA_KEYS})
    settings = recipe["trainer"]["callbacks"][-1]["init_args"]
    assert settings["observation_map"]["images"] == {"observation.images.corner": RENDER}
    result, seen = jitter(
        robot,
        settings["env_ids"][0],
        observation_map=ObservationMap(**settings["observation_map"]),
        env_kwargs=settings["env_kwargs"],
    )
    assert result.episodes[0].length == 6
    assert not result.episodes[0].success
    assert [o.images_BCKYX.shape for o in seen] == [(1, 1, 3, 64, 64)] * 2
    assert (seen[0].images_BCKYX != seen[1].images_BCKYX).any()


@pytest.mark.parametrize("task", ["reach", "drawer-open", "button-press-topdown", "window-open"])
def test_a_first_observation_shows_its_own_episode(task: str) -> None:
    one, other = make_env(f"metaworld/{task}-v3"), make_env(f"metaworld/{task}-v3")
    other.reset(seed=3)
    for env in (one, other):
        env.reset(seed=7)
    first, second = (e.unwrapped.full_observation for e in (one, other))  # type: ignore[attr-defined]  # MetaWorld's own
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(one.unwrapped.render(), other.unwrapped.render())
    for env in (one, other):
        env.close()


def test_images_equal_lerobots_pixel_by_pixel() -> None:
    lerobot = pytest.importorskip("lerobot.envs.metaworld")
    lerobot_env = lerobot.MetaworldEnv("push-v3", obs_type="pixels_agent_pos")
    lerobot_env.reset(seed=5)
    env = make_env(image_size=480, effects="all", instructions="published")
    _, info = env.reset(seed=5)
    assert info["instruction"] == lerobot_env.task_description == "Push the puck to a goal"
    # Their first image shows the goal of an earlier episode.
    observation, *_ = env.step(np.zeros(4, np.float32))
    expected, *_ = lerobot_env.step(np.zeros(4, np.float32))
    np.testing.assert_allclose(observation["state"], expected["agent_pos"], atol=1e-6)
    different = np.abs(observation["image"].astype(int) - expected["pixels"].astype(int))
    assert different.max() <= 1
    assert (different > 0).mean() < 1e-4
    env.close()
    lerobot_env.close()


def test_images_that_are_drawn_large_are_antialiased() -> None:
    images = {}
    for draw_size, size in ((0, 120), (480, 120), (0, 480)):
        env = make_env(image_size=size, draw_size=draw_size, effects="sky")
        images[draw_size, size] = env.reset(seed=5)[0]["image"].astype(float)
        env.close()
    large = torch.from_numpy(images[0, 480]).permute(2, 0, 1)[None].byte()
    shrunk = 255 * resize(large, (120, 120))[0].permute(1, 2, 0).numpy()
    assert np.abs(images[480, 120] - shrunk).max() < 1.1  # what a trunk would see
    assert np.abs(images[0, 120] - shrunk).mean() > 1.5


def test_effects_add_a_background_and_shadows() -> None:
    images = {}
    for effects in ("none", "sky", "all"):
        env = make_env(effects=effects, shadow_size=512, draw_size=128)
        images[effects] = env.reset(seed=5)[0]["image"].astype(float)
        env.close()
    corner = (slice(0, 8), slice(56, 64))
    assert images["none"][corner].max() == 0
    assert images["sky"][corner].min() > 100
    changed = np.abs(images["all"] - images["sky"]).max(-1) > 8
    assert 0.1 < changed.mean() < 0.8
    # What is lit becomes lighter, and what is in the shadow darker.
    assert images["all"][changed].std() > 1.1 * images["sky"][changed].std()


def test_a_second_camera_has_its_own_image() -> None:
    env = make_env(camera=["corner4", "gripperPOV"], render_mode="rgb_array")
    observation, _ = env.reset(seed=5)
    assert observation in env.observation_space
    assert observation.keys() == {"state", "image", "image_gripperPOV"}
    assert (observation["image"] != observation["image_gripperPOV"]).any()
    bare: Any = env.unwrapped
    np.testing.assert_array_equal(bare.render_camera("gripperPOV"), observation["image_gripperPOV"])
    np.testing.assert_array_equal(env.render(), observation["image"])
    env.close()


def test_two_cameras_are_rendered_for_a_policy(jitter: Callable[..., Any]) -> None:
    recipe = yaml.safe_load((RECIPES / "metaworld" / "finetune.yaml").read_text())
    known = recipe["data"]["init_args"]["embodiments"][0] | {"cameras": ["corner", "gripper"]}
    robot = Embodiment.from_dict({k: v for k, v in known.items() if k not in _DATA_KEYS})
    images = {"corner": RENDER, "gripper": f"{RENDER}/gripperPOV"}
    _, seen = jitter(
        robot,
        "metaworld/push-v3",
        observation_map=ObservationMap(images=images),
        env_kwargs={"images": False, "image_size": 32},
    )
    pictures = seen[0].images_BCKYX
    assert pictures.shape == (1, 2, 3, 32, 32)
    assert (pictures[:, 0] != pictures[:, 1]).any()


@pytest.mark.slow
@pytest.mark.parametrize("env_id", METAWORLD_IDS)
def test_saved_scenes_are_drawn_as_they_were(env_id: str) -> None:
    env = make_env(env_id, image_size=48, effects="sky")
    bare: Any = env.unwrapped
    expert = Expert(env)
    observation, _ = env.reset(seed=4)
    scenes, images = [bare.save_scene()], [observation["image"]]
    over = False
    while not over and len(scenes) < 100:
        observation, _, terminated, truncated, _ = env.step(expert())
        scenes.append(bare.save_scene())
        images.append(observation["image"])
        over = terminated or truncated
    for scene, image in zip(scenes[::7], images[::7], strict=True):
        bare.show_scene(scene)
        np.testing.assert_array_equal(env.render(), image)
    assert (images[0] != images[-1]).any()
    env.close()


def test_recording_draws_only_episodes_that_succeed(monkeypatch: pytest.MonkeyPatch) -> None:
    images = {"corner": RENDER, "gripper": f"{RENDER}/gripperPOV"}
    each = {"corner": "image", "gripper": "image_gripperPOV"}
    cameras = ["corner4", "gripperPOV"]
    found = []
    counts = []
    for drawn, kwargs in ((images, {"images": False}), (each, {})):
        env = make_env(
            "metaworld/reach-v3",
            render_mode="rgb_array",
            camera=cameras,
            image_size=32,
            max_episode_steps=100,
            **kwargs,
        )
        bare: Any = env.unwrapped
        calls: list[str] = []
        render = bare.render_camera
        monkeypatch.setattr(
            bare,
            "render_camera",
            lambda c, calls=calls, render=render: (calls.append(c), render(c))[1],
        )
        observed = ObservationMap(images=drawn)
        robot = environment_robot(env, "reach", observed)
        task = ScriptedTask(env, "reach", Expert, robot, observed, noise=0.2)
        demonstration = task.demonstrate(3)
        assert demonstration is not None
        found.append(demonstration.frames)
        calls.clear()
        task._expert = lambda _: np.zeros(4, np.float32)
        assert task.demonstrate(3) is None
        counts.append(len(calls))
        task.close()
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one.state, other.state)
        for camera in images:
            np.testing.assert_array_equal(one.images[camera], other.images[camera])
    assert counts == [2, 202]  # after the reset only, or at each of 100 steps, too


def test_the_goal_disappears_from_images_and_nothing_else_changes() -> None:
    size: dict[str, Any] = {"image_size": 64, "effects": "sky"}
    shown, hidden = (make_env("metaworld/reach-v3", goal_steps=n, **size) for n in (0, 3))
    bare: Any = hidden.unwrapped
    expert = Expert(shown)
    differ, scenes, images = [], [], []
    pair = [env.reset(seed=5)[0] for env in (shown, hidden)]
    for _ in range(6):
        differ.append(int((pair[0]["image"] != pair[1]["image"]).any(-1).sum()))
        np.testing.assert_array_equal(pair[0]["state"], pair[1]["state"])
        np.testing.assert_array_equal(bare.places()["goal"], bare.full_observation[36:39])
        scenes.append(bare.save_scene())
        images.append(pair[1]["image"])
        action = expert()
        pair = [env.step(action)[0] for env in (shown, hidden)]
    assert differ[:3] == [0, 0, 0]
    assert all(0 < count < 100 for count in differ[3:])  # a marker of a few pixels
    for scene, image in zip(scenes, images, strict=True):
        bare.show_scene(scene)
        np.testing.assert_array_equal(hidden.render(), image)
    again = hidden.reset(seed=5)[0]
    np.testing.assert_array_equal(again["image"], images[0])
    for env in (shown, hidden):
        env.close()


def test_published_lists_equal_the_packages() -> None:
    from metaworld import env_dict

    assert tuple(env_dict.MT10_V3) == METAWORLD_MT10
    assert set(METAWORLD_TASKS) == set(env_dict.MT50_V3)


def test_unknown_names_are_rejected() -> None:
    with pytest.raises(BenchmarkError, match="no task 'juggle-v3'; it has"):
        make_env(task="juggle-v3")
    with pytest.raises(BenchmarkError, match="no camera 'front'; it has"):
        make_env(camera="front")
    with pytest.raises(BenchmarkError, match="no camera 'front'; it has"):
        make_env(camera=["corner4", "front"])
    with pytest.raises(BenchmarkError, match="camera is an empty list"):
        make_env(camera=[])
    with pytest.raises(BenchmarkError, match="effects is 'some'; expected one of none, sky, all"):
        make_env(effects="some")
    with pytest.raises(BenchmarkError, match="instructions is 'long'; expected one of"):
        make_env(instructions="long")
    for env_id, steps in (("metaworld/push-v3", -1), ("metaworld/assembly-v3", 9)):
        with pytest.raises(BenchmarkError, match=f"goal_steps is {steps}; expected 0, or more for"):
            make_env(env_id, goal_steps=steps)
    with pytest.raises(BenchmarkError, match="draw_size is 32 and image_size 64"):
        make_env(draw_size=32)
    with pytest.raises(BenchmarkError, match="is no MetaWorld task"):
        Expert(gym.make("CartPole-v1"))


_DATA_KEYS = ("roots", "how_to_get")
