import json
import os
import signal
import subprocess
import sys
import time

import gymnasium as gym
import numpy as np
import pytest

from actionprior.envs.experts import TabletopExpert
from actionprior.envs.recording import (
    CAMERA_KEY,
    SETTLE_SECONDS,
    demonstrate,
    record_demonstrations,
)
from actionprior.errors import UserError

IDS = ["actionprior/PandaReach-v0", "actionprior/PandaLift-v0"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "demos"
    return record_demonstrations(
        IDS, root, episodes_per_task=2, seed=3, image_size=32, progress=False
    )


def test_what_was_recorded_is_what_lerobot_reads(recorded):
    from lerobot.datasets import LeRobotDataset

    dataset = LeRobotDataset("actionprior/demos", root=recorded.root)
    env = gym.make(IDS[0], image_size=32).unwrapped
    assert dataset.num_episodes == recorded.episodes == 4
    assert len(dataset) == recorded.frames
    assert dataset.fps == 10
    assert dataset.meta.robot_type == "panda"
    assert dataset.features["observation.state"]["names"] == list(env.state_names)
    assert dataset.features["action"]["names"] == list(env.action_names)
    first = demonstrate(env, TabletopExpert(env), seed=3_000_000)
    episode = [dataset[i] for i in range(len(first))]
    for item, frame in zip(episode, first, strict=True):
        assert item["task"] == env.instruction
        np.testing.assert_array_equal(item["observation.state"].numpy(), frame.state)
        np.testing.assert_array_equal(item["action"].numpy(), frame.action)
        pixels = (item[CAMERA_KEY].numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)
        np.testing.assert_array_equal(pixels, frame.images[CAMERA_KEY])


def test_ctrl_c_never_leaves_a_part_for_a_training_run(tmp_path, monkeypatch):
    # Data modules record what is missing, and would train on a part as if it were all.
    def interrupted(env, expert, seed):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("actionprior.envs.recording.demonstrate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record_demonstrations(IDS[0], tmp_path / "demos", episodes_per_task=2, images=False)
    assert list(tmp_path.iterdir()) == []


def test_tasks_alternate_and_no_other_files_remain(recorded):
    import pyarrow.parquet as pq

    meta = pq.read_table(recorded.root / "meta/episodes").to_pydict()
    verbs = [tasks[0].split()[0] for tasks in meta["tasks"]]
    assert verbs == ["reach", "lift", "reach", "lift"]
    assert [path.name for path in recorded.root.parent.iterdir()] == ["demos"]
    assert {path.name for path in recorded.root.iterdir()} == {"data", "meta"}
    assert recorded.next_seed == 3_000_000 + 4 + recorded.discarded


def test_an_episode_ends_settle_seconds_after_success():
    env = gym.make(IDS[1], images=False).unwrapped
    frames = demonstrate(env, TabletopExpert(env), seed=0)
    env.reset(seed=0)
    done = [env.step(frame.action)[2] for frame in frames]
    assert done.index(True) == len(frames) - 1 - SETTLE_SECONDS * env.control_hz
    assert not frames[0].images


@pytest.mark.parametrize(
    ("env_id", "rate"),
    [("actionprior/Ur5ePlace-v0", 20), ("actionprior/DuoHandover-v0", 15)],
)
def test_datasets_have_the_robots_control_rate(tmp_path, env_id, rate):
    root = tmp_path / "demos"
    record_demonstrations(env_id, root, episodes_per_task=1, image_size=32, progress=False)
    info = json.loads((root / "meta/info.json").read_text())
    env = gym.make(env_id, images=False).unwrapped
    assert info["fps"] == rate
    assert info["robot_type"] == env.robot_name
    assert info["features"]["action"]["names"] == list(env.action_names)


def test_datasets_can_be_recorded_without_images(tmp_path):
    root = tmp_path / "blind"
    record_demonstrations(IDS[0], root, episodes_per_task=1, images=False, progress=False)
    info = json.loads((root / "meta/info.json").read_text())
    assert CAMERA_KEY not in info["features"]


def test_datasets_can_be_recorded_with_videos(tmp_path):
    root, scheduled = tmp_path / "video", os.sched_getscheduler(0)
    record_demonstrations(
        IDS[0], root, episodes_per_task=1, use_videos=True, image_size=64, progress=False
    )
    assert list(root.glob(f"videos/{CAMERA_KEY}/**/*.mp4"))
    # As root, the encoder could make the process real-time.
    assert os.sched_getscheduler(0) == scheduled


def test_pushes_are_not_recorded(tmp_path):
    from lerobot.datasets import LeRobotDataset

    root, options = tmp_path / "pushed", {"episodes_per_task": 3, "images": False}
    done = record_demonstrations(IDS[0], root, push=0.2, progress=False, **options)
    dataset = LeRobotDataset("actionprior/pushed", root=root)
    env = gym.make(IDS[0], images=False).unwrapped
    expert = TabletopExpert(env, push=0.2)
    observation, pushed = env.reset(seed=0)[0], 0
    expert.reset(0)
    for frame in range(int(dataset.meta.episodes[0]["length"])):
        chosen, recorded = expert(), dataset[frame]
        np.testing.assert_array_equal(recorded["action"], chosen)
        np.testing.assert_array_equal(recorded["observation.state"], observation["state"])
        pushed += not np.array_equal(chosen, expert.executed)
        observation = env.step(expert.executed)[0]
    assert pushed > 0
    assert done.frames == len(dataset)


def test_failed_episodes_are_replaced(tmp_path, monkeypatch):
    real = demonstrate

    def flaky(env, expert, seed):
        return None if seed == 0 else real(env, expert, seed)

    monkeypatch.setattr("actionprior.envs.recording.demonstrate", flaky)
    done = record_demonstrations(
        IDS[0], tmp_path / "a", episodes_per_task=1, images=False, progress=False
    )
    assert (done.episodes, done.discarded, done.next_seed) == (1, 1, 2)


def test_long_tasks_flaws_and_wordings_are_recorded(tmp_path):
    from lerobot.datasets import LeRobotDataset

    ids = ["actionprior/PandaStack-v0", "actionprior/PandaRecall-v0"]
    options = {"episodes_per_task": 2, "images": False, "progress": False}
    root = tmp_path / "human"
    done = record_demonstrations(ids, root, human=1.0, wordings="train", **options)
    dataset = LeRobotDataset("actionprior/human", root=root)
    assert len(dataset) == done.frames
    instructions = set(dataset.meta.tasks.index)
    words = {w for env_id in ids for w in gym.make(env_id).unwrapped.task.wordings}
    assert len(instructions) == 4
    assert all(any(text.startswith(w.split("{")[0]) for w in words) for text in instructions)
    plain = record_demonstrations(ids, tmp_path / "plain", **options)
    assert plain.frames != done.frames


@pytest.mark.slow
def test_a_killed_recording_leaves_no_incomplete_dataset(tmp_path):
    root = tmp_path / "demos"
    code = (
        "from actionprior.envs.recording import record_demonstrations\n"
        f"record_demonstrations({IDS!r}, {str(root)!r}, episodes_per_task=5000, images=False)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".demos.*/data/**/*.parquet")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not root.exists()
    assert list(tmp_path.glob(".demos.*"))
    record_demonstrations(IDS[0], root, episodes_per_task=1, images=False, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["demos"]


def test_a_failing_recording_keeps_the_old_dataset(tmp_path, monkeypatch):
    root = tmp_path / "demos"
    root.mkdir()
    (root / "old").touch()
    monkeypatch.setattr("actionprior.envs.recording.demonstrate", lambda *_: None)
    with pytest.raises(UserError, match="keeps failing"):
        record_demonstrations(
            IDS[0], root, episodes_per_task=1, images=False, overwrite=True, progress=False
        )
    assert [path.name for path in tmp_path.iterdir()] == ["demos"]
    assert (root / "old").exists()


@pytest.mark.parametrize(
    ("ids", "changes", "message"),
    [
        ([], {}, "env_ids is empty"),
        (IDS, {"episodes_per_task": 0}, "episodes_per_task is 0"),
        (IDS, {"seed": 900}, "seed is 900; it must be 0 to 899"),
        (["actionprior/PandaLift-v0", "actionprior/KukaLift-v0"], {}, "holds one robot"),
        (["CartPole-v1"], {}, "has no scripted expert"),
        (IDS, {"human": 2.0}, "human is 2.0; it must be 0"),
        (IDS, {"wordings": "all"}, "wordings 'all' is not known"),
    ],
)
def test_bad_arguments_raise_user_errors(tmp_path, ids, changes, message):
    options = {"episodes_per_task": 1, "progress": False, **changes}
    with pytest.raises(UserError, match=message):
        record_demonstrations(ids, tmp_path / "x", **options)
    assert not list(tmp_path.iterdir())


def test_an_existing_dataset_is_not_overwritten(recorded):
    with pytest.raises(UserError, match="exists already"):
        record_demonstrations(IDS, recorded.root, episodes_per_task=1)
