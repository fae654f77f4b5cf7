import gymnasium as gym
import numpy as np
import pytest

from actionprior.envs import ENV_IDS, EVALUATION_SEED
from actionprior.envs.arms.robots import CONTROL_MODES
from actionprior.envs.experts import TabletopExpert
from actionprior.envs.recording import SETTLE_SECONDS
from actionprior.errors import UserError
from bench.experts import main, run_episode

pytestmark = pytest.mark.slow  # whole episodes in the simulator

TIMED = [pytest.param(i, marks=[pytest.mark.slow] * ("Sort" in i)) for i in ENV_IDS]
SEEDS = range(EVALUATION_SEED, EVALUATION_SEED + 6)


@pytest.mark.parametrize("env_id", TIMED)
def test_experts_succeed(env_id):
    env = gym.make(env_id, images=False).unwrapped
    expert = TabletopExpert(env)
    outcomes = [run_episode(env, expert, seed) for seed in SEEDS]
    assert sum(o.success for o in outcomes) >= len(SEEDS) - 1  # one unlucky push is allowed
    env.close()


@pytest.mark.parametrize("mode", CONTROL_MODES)
@pytest.mark.parametrize(
    "env_id",
    [
        "actionprior/PandaPlace-v0",
        "actionprior/XArm6Push-v0",
        "actionprior/KukaStack-v0",
        "actionprior/XArm6OnceEach-v0",
        "actionprior/DuoHandover-v0",
    ],
)
def test_experts_succeed_in_every_control_mode(env_id, mode):
    env = gym.make(env_id, images=False, control_mode=mode).unwrapped
    expert = TabletopExpert(env)
    assert sum(run_episode(env, expert, seed).success for seed in SEEDS) >= len(SEEDS) - 1
    env.close()


@pytest.mark.parametrize(
    "env_id",
    ["actionprior/PandaPlace-v0", "actionprior/KukaLift-v0", "actionprior/Ur5ePlace-v0"],
)
def test_motion_is_smooth_and_rarely_idle(env_id):
    env = gym.make(env_id, images=False).unwrapped
    expert = TabletopExpert(env)
    speeds, changes = [], []
    for seed in SEEDS:
        env.reset(seed=seed)
        expert.reset(seed)
        tips, done = [env.snapshot().tip], False
        while not done and len(tips) < env.step_limit:
            done = env.step(expert())[2]
            tips.append(env.snapshot().tip)
        velocity = np.diff(tips, axis=0) * env.control_hz
        speeds.append(np.linalg.norm(velocity, axis=1))
        changes.append(np.linalg.norm(np.diff(velocity, axis=0), axis=1) * env.control_hz)
    assert np.concatenate(speeds).max() < 0.35  # m/s
    assert np.concatenate(changes).max() < 2.0  # m/s²
    assert (np.concatenate(speeds) < 0.03).mean() < (0.2 if "Ur5e" in env_id else 0.1)


@pytest.mark.parametrize(
    "env_id", [i for i in ENV_IDS if not any(w in i for w in ("Reach", "Kuka", "Sort"))]
)
def test_experts_finish_without_undoing_their_work(env_id):
    env = gym.make(env_id, images=False).unwrapped
    expert = TabletopExpert(env)
    finished, heights = 0, []
    for seed in SEEDS:
        env.reset(seed=seed)
        expert.reset(seed)
        success, left = False, env.step_limit
        while not success and left:
            success, left = env.step(expert())[2], left - 1
        for _ in range(round(SETTLE_SECONDS * env.control_hz)):
            success = env.step(expert())[2]
        finished += success
        heights.append(env.snapshot().tip[2])
    assert finished >= len(SEEDS) - 1
    # Most tips have left the table (a push may use all its steps), and none is above the workspace.
    assert np.median(heights) > 0.08
    assert max(heights) < 0.32
    env.close()


@pytest.mark.parametrize("mode", CONTROL_MODES)
def test_pushes_lead_away_but_are_not_in_the_chosen_action(mode):
    env = gym.make("actionprior/PandaPlace-v0", images=False, control_mode=mode).unwrapped
    plain, pushed = TabletopExpert(env), TabletopExpert(env, push=0.15)
    apart, successes = [], 0
    for seed in SEEDS:
        env.reset(seed=seed)
        pushed.reset(seed)
        success, left = False, 2 * env.step_limit
        while not success and left:
            chosen = pushed()
            if not np.array_equal(pushed.executed, chosen):
                assert pushed.executed[-1] == chosen[-1]  # the gripper is not pushed
                apart.append(np.abs(pushed.executed - chosen).max())
            success, left = env.step(pushed.executed)[2], left - 1
        successes += success
        env.reset(seed=seed)
        plain.reset(seed)
        np.testing.assert_array_equal(plain(), plain.executed)
    assert successes >= len(SEEDS) - 1
    assert len(apart) > 20
    env.close()


def test_pushes_are_drawn_from_the_seed():
    env = gym.make("actionprior/PandaReach-v0", images=False).unwrapped
    expert = TabletopExpert(env, push=0.1)

    def tips(seed):
        env.reset(seed=3)
        expert.reset(seed)
        for _ in range(40):
            expert()
            env.step(expert.executed)
        return env.snapshot().tip

    assert np.array_equal(tips(0), tips(0))
    assert not np.allclose(tips(0), tips(1), atol=1e-3)
    env.close()


@pytest.mark.parametrize("push", [-0.1, 0.3])
def test_a_push_out_of_range_raises(push):
    with pytest.raises(UserError, match=r"push is .*it must be 0 \(no pushes\) to 0\.2 m/s"):
        TabletopExpert(gym.make("actionprior/PandaReach-v0", images=False), push=push)


def test_the_benchmark_prints_a_result_line_last(capsys):
    main(["--seeds", "1", "--only", "PandaReach"])
    assert capsys.readouterr().out.splitlines()[-1].startswith('RESULT {"actionprior/PandaReach')


def test_an_environment_without_expert_raises():
    with pytest.raises(UserError, match="there is no expert"):
        TabletopExpert(gym.make("CartPole-v1"))
