"""Test what is recorded of an expert in a real environment."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest

from actionprior.errors import UserError
from actionprior.recording.scripted import ScriptedTask, environment_robot
from actionprior.rollout import RENDER, ObservationMap
from tests.helpers import experts
from tests.helpers.point_env import CAMERA, STEP, VECTOR, PointEnv


@contextmanager
def scripted(
    env_id: str = "test/Point-v0",
    expert: Callable[[Any], Any] = experts.Walker,
    observation_map: ObservationMap = VECTOR,
    make: dict[str, Any] | None = None,
    **changes: Any,
) -> Iterator[ScriptedTask]:
    env = gymnasium.make(env_id, render_mode="rgb_array", **(make or {}))
    robot = environment_robot(env, env_id, observation_map)
    task = ScriptedTask(env, env_id, expert, robot, observation_map, **changes)
    yield task
    task.close()


def frames_of(seed: int = 4, **changes: Any) -> Any:
    with scripted(**changes) as task:
        return task.demonstrate(seed)


def test_a_demonstration_equals_stepping_the_environment_directly() -> None:
    found = frames_of()
    assert found.instruction == "go to the target"
    env = gymnasium.make("test/Point-v0")
    state, _ = env.reset(seed=4)
    for frame in found.frames:
        wanted = np.clip(state[2:] - state[:2], -STEP, STEP)
        np.testing.assert_allclose(frame.state, state, atol=1e-6)
        np.testing.assert_allclose(frame.action, wanted, atol=1e-6)
        state, _, reached, *_ = env.step(np.clip(frame.action.astype(float), -STEP, STEP))
    assert reached


def test_images_come_from_the_observation_or_from_render() -> None:
    seen = frames_of(env_id="test/PointCamera-v0", observation_map=CAMERA)
    drawn = frames_of(observation_map=ObservationMap(state="", images={"top": RENDER}))
    for number, (one, other) in enumerate(zip(seen.frames, drawn.frames, strict=True)):
        np.testing.assert_array_equal(one.images["top"], other.images["top"])
        assert one.images["top"][0, 0, 0] == number


class Redrawn(PointEnv):
    """Point whose episodes are drawn afterwards, by a renderer that stays until it is freed."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.has_renderer = False

    def render(self) -> Any:
        self.has_renderer = True
        return super().render()

    def save_scene(self) -> Any:
        return self.place.copy(), self.steps

    def show_scene(self, scene: Any) -> None:
        self.place, self.steps = scene

    def free_renderer(self) -> None:
        self.has_renderer = False


gymnasium.register("test/Redrawn-v0", Redrawn, max_episode_steps=40)


@pytest.mark.parametrize("expert", [experts.Walker, experts.stands_still])
def test_no_task_holds_a_renderer_between_episodes(expert: Any) -> None:
    # A recording of MetaWorld's 50 tasks took 140 MB for each, in each of its processes.
    environments: list[Redrawn] = []

    def make_expert(env: Any) -> Any:
        environments.append(env.unwrapped)
        return expert(env)

    drawn = ObservationMap(state="", images={"top": RENDER})
    with scripted("test/Redrawn-v0", make_expert, drawn) as task:
        assert not environments[0].has_renderer
        found = task.demonstrate(4)
        assert not environments[0].has_renderer
    plain = frames_of(expert=expert, observation_map=drawn)
    assert (found is None) == (plain is None)
    pairs = zip(found.frames, plain.frames, strict=True) if found and plain else ()
    for one, other in pairs:
        np.testing.assert_array_equal(one.images["top"], other.images["top"])


def test_a_failed_episode_is_none() -> None:
    assert frames_of(expert=experts.stands_still) is None


