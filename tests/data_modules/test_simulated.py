"""The suite's demonstrations: recorded when missing, described as the environments are."""

from pathlib import Path

import pytest
import torch

from actionprior.data import DataError
from actionprior.embodiment import Embodiment
from actionprior.envs.embodiments import suite_embodiment
from actionprior.envs.recording import VERSION
from data_modules import SimulatedSuite, SimulatedTrajectories, SimulatedVLA
from data_modules.vla import ImageSettings

pytest.importorskip("pybullet")


@pytest.mark.parametrize(
    ("robot", "mode", "slots"),
    [
        ("panda", None, range(29, 37)),
        ("kuka", None, range(29, 37)),
        ("xarm6", None, range(7, 14)),
        ("xarm6", "joint_delta", [*range(29, 35), 36]),
        ("panda", "ee_delta", range(7, 14)),
        ("ur5e", None, [*range(29, 35), 36]),
        ("duo", None, range(14)),
        ("duo", "joint_position", range(14)),
        ("duo", "ee_delta", range(14)),
    ],
)
def test_embodiments_fit_the_unified_spaces(robot: str, mode, slots) -> None:
    import gymnasium

    from actionprior.envs import ENV_IDS

    body = suite_embodiment(robot, mode)
    assert body.action_mask().nonzero()[0].tolist() == list(slots)
    specs = [gymnasium.spec(env_id) for env_id in ENV_IDS]
    env_id = next(spec.id for spec in specs if spec.kwargs["robot"] == robot)
    env = gymnasium.make(env_id, control_mode=mode, images=False)
    assert tuple(body.action_features) == env.unwrapped.action_names
    assert tuple(body.state_features) == env.unwrapped.state_names
    assert body.control_hz == env.unwrapped.control_hz
    env.close()


def test_commands_are_learnt_as_what_they_are() -> None:
    assert suite_embodiment("kuka").action[0].relative_to == "joints"
    assert suite_embodiment("panda").delta_mask().sum() == 7
    assert suite_embodiment("xarm6").delta_mask().sum() == 6
    assert suite_embodiment("duo").delta_mask().sum() == 12
    targets = [g.relative_to for g in suite_embodiment("duo", "joint_position").action]
    assert targets == ["left_joints", "", "right_joints", ""]
    assert {g.unit for g in suite_embodiment("ur5e").state} == {"m", "rad"}
    assert suite_embodiment("panda", "ee_delta").name == "panda_ee_delta"


def test_robots_of_all_rates_grippers_and_arms_learn_together(tmp_path: Path) -> None:
    data = SimulatedTrajectories(
        ["panda", "ur5e", "duo"], ["reach"], robot_tasks={"duo": ["handover"]},
        episodes_per_task=2, data_dir=str(tmp_path), batch_size=4, val_fraction=0.5,
    )  # fmt: skip
    assert [robot.control_hz for robot in data.embodiments] == [10, 20, 15]
    data.prepare_data()
    data.setup("fit")
    assert data.statistics_sample(60).embodiment_B.unique().tolist() == [0, 1, 2]


def test_a_task_that_the_robot_lacks_is_rejected() -> None:
    with pytest.raises(DataError, match=r"no task 'reach' for robot 'duo'; it has \['handover'\]"):
        SimulatedVLA("duo", ["reach"])
    with pytest.raises(DataError, match="robot_tasks names 'duo', which is not among"):
        SimulatedTrajectories(["panda"], robot_tasks={"duo": ["handover"]})


def test_missing_sets_are_recorded_once_without_images(tmp_path: Path) -> None:
    def make() -> SimulatedTrajectories:
        return SimulatedTrajectories(
            ["panda", "xarm6"], ["reach"], episodes_per_task=3, data_dir=str(tmp_path),
            batch_size=4, val_fraction=0.3,
        )  # fmt: skip

    data = make()
    assert [type(e).__mro__[1] for e in data.embodiments] == [Embodiment] * 2
    assert not list(tmp_path.iterdir())
    data.prepare_data()
    data.setup("fit")
    assert data.statistics_sample(40).embodiment_B.unique().tolist() == [0, 1]
    made = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert sorted(p.name for p in made) == [
        f"panda-joint_delta-reach-3x-seed0-blind-v{VERSION}",
        f"xarm6-ee_delta-reach-3x-seed0-blind-v{VERSION}",
    ]
    make().prepare_data()
    assert made == {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}


