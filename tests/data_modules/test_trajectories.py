"""Stage 1 data: split, windows, mixture, and never a video."""

import shutil
from pathlib import Path

import jsonargparse
import pytest
import torch
import yaml

from actionprior.batch import TrajectoryBatch
from actionprior.data import DataError
from actionprior.training.settings import grouped_settings
from data_modules import LeRobotEmbodiment, LeRobotTrajectories
from data_modules.trajectories import RobotMixture
from tests.helpers.datasets import CAMERAS, arm, write_dataset


def module(*robots: LeRobotEmbodiment, **options) -> LeRobotTrajectories:
    settings = {"batch_size": 4, "chunk_length": 5, **options}
    groups = {"mixture": RobotMixture}
    data = LeRobotTrajectories(list(robots), **grouped_settings(settings, groups))
    data.setup("fit")
    return data


def frames(data: LeRobotTrajectories) -> list[int]:
    """All frames at which a window starts."""
    return [*data.frames.train.frames().tolist(), *data.frames.val.frames().tolist()]


def test_windows_are_padded_where_lerobot_pads(plain: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    steps = [i / 10 for i in range(5)]
    reference = LeRobotDataset(
        "plain", root=plain, delta_timestamps={"action": steps, "observation.state": steps}
    )
    data = module(arm(plain), val_fraction=0.0)
    batch = data.windows(training=True).__getitems__(list(range(len(reference))))
    robot = data.embodiments[0]
    for i in range(len(reference)):
        item = reference[i]
        assert torch.equal(batch.step_mask_BH[i], ~item["action_is_pad"])
        # Values agree also past the end: both repeat the last frame.
        action = robot.action_to_unified(item["action"].numpy())
        state = robot.state_to_unified(item["observation.state"].numpy())
        assert torch.equal(batch.action_BHA[i], torch.from_numpy(action))
        assert torch.equal(batch.state_BHS[i], torch.from_numpy(state))


def test_robots_of_different_rates_get_chunks_of_the_same_length_in_seconds(
    plain: Path, tmp_path: Path
) -> None:
    fast = write_dataset(tmp_path / "fast", (40, 31), fps=60)
    robots = [arm(plain, name="slow"), arm(fast, name="fast", control_hz=60)]
    data = module(*robots, chunk_seconds=0.25)
    assert [robot.control_hz for robot in data.embodiments] == [20, 20]
    slow, quick = data.frames.store.recordings
    assert slow.lengths_E.tolist() == [23, 13, 17]
    assert quick.lengths_E.tolist() == [14, 11]
    assert robots[0].control_hz == 10  # the user's own stays unchanged
    with pytest.raises(DataError, match="chunk_seconds is 0, expected above 0"):
        module(*robots, chunk_seconds=0)


def test_validation_takes_whole_episodes_of_every_robot(plain: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", (5, 6, 7, 8, 9, 10))
    robots = arm(plain, name="a"), arm(other, name="b")
    data = module(*robots, val_fraction=0.3)
    store, held_out = data.frames.store, data.frames.val
    assert sorted(frames(data)) == list(range(len(store)))
    starts = set(store.start_E.tolist())
    assert len(starts & set(data.frames.train.start_K.tolist()) | set(held_out.start_K)) == 9
    assert len(held_out.start_K) == 3  # one of 3, two of 6
    assert set(zip(held_out.start_K, held_out.stop_K, strict=True)) <= set(
        zip(store.start_E, store.stop_E, strict=True)
    )
    found = store.embodiment_of(torch.from_numpy(held_out.frames()))
    assert found.unique().tolist() == [0, 1]
    again = module(*robots, val_fraction=0.3)
    assert again.frames.val.frames().tolist() == held_out.frames().tolist()
    splits = {tuple(module(*robots, seed=s).frames.val.frames().tolist()) for s in range(5)}
    assert len(splits) > 1


def test_the_episodes_that_validate_can_be_named(plain: Path, tmp_path: Path) -> None:
    more = write_dataset(tmp_path / "more", (6, 5), seed=1)
    robots = arm(plain, more, name="a"), arm(write_dataset(tmp_path / "b", (4, 4)), name="b")
    data = module(*robots, val_episodes={"a": [1, 4]}, val_fraction=0.5)
    store = data.frames.store
    spans = list(
        zip(data.frames.val.start_K.tolist(), data.frames.val.stop_K.tolist(), strict=True)
    )
    assert spans[:2] == [(12, 19), (34, 39)]  # episode 1 of the first, 1 of the second dataset
    assert len(spans) == 3  # one of b's two, by share
    assert sorted(frames(data)) == list(range(len(store)))
    # So many episodes train, whatever validates.
    few = module(robots[0], val_episodes={"a": [0, 4]}, max_episodes=1)
    assert few.frames.train.frames().tolist() == [*range(12, 19), *range(28, 34)]
    with pytest.raises(DataError, match=r"names episode 5 of 'a', which has 5 \(0 to 4\)"):
        module(robots[0], val_episodes={"a": [5]})
    with pytest.raises(DataError, match="val_episodes names 'c', which is not one of"):
        module(robots[0], val_episodes={"c": [0]})


def test_episodes_can_be_limited_by_robot(plain: Path, tmp_path: Path) -> None:
    robots = arm(plain, name="a"), arm(write_dataset(tmp_path / "b", (4, 4)), name="b")
    data = module(*robots, max_episodes={"a": 1}, val_fraction=0.0)
    assert frames(data) == [*range(12), *range(28, 36)]
    with pytest.raises(DataError, match="max_episodes names 'c', which is not one of"):
        module(*robots, max_episodes={"c": 1})


def test_a_single_episode_is_cut_in_time_and_windows_do_not_cross(tmp_path: Path) -> None:
    data = module(arm(write_dataset(tmp_path / "one", (20,))), val_fraction=0.25)
    assert data.frames.train.frames().tolist() == list(range(15))
    assert data.frames.val.frames().tolist() == list(range(15, 20))
    store = data.frames.store
    last = store.future(torch.tensor([14]), 5)
    assert last.step_mask_BH.tolist() == [[True, False, False, False, False]]
    assert not store.history(torch.tensor([15]), 5).step_mask_BH.any()


def test_a_single_short_episode_keeps_a_frame_to_train_on(tmp_path: Path) -> None:
    data = module(arm(write_dataset(tmp_path / "short", (2,))), val_fraction=0.8)
    assert data.frames.train.frames().tolist() == [0]
    assert data.frames.val.frames().tolist() == [1]


def test_several_datasets_of_a_robot_are_pooled(plain: Path, tmp_path: Path) -> None:
    more = write_dataset(tmp_path / "more", (6, 6), seed=1)
    data = module(arm(plain, more), val_fraction=0.0)
    assert len(data.frames.store) == 28 + 12
    assert len(data.embodiments) == 1


def test_the_first_episodes_can_be_taken(plain: Path) -> None:
    assert len(frames(module(arm(plain), max_episodes=2))) == 12 + 7
    # Tasks alternate: the first of each task are episodes 0 and 1.
    assert len(frames(module(arm(plain), max_episodes_per_task=1))) == 12 + 7


def test_videos_and_images_are_never_opened(seen: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(seen, tmp_path / "blind"))
    shutil.rmtree(root / "videos")
    data = module(arm(root, cameras=CAMERAS))
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch, TrajectoryBatch)
    assert batch.action_BHA.shape == (4, 5, 37)
    assert batch.state_BHS.shape == (4, 5, 74)


def test_idle_windows_are_left_out_of_training_only(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "idle", (20, 20, 20, 20), still=(0, 1, 2))
    kept = module(arm(root), skip_idle=True, val_fraction=0.25)
    every = module(arm(root), val_fraction=0.25)
    assert kept.frames.val.frames().tolist() == every.frames.val.frames().tolist()
    moving = {f for f in every.frames.train.frames().tolist() if f >= 60}
    # A window at an episode's last frame has one step and cannot move.
    assert set(kept.frames.train.frames().tolist()) == moving - {79}
    still = write_dataset(tmp_path / "still", (9, 9), still=(0, 1))
    with pytest.raises(DataError, match="'arm' never moves"):
        module(arm(still), skip_idle=True)


def test_weights_share_the_epoch(plain: Path, tmp_path: Path) -> None:
    small = write_dataset(tmp_path / "small", (4,))
    robots = arm(plain, name="a"), arm(small, name="b")
    data = module(*robots, val_fraction=0.0, weights={"a": 0.5, "b": 0.5})
    robot = torch.cat([batch.embodiment_B for batch in data.train_dataloader()])
    assert torch.bincount(robot).tolist() == [16, 16]
    with pytest.raises(DataError, match=r"weights is \{'a': 1\.0\}, expected .* \['a', 'b'\]"):
        LeRobotTrajectories(list(robots), mixture=RobotMixture(weights={"a": 1.0}))


def test_temperature_levels_and_caps_cut(plain: Path, tmp_path: Path) -> None:
    small = write_dataset(tmp_path / "small", (7,))
    robots = arm(plain, name="a"), arm(small, name="b")

    def share(**options) -> list[int]:
        data = module(*robots, val_fraction=0.0, batch_size=1, **options)
        robot = torch.cat([batch.embodiment_B for batch in data.train_dataloader()])
        return torch.bincount(robot).tolist()

    assert share() == [28, 7]
    assert share(temperature=2.0) == [23, 12]  # as the roots of 28 and 7: 2 to 1
    assert share(caps={"a": 10}) == [10, 7]


def test_a_robot_held_out_is_validated_and_not_trained_on(plain: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", (6, 6), seed=3)
    robots = arm(plain, name="a"), arm(other, name="b")
    data = module(*robots, held_out=["b"], val_fraction=0.3)
    trained = torch.cat([batch.embodiment_B for batch in data.train_dataloader()])
    validated = torch.cat([batch.embodiment_B for batch in data.val_dataloader()])
    assert trained.unique().tolist() == [0]
    assert torch.bincount(validated).tolist()[1] == 12
    # Its errors are reported in its own units, which needs statistics.
    assert data.statistics_sample(40).embodiment_B.unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": ["x"]}, r"held_out names 'x', which is not one of \['a'\]"),
        ({"held_out": ["a"]}, "no robot left to train on"),
        ({"caps": {"x": 3}}, "caps names 'x'"),
        ({"caps": {"a": 0}}, "expected at least 1 window"),
        ({"temperature": 0.0}, "temperature is 0.0, expected above 0"),
        ({"temperature": 2.0, "weights": {"a": 1.0}}, "and 1 if weights"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(
    options: dict[str, object], message: str, plain: Path
) -> None:
    with pytest.raises(DataError, match=message):
        module(arm(plain, name="a"), **options)


@pytest.mark.parametrize("control", ["shuffle_time", "noise"])
def test_a_control_prior_trains_on_its_own_chunks_and_validates_on_true_ones(
    plain: Path, control: str
) -> None:
    data = module(arm(plain), val_fraction=0.0, **{control: True})
    true = data.frames.store.future(torch.arange(12), 5)
    shuffled = data.windows(training=True).__getitems__(list(range(12)))
    held_out = data.windows(training=False).__getitems__(list(range(12)))
    assert torch.equal(held_out.action_BHA, true.action_BHA)
    assert not torch.equal(shuffled.action_BHA, true.action_BHA)
    # Statistics are those of what is trained on.
    sample = data.statistics_sample()
    assert torch.equal(sample.action_BHA[:12], shuffled.action_BHA)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embodiments": []}, "embodiments is empty"),
        ({"embodiments": [arm(name="x")]}, "'x' names no dataset"),
        ({"embodiments": [arm(Path("a")), arm(Path("b"))]}, "name 'arm' is used twice"),
        ({"embodiments": [arm(Path("a"))], "val_fraction": 1.0}, r"val_fraction is 1\.0"),
    ],
)
def test_bad_arguments_are_refused_before_reading(options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        LeRobotTrajectories(**options)


def test_recipes_describe_robots_as_plain_yaml(plain: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "data.yaml"
    robot = {
        "name": "arm",
        "control_hz": 10,
        "action": [
            {"name": "arm", "slot": "joints", "features": ["j1", "j2"], "relative_to": "joints"},
            {"name": "grip", "slot": "joints", "features": ["grip"], "offset": 7,
             "representation": "gripper"},
        ],
        "state": [{"name": "joints", "slot": "joints", "features": ["j1", "j2"]}],
        "ignored": ["grip"],
        "roots": [str(plain)],
    }  # fmt: skip
    arguments = {"class_path": "data_modules.LeRobotTrajectories",
                 "init_args": {"embodiments": [robot], "chunk_length": 5}}  # fmt: skip
    recipe.write_text(yaml.safe_dump({"data": arguments}))
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_argument("--data", type=LeRobotTrajectories)
    parsed = parser.parse_args([f"--config={recipe}", "--data.init_args.batch_size=3"])
    data = parser.instantiate(parsed).data
    assert isinstance(data.embodiments[0], LeRobotEmbodiment)
    assert data.embodiments[0].to_dict()["action"][0]["relative_to"] == "joints"
    data.setup("fit")
    assert next(iter(data.train_dataloader())).state_BHS.shape == (3, 5, 74)


def test_robots_of_a_recipe_are_chosen(plain: Path, tmp_path: Path) -> None:
    """What the recipe says of the others, by name, then says nothing."""
    small = write_dataset(tmp_path / "small", (4, 6))
    robots = arm(plain, name="a"), arm(small, name="b"), arm(tmp_path / "absent", name="c")
    chosen = module(
        *robots,
        robots=["b"],
        val_episodes={"a": [0], "b": [1]},
        max_episodes={"a": 1, "b": 2},
        weights={"a": 0.5, "b": 0.3, "c": 0.2},
        caps={"a": 5, "b": 3},
        held_out=["c"],
    )
    assert [robot.name for robot in chosen.embodiments] == ["b"]
    assert len(chosen.frames.train) == 4
    assert len(chosen.frames.val) == 6
    assert list(chosen.split_record()) == ["b"]
    assert chosen.mixture([4]) == [3]
    both = LeRobotTrajectories(list(robots), robots=["b", "a"])
    assert [robot.name for robot in both.embodiments] == ["a", "b"]  # the recipe's order
    for names, found in ((["d"], "names 'd'"), ([], "is empty")):
        with pytest.raises(DataError, match=rf"data\.robots {found}; expected some of \['a', 'b'"):
            LeRobotTrajectories(list(robots), robots=names)
    with pytest.raises(DataError, match="caps names 'd'"):
        module(*robots, robots=["b"], caps={"d": 5})


def test_the_idle_threshold_may_be_a_number(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "idle", (20, 20, 20, 20), still=(0, 1, 2))
    counts = [
        len(module(arm(root), skip_idle=value, val_fraction=0.25).frames.train)
        for value in (False, 1e-6, True, 0.02, 0.6)
    ]
    assert counts[0] > counts[1] >= counts[2] == counts[3] > counts[4]
    with pytest.raises(DataError, match="skip_idle is -1"):
        module(arm(root), skip_idle=-1.0)