def test_recording_continues_after_success_if_the_environment_does() -> None:
    class Endless(gymnasium.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            observation, reward, _, truncated, info = self.env.step(action)
            return observation, reward, False, truncated, info

    short = len(frames_of().frames)
    env = Endless(gymnasium.make("test/Point-v0"))
    robot = environment_robot(env, "continues", VECTOR)
    task = ScriptedTask(env, "continues", experts.Walker, robot, VECTOR, settle_steps=3)
    found = task.demonstrate(4)
    assert found is not None
    assert len(found.frames) == short + 3
    assert len(frames_of(settle_steps=3).frames) == short  # this environment ends on success


def test_noise_moves_the_point_but_not_the_recorded_action() -> None:
    plain, noisy = frames_of(), frames_of(noise=0.5)
    again = frames_of(noise=0.5)
    np.testing.assert_array_equal(plain.frames[0].action, noisy.frames[0].action)
    moved = noisy.frames[1].state[:2] - noisy.frames[0].state[:2]
    assert np.abs(moved - noisy.frames[0].action).max() > 5e-3
    for frame in noisy.frames:  # the expert's action at the state it was in
        state = frame.state
        np.testing.assert_allclose(
            frame.action, np.clip(state[2:] - state[:2], -STEP, STEP), atol=1e-6
        )
    assert [f.state.tolist() for f in again.frames] == [f.state.tolist() for f in noisy.frames]


def test_pushes_lead_away_from_the_path_but_are_not_recorded() -> None:
    def found(seed: int, **changes: Any) -> Any:
        with scripted(**changes) as task:
            return task.demonstrate(seed).frames

    pushed = [found(seed, push={"action_0": 3.0}) for seed in range(20)]
    again = [found(seed, push={"action_0": 3.0}) for seed in range(20)]
    plain = [found(seed) for seed in range(20)]
    longer = [len(a) > len(b) for a, b in zip(pushed, plain, strict=True)]
    assert any(longer)
    assert not all(longer), "not every episode is pushed"
    for frames in pushed:
        for frame, after in pairwise(frames):
            state, moved = frame.state, after.state[:2] - frame.state[:2]
            wanted = np.clip(state[2:] - state[:2], -STEP, STEP)
            np.testing.assert_allclose(frame.action, wanted, atol=1e-6)
            # The environment adds noise of a millimetre itself.
            assert moved[1] == pytest.approx(wanted[1], abs=6e-3), "only the named element"
    assert [[f.state.tolist() for f in frames] for frames in again] == [
        [f.state.tolist() for f in frames] for frames in pushed
    ]
    with pytest.raises(UserError, match=r"push names 'up', but the action of .* has"):
        found(0, push={"up": 1.0})


def test_names_come_from_the_environment_the_map_or_numbers() -> None:
    with scripted() as task:
        assert task.features.state == ["state_0", "state_1", "state_2", "state_3"]
        assert task.features.action == ["action_0", "action_1"]
        assert task.features.fps == 10  # render_fps
        assert not task.features.images
    named = ObservationMap("arm/state", {"top": "image"}, state_names=["x", "y", "tx", "ty"])
    with scripted("test/PointCamera-v0", observation_map=named) as task:
        assert task.features.state == ["x", "y", "tx", "ty"]
        assert task.features.images == {"top": (20, 30, 3)}
    env = gymnasium.make("test/Point-v0")
    robot = environment_robot(env, "test/Point-v0", VECTOR, "point", 25, ["dx", "dy"])
    assert (robot.name, robot.control_hz, robot.action_features) == ("point", 25, ["dx", "dy"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expert": experts.answers_three}, r"returned \[0.0, 0.0, 0.0\] at step 0 .* expected 2"),
        ({"expert": experts.gets_lost}, "at step 0 of the episode with seed 4, expected 2 finite"),
        ({"expert": experts.no_expert}, "the expert of 'test/Point-v0' is 0.1, expected something"),
        ({"make": {"info_key": "done"}}, "does not report success.*pass success_key"),
        ({"make": {"instruction": ""}}, "gives no instruction"),
        ({"env_id": "CartPole-v1"}, r"action space Discrete\(2\); expected a Box"),
        ({"observation_map": ObservationMap()}, "observation_map.state is 'state'"),
        (
            {"observation_map": ObservationMap("", state_names=["x"])},
            "its state_names are 1 entries: x",
        ),
    ],
)
def test_what_does_not_fit_is_rejected_in_one_sentence(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        frames_of(**changes)


def test_an_unknown_or_fractional_rate_is_rejected() -> None:
    env = gymnasium.make("test/Point-v0")
    with pytest.raises(UserError, match=r"runs at 12.5 Hz; give control_hz, a whole number"):
        environment_robot(env, "test/Point-v0", VECTOR, control_hz=12.5)