def test_stage_two_takes_the_first_demonstrations_of_each_task(tmp_path: Path) -> None:
    data = SimulatedVLA(
        "panda", ["reach", "lift"], episodes_per_task=2, demonstrations=1, render_size=32,
        data_dir=str(tmp_path), images=ImageSettings(cache_dir=str(tmp_path / "cache")),
        batch_size=4, val_fraction=0,
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    assert len(data.frames.train) == sum(data.frames.store.recordings[0].lengths_E[:2])
    batch = next(iter(data.train_dataloader()))
    assert batch.observation.images_BCKYX.shape == (4, 1, 3, 32, 32)
    assert batch.observation.images_BCKYX.float().std() > 10
    verbs = {t.split()[0] for batch in data.train_dataloader() for t in batch.observation.task}
    assert len(verbs) == 2
    assert torch.isfinite(batch.future.action_BHA).all()


def test_long_tasks_flaws_wordings_and_pushes_name_their_own_sets() -> None:
    def names(data: SimulatedTrajectories | SimulatedVLA | SimulatedSuite) -> list[str]:
        return [s.root.name for s in data.sets]

    plain = SimulatedTrajectories(["kuka"], ["once_each"])
    assert names(plain) == [f"kuka-joint_position-once_each-200x-seed0-blind-v{VERSION}"]
    flawed = SimulatedTrajectories(["kuka"], ["once_each"], human=0.5)
    assert names(flawed) == [f"kuka-joint_position-once_each-200x-seed0-blind-human0.5-v{VERSION}"]
    worded = SimulatedVLA("panda", ["stack", "sort"], human=1.0, wordings="train")
    assert names(worded) == [
        f"panda-joint_delta-stack+sort-100x-seed1-64px-human1-train-v{VERSION}"
    ]
    assert SimulatedVLA("panda").sets[0].root.name == (
        f"panda-joint_delta-reach+push+lift+place-100x-seed1-64px-v{VERSION}"
    )
    pushed = SimulatedTrajectories(["kuka"], ["reach"], push=0.1)
    assert names(pushed) == [f"kuka-joint_position-reach-200x-seed0-blind-push0.1-v{VERSION}"]
    seen = SimulatedVLA("panda", ["reach"], push=0.1)
    assert names(seen) == [f"panda-joint_delta-reach-100x-seed1-64px-push0.1-v{VERSION}"]
    suite = SimulatedSuite({"ur5e": ["reach"]}, push=0.1)
    assert all("-push0.1-" in name for name in names(suite))


def test_wrong_names_are_rejected() -> None:
    with pytest.raises(DataError, match="push is 1"):
        SimulatedTrajectories(["panda"], push=1)
    with pytest.raises(DataError, match="human is 3"):
        SimulatedTrajectories(["panda"], human=3)
    with pytest.raises(DataError, match="wordings 'some' is not known"):
        SimulatedVLA("panda", wordings="some")
    with pytest.raises(DataError, match="robot 'ur5' is not known"):
        SimulatedTrajectories(["ur5"])
    with pytest.raises(DataError, match=r"no task 'fold' for robot 'panda'; it has \['reach'"):
        SimulatedTrajectories(["panda"], ["fold"])
    with pytest.raises(DataError, match="control_modes names 'kuka'"):
        SimulatedTrajectories(["panda"], control_modes={"kuka": "ee_delta"})
    with pytest.raises(DataError, match="demonstrations is 9, expected 1 to 5"):
        SimulatedVLA("panda", episodes_per_task=5, demonstrations=9)


def test_robots_of_the_suite_act_together_and_one_may_be_scarce(tmp_path: Path) -> None:
    data = SimulatedSuite(
        {"panda": ["reach"], "duo": ["handover"], "xarm6": ["reach", "lift"]},
        episodes_per_task=3, scarce={"xarm6": 0.67}, data_dir=str(tmp_path),
        images=ImageSettings(cache_dir=str(tmp_path / "images")), batch_size=4, val_fraction=0.0,
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    store, train = data.frames.store, data.frames.train
    found = [
        len(train.clip(r.start, r.stop).start_K) for i in range(3) for r in store.of_embodiment(i)
    ]
    assert found == [3, 3, 4]
    windows = data.windows(training=True)
    for index, robot in enumerate(data.embodiments):
        (frames,) = store.of_embodiment(index)
        batch = windows.__getitems__([frames.start])
        assert batch.observation.embodiment_B.tolist() == [index]
        assert batch.observation.images_BCKYX.float().std() > 10
        assert robot.name in ("panda", "duo", "xarm6")
    with pytest.raises(DataError, match="scarce names 'kuka', which is not among"):
        SimulatedSuite({"panda": ["reach"]}, scarce={"kuka": 1})
    for share in (0, 2):
        with pytest.raises(DataError, match=f"scarce.panda is {share}, expected a share above 0"):
            SimulatedSuite({"panda": ["reach"]}, scarce={"panda": share})
    for count in (0, 9):
        with pytest.raises(DataError, match=rf"demonstrations is {count}, expected 1 to 3"):
            SimulatedSuite({"panda": ["reach"]}, episodes_per_task=3, demonstrations=count)


def test_the_suite_is_thirteen_tasks_that_exist() -> None:
    from actionprior.envs import SUITE, env_id

    assert len({env_id(robot, task) for robot, tasks in SUITE.items() for task in tasks}) == 13
    assert [e.name for e in SimulatedSuite().embodiments] == list(SUITE)
