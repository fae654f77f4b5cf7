"""Test rollouts in a real environment: what they measure and what the policy receives."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from torch import Tensor

from actionprior.batch import Observation
from actionprior.embodiment import ActionGroup, Embodiment, StateGroup
from actionprior.embodiment.recorded_ranges import RecordedRanges
from actionprior.envs.embodiments import suite_embodiment
from actionprior.envs.recording import CAMERA_KEY
from actionprior.envs.scene.world import World
from actionprior.errors import UserError
from actionprior.rollout import (
    RENDER,
    ObservationMap,
    RolloutError,
    RolloutResult,
    jerk,
    wilson_interval,
)
from actionprior.rollout.video import write_mp4
from tests.helpers import point_env
from tests.helpers.point_env import STEP, VECTOR, Policy, Solver, Wanderer, point_robot, roll


def results_of(result: RolloutResult) -> list[tuple[Any, ...]]:
    return [
        (e.seed, e.success, e.episode_return, e.length, e.jerk, e.clipped_share)
        for e in result.episodes
    ]


class Limited(Wanderer):
    """Wanderer that knows the recorded limits of its robot."""

    def __init__(self, bound: float, step: float = 1.0, state: float = 9.0) -> None:
        super().__init__()
        actions, states = np.ones(37, np.float32), np.ones(74, np.float32)
        self.recorded_ranges = {
            "point": RecordedRanges(
                -bound * actions, bound * actions, step * actions, -state * states, state * states
            )
        }


# ---- what is measured ---------------------------------------------------------------------


def test_a_policy_that_solves_the_task_succeeds_and_a_random_one_seldom() -> None:
    solved, wandered = roll(Solver(), episodes=20), roll(Wanderer(), episodes=20)
    assert solved.success_rate == 1.0
    assert solved.clipped_share == 0.0
    assert solved.mean_length < wandered.mean_length
    assert wandered.success_rate < 0.5
    assert 0.1 < wandered.clipped_share < 0.4  # P(|N| > 0.1 / 0.08) = 0.21
    assert wandered.mean_jerk > solved.mean_jerk
    assert [e.seed for e in solved.episodes] == list(range(50, 70))
    assert {e.instruction for e in solved.episodes} == {"go to the target"}
    assert len({e.length for e in solved.episodes}) > 3  # environments were at different phases


def test_an_episode_equals_stepping_the_environment_directly() -> None:
    policy = Wanderer()
    episode = roll(policy, episodes=1, max_steps=12).episodes[0]
    env = gymnasium.make("test/Point-v0", max_episode_steps=12)
    start, _ = env.reset(seed=50)
    # three plans (5 + 5 + 2 steps); the first five actions of each
    commands = torch.cat([0.08 * n[0, :5, 7:9] for n in policy.noise])[:12].numpy()
    total, states = 0.0, [start]
    for action in np.clip(commands, np.float32(-STEP), np.float32(STEP)):
        state, reward, terminated, truncated, _ = env.step(
            np.clip(action.astype(float), -STEP, STEP)
        )
        total += float(reward)
        states.append(state)
    assert truncated
    assert not terminated
    assert len(policy.noise) == 3
    assert episode.length == 12
    np.testing.assert_allclose(episode.state_Ts, states[:-1], atol=1e-6)
    assert episode.episode_return == pytest.approx(total, abs=1e-6)
    assert episode.clipped_share == pytest.approx((np.abs(commands) > STEP).mean())
    assert len(episode.latencies_s) == 3


@pytest.mark.parametrize("num_envs", [1, 2, 7])
def test_results_depend_only_on_the_seed(num_envs: int) -> None:
    assert results_of(roll(Wanderer(), num_envs=num_envs)) == results_of(roll(Wanderer()))


def test_an_episode_does_not_depend_on_the_other_episodes() -> None:
    torch.manual_seed(1)
    single = roll(Wanderer(), seed=53, episodes=1)
    assert results_of(single) == results_of(roll(Wanderer()))[3:4]
    assert results_of(single) != results_of(roll(Wanderer(), seed=54, episodes=1))


def test_the_global_random_state_is_untouched() -> None:
    before = torch.get_rng_state()
    roll(Wanderer())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
def test_processes_give_the_same_results() -> None:
    synchronous = results_of(roll(Wanderer(), episodes=3, num_envs=2))
    assert (
        results_of(roll(Wanderer(), episodes=3, num_envs=2, vectorization="async")) == synchronous
    )


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # statsmodels.stats.proportion.proportion_confint(method="wilson")
        (8, 10, 0.4901624, 0.9433178),
        (0, 50, 0.0, 0.0713476),
        (50, 50, 0.9286524, 1.0),
        (50, 100, 0.4038315, 0.5961685),
    ],
)
def test_wilson_interval(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-6)


def test_wilson_interval_refuses_impossible_counts() -> None:
    with pytest.raises(ValueError, match="3 successes of 2 episodes"):
        wilson_interval(3, 2)


def test_jerk_is_the_third_difference_of_commanded_positions() -> None:
    t = np.arange(9.0)
    cubic = np.stack([t**3, 0 * t], axis=1).astype(np.float32)
    positions = point_robot(
        action=[
            ActionGroup("x", "right_arm", ["x"], "end_effector_position", "m"),
            ActionGroup("grip", "joints", ["grip"], "gripper", ""),
        ]
    )
    deltas = point_robot()
    assert jerk(cubic, positions) == pytest.approx(6.0)
    # The same motion as deltas is t³ - (t - 1)³. The other feature stays constant.
    steps = np.diff(cubic, axis=0, prepend=cubic[:1])
    assert jerk(steps, deltas) == pytest.approx(6.0 / 2)
    assert np.isnan(jerk(cubic[:3], positions))


# ---- the input of the policy ------------------------------------------------------------------


def test_history_is_the_executed_past_oldest_first_and_padded_last() -> None:
    class Spy(Wanderer):
        history_length = 7

    policy = Spy()
    roll(policy, episodes=1, max_steps=16)
    masks = [seen.history.step_mask_BH[0].tolist() for seen in policy.seen]
    assert masks == [
        [False] * 7,
        [True] * 5 + [False] * 2,
        [True] * 7,  # steps 3 to 9
        [True] * 7,
    ]
    executed = torch.cat([0.08 * n[0, :5, 7:9] for n in policy.noise]).clamp(-STEP, STEP)
    for plan, seen in enumerate(policy.seen):
        now = 5 * plan
        first, count = max(0, now - 7), min(now, 7)
        history = seen.history
        actions = history.action_BHA[0, :count, 7:9]
        torch.testing.assert_close(actions, executed[first : first + count])
        # each action moved the point from its own state to the next one (noise 1e-3)
        states = torch.cat([history.state_BHS[0, :count, 8:10], seen.state_BS[0, None, 8:10]])
        torch.testing.assert_close(states[1:] - states[:-1], actions, atol=6e-3, rtol=0)
        assert history.action_BHA[0, count:].abs().sum() == 0
        assert history.action_BHA.shape == (1, 7, 37)
        assert history.state_BHS.shape == (1, 7, 74)
        assert history.embodiment_B.tolist() == [1]
    start = policy.seen[0].state_BS[0]
    torch.testing.assert_close(policy.seen[1].history.state_BHS[0, 0], start)


def test_references_are_the_first_states_of_chunk_and_history() -> None:
    place = point_robot(
        action=[
            ActionGroup("move", "right_arm", ["dx", "dy"], "end_effector_position", "m", 0, "place")
        ],
        state=[
            StateGroup("place", "joints", ["x", "y"], unit="m"),
            StateGroup("target", "joints", ["target_x", "target_y"], unit="m", offset=2),
        ],
    )
    policy = Wanderer(place)
    roll(policy, episodes=1, max_steps=20)
    for seen in policy.seen[1:]:
        torch.testing.assert_close(seen.reference_BA[:, 7:9], seen.state_BS[:, 8:10])
        oldest = seen.history.state_BHS[:, 0, 8:10]
        torch.testing.assert_close(seen.history.reference_BA[:, 7:9], oldest)
        assert not torch.equal(oldest, seen.state_BS[:, 8:10])


def test_environments_plan_together_only_when_their_queues_are_empty() -> None:
    policy = Solver()
    result = roll(policy, episodes=9)
    sizes = [len(seen.task) for seen in policy.seen]
    assert sizes[0] == 3
    assert sum(sizes) == sum(-(-e.length // 5) for e in result.episodes)
    assert sum(sizes) == sum(len(e.latencies_s) for e in result.episodes)


def test_flow_noise_is_new_at_every_plan_and_standard_normal() -> None:
    policy = Wanderer()
    roll(policy, episodes=8, num_envs=4)
    noise = torch.cat(policy.noise)
    assert len(torch.unique(noise[:, 0, 0])) == len(noise)
    assert noise.mean().abs() < 0.05
    assert noise.std() == pytest.approx(1.0, abs=0.05)


def test_cameras_are_in_the_embodiments_order() -> None:
    robot = point_robot(cameras=["rendered", "top"])
    policy = Solver(robot)
    images = ObservationMap("arm/state", images={"top": "image", "rendered": RENDER})
    assert roll(policy, "test/PointCamera-v0", observation_map=images).success_rate == 1
    for seen in policy.seen:
        batch = len(seen.task)
        assert seen.images_BCKYX.shape == (batch, 2, 3, 20, 30)
        assert seen.images_BCKYX.dtype == torch.uint8
        assert seen.camera_mask_BC.tolist() == [[True, True]] * batch
        torch.testing.assert_close(seen.images_BCKYX[:, 0], seen.images_BCKYX[:, 1])
        # The image shows the same state as the vector. Its first pixel counts the steps.
        white = seen.images_BCKYX[0, 0, 0].clone()
        white[0, 0] = 0
        place = (seen.state_BS[0, 8:10].double() + 0.5).clamp(0, 1) * torch.tensor([19, 29])
        assert white.nonzero().tolist() in ([place.int().tolist()], [])


def test_a_robot_without_cameras_gets_no_image() -> None:
    policy = Solver()
    roll(policy, episodes=1)
    assert policy.seen[0].images_BCKYX.shape[:3] == (1, 0, 3)
    assert policy.seen[0].camera_mask_BC.shape == (1, 0)


def test_a_fixed_instruction_replaces_the_environments() -> None:
    policy = Solver()
    roll(policy, episodes=1, observation_map=replace(VECTOR, text="just go"))
    assert policy.seen[0].task == ["just go"]


def test_features_are_matched_by_name_if_the_environment_names_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = results_of(roll(Solver()))
    monkeypatch.setattr(
        point_env.PointEnv, "state_names", ["x", "y", "target_x", "target_y"], raising=False
    )
    monkeypatch.setattr(point_env.PointEnv, "action_names", ["dx", "dy"], raising=False)
    swapped = point_robot(
        action=[ActionGroup("move", "right_arm", ["dy", "dx"], "end_effector_delta", "m")],
        state=[StateGroup("place", "joints", ["y", "x", "target_y", "target_x"], unit="m")],
    )
    assert results_of(roll(Solver(swapped))) == expected
    unknown = point_robot(
        state=[StateGroup("place", "joints", ["x", "y", "target_x", "elbow"], unit="m")]
    )
    with pytest.raises(RolloutError, match="has no state 'elbow', which embodiment 'point'"):
        roll(Solver(unknown))


def test_a_state_may_span_several_keys_and_be_named_by_the_map(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = results_of(roll(Solver()))
    halves = Box(-np.inf, np.inf, (2,), np.float64)

    class Halves(gymnasium.Wrapper[Any, Any, Any, Any]):
        observation_space = Dict({"target": halves, "arm": Dict({"place": halves})})

        def reset(self, **kwargs: Any) -> Any:
            state, info = self.env.reset(**kwargs)
            return self._split(state), info

        def step(self, action: Any) -> Any:
            state, *rest = self.env.step(action)
            return self._split(state), *rest

        def _split(self, state: Any) -> Any:
            return {"target": state[2:], "arm": {"place": state[:2]}}

    monkeypatch.setitem(gymnasium.registry, "test/Halves-v0", None)
    gymnasium.registry.pop("test/Halves-v0")
    gymnasium.register(
        "test/Halves-v0", lambda **k: Halves(point_env.PointEnv(**k)), max_episode_steps=40
    )
    joined = ObservationMap(["arm/place", "target"])
    assert results_of(roll(Solver(), "test/Halves-v0", observation_map=joined)) == expected
    turned = ObservationMap(["target", "arm/place"], state_names=["target_x", "target_y", "x", "y"])
    assert results_of(roll(Solver(), "test/Halves-v0", observation_map=turned)) == expected
    # A robot with fewer features than the environment selects its own entries.
    less = Wanderer(point_robot(state=[StateGroup("place", "joints", ["y", "x"], unit="m")]))
    named = ObservationMap("", state_names=["x", "y", "target_x", "target_y"])
    (episode,) = roll(less, episodes=1, observation_map=named).episodes
    (whole,) = roll(Wanderer(), episodes=1).episodes
    np.testing.assert_array_equal(episode.state_Ts, whole.state_Ts[:, [1, 0]])


def test_rendered_images_are_drawn_when_the_policy_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    real = point_env.PointEnv.render
    monkeypatch.setattr(
        point_env.PointEnv, "render", lambda env: drawn.append(env.steps) or real(env)
    )
    policy = Wanderer(point_robot(["top"]))
    images = ObservationMap("", images={"top": RENDER})
    roll(policy, episodes=1, num_envs=1, max_steps=12, observation_map=images)
    assert [int(o.images_BCKYX[0, 0, 0, 0, 0]) for o in policy.seen] == [0, 5, 10]
    assert drawn == [0, 0, 5, 10]  # the first render determines the image size


def test_an_environment_that_draws_its_own_images_does_so_when_the_policy_plans(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[int] = []
    real = World.render
    monkeypatch.setattr(World, "render", lambda self, size: drawn.append(size) or real(self, size))
    robot = suite_embodiment("panda")
    images = ObservationMap("state", {CAMERA_KEY: "image"})
    for env_id in ("actionprior/PandaReach-v0", "actionprior/PandaLift-v0"):
        roll(
            Wanderer(robot),
            env_id,
            episodes=1,
            max_steps=12,
            observation_map=images,
            embodiment="panda",
        )
    assert drawn == 2 * [64, 64, 64]


# ---- films ------------------------------------------------------------------------------------


def test_filmed_episodes_decode_again_frame_by_frame(tmp_path: Path) -> None:
    result = roll(Solver(), record=2)
    assert results_of(result) == results_of(roll(Solver()))  # filming changes nothing
    assert [len(e.frames) > 0 for e in result.episodes] == [True] * 2 + [False] * 5
    for episode in result.episodes[:2]:
        assert len(episode.frames) == episode.length + 1
        assert [int(frame[0, 0, 0]) for frame in episode.frames] == list(range(episode.length + 1))
        path = tmp_path / "films" / f"{episode.seed}.mp4"
        write_mp4(episode.frames, path, fps=10.0)
        with av.open(str(path)) as film:
            stream = film.streams.video[0]
            pictures = [picture.to_ndarray(format="rgb24") for picture in film.decode(stream)]
            assert stream.codec_context.name == "h264"
            assert stream.pix_fmt == "yuv420p"
            assert float(stream.average_rate or 0) == 10.0
        assert len(pictures) == episode.length + 1
        assert pictures[0].shape == (260, 390, 3)  # 20 x 30, thirteen times
        big = episode.frames[-1].repeat(13, 0).repeat(13, 1).astype(int)
        assert np.abs(pictures[-1] - big).mean() < 5


# ---- the project's own suite --------------------------------------------------------------


def test_replayed_demonstrations_succeed_in_the_suite() -> None:
    """Check that names, orders, units and step counts of suite and rollout agree."""
    pytest.importorskip("pybullet", reason="the PyBullet suite needs the extra 'sim'")
    from actionprior.envs.experts import TabletopExpert
    from actionprior.envs.recording import CAMERA_KEY, demonstrate

    joints = [f"joint_{i}" for i in range(1, 8)]
    deltas = [f"{joint}_delta" for joint in joints]
    panda = Embodiment(  # not in the environment's order
        name="point",
        control_hz=10,
        action=[
            ActionGroup("gripper", "joints", ["gripper"], "gripper", "", offset=7),
            ActionGroup("arm", "joints", deltas, "joint_delta", "rad"),
        ],
        state=[
            StateGroup("gripper", "joints", ["gripper"], "gripper", "", offset=7),
            StateGroup("arm", "joints", joints, "position", "rad"),
        ],
        cameras=["front"],
    )
    env = gymnasium.make("actionprior/PandaReach-v0")
    frames = demonstrate(env.unwrapped, TabletopExpert(env), seed=50)  # type: ignore[arg-type]  # Gymnasium: any environment
    env.close()
    assert frames is not None

    class Replay(Policy):
        def predict_chunk(self, observation: Observation, noise_BHA: Tensor) -> Tensor:
            first = 5 * len(self.seen)
            self.seen.append(observation)
            shown = torch.from_numpy(frames[first].state[3:])
            torch.testing.assert_close(observation.state_BS[0, 8:16], shown)
            picture = torch.from_numpy(frames[first].images[CAMERA_KEY]).movedim(-1, 0)
            assert torch.equal(observation.images_BCKYX[0, 0], picture)
            chunk_BHA = torch.zeros_like(noise_BHA)
            for step, frame in enumerate(frames[first : first + 6]):
                chunk_BHA[0, step, 29:37] = torch.from_numpy(frame.action)
            return chunk_BHA

    result = roll(
        Replay(panda),
        "actionprior/PandaReach-v0",
        episodes=1,
        observation_map=ObservationMap("state", {"front": "image"}),
        record=1,
    )
    episode = result.episodes[0]
    assert episode.success
    assert episode.episode_return == 1.0
    assert episode.instruction.startswith("reach the ")
    assert len(episode.frames) == episode.length + 1
    assert episode.frames[0].shape == (256, 256, 3)


class Follower(Wanderer):
    """Policy that keeps the committed actions in its chunk, and records them."""

    def __init__(self) -> None:
        super().__init__()
        self.committed: list[torch.Tensor] = []

    def predict_chunk(self, observation, noise_BHA, committed=None):  # type: ignore[no-untyped-def]  # as the protocol has it
        chunk_BHA = super().predict_chunk(observation, noise_BHA)
        assert committed is not None
        known_BH1 = (torch.arange(6) < committed.steps_B[:, None])[..., None]
        self.committed.append(committed.steps_B)
        return torch.where(known_BH1, committed.action_BHA, chunk_BHA)


def test_a_delayed_plan_takes_over_after_the_actions_under_way() -> None:
    policy = Follower()
    result = roll(policy, episodes=1, num_envs=1, execute_steps=3, delay_steps=2, max_steps=20)
    assert [int(steps[0]) for steps in policy.committed] == [0, 2, 2, 2, 2, 2, 2]
    assert result.episodes[0].length == 20
    with pytest.raises(UserError, match="less delay_steps 2"):
        roll(policy, execute_steps=5, delay_steps=2)


def test_a_robot_without_a_state_acts() -> None:
    policy = Wanderer(point_robot(state=[]))
    result = roll(policy, episodes=2)
    assert policy.seen[0].state_BS.abs().sum() == 0
    assert result.episodes[0].state_Ts.shape == (result.episodes[0].length, 0)


# ---- guard --------------------------------------------------------------------------------


def test_a_guard_warns_without_changing_an_action() -> None:
    with pytest.warns(RuntimeWarning, match=r"dx of the action is .*, beyond the recorded") as said:
        watched = roll(Limited(0.05, state=0.1))
    assert results_of(watched) == results_of(roll(Wanderer()))
    kinds = ["beyond the recorded" in str(w.message) for w in said if w.category is RuntimeWarning]
    assert sorted(kinds) == [False, True]  # once per kind, not per episode
    for episode in watched.episodes:
        assert episode.guard_counts is not None
        assert 0 < episode.guard_counts["limit"] <= episode.length
    assert watched.guard_counts["state"] > 0
    assert roll(Limited(0.05), guard="off").guard_counts == {}
    assert roll(Wanderer()).guard_counts == {}


def test_a_guard_clips_what_is_executed() -> None:
    with pytest.warns(RuntimeWarning, match="it is clipped"):
        clipped = roll(Limited(0.05), guard="clip", guard_margin=0.2)
    assert clipped.clipped_share == 0.0  # before the action space's bounds
    moved = np.concatenate([np.diff(e.state_Ts[:, :2], axis=0) for e in clipped.episodes])
    assert 0.066 < np.abs(moved).max() < 0.075  # 0.05, a fifth of the range, and some noise


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"guard": "stop"}, "guard is 'stop'; expected one of off, warn, clip"),
        ({"guard_margin": -1}, "guard_margin is -1; expected a number from 0 on"),
        ({"guard": "clip"}, "guard is 'clip', but the policy's file records no limits of 'point'"),
    ],
)
def test_a_guard_that_cannot_be_used_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        roll(Wanderer(), **arguments)
