"""Test that what a checkpoint held out stays held out, in datasets that have changed since."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from actionprior.checkpoints.split import recorded_split
from actionprior.cli import main
from data_modules import LeRobotTrajectories
from data_modules.lerobot.columns import LeRobotEmbodiment
from tests.helpers.datasets import arm, write_dataset

LENGTHS = (12, 7, 9, 11, 8, 10, 6, 13, 9, 10)
MORE = (*LENGTHS, 7, 12, 8, 9)


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "ten" / "mine", LENGTHS)


@pytest.fixture(scope="module")
def fourteen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same ten episodes and four more."""
    return write_dataset(tmp_path_factory.mktemp("data") / "fourteen" / "mine", MORE)


def module(*robots: LeRobotEmbodiment, record: Any = None, **options: Any) -> LeRobotTrajectories:
    data = LeRobotTrajectories(
        list(robots), **{"batch_size": 4, "chunk_length": 5, "val_fraction": 0.2, **options}
    )
    if record is not None:
        data.follow_split(record, "before.ckpt")
    data.setup("fit")
    return data


def held_out(data: LeRobotTrajectories, robot: str = "arm") -> dict[int, float]:
    """Share that trained of each episode that is not trained on wholly, by number."""
    record = data.split_record()[robot]
    columns = (record["number"], record["trained"], record["absent"])
    return {
        number: share for number, share, absent in zip(*columns, strict=True) if share < 1 > absent
    }


def edit(root: Path, change: Any, at: Path) -> Path:
    """Copy a dataset and change its data, frame by frame."""
    shutil.copytree(root, at)
    path = next((at / "data").glob("*/*.parquet"))
    table = pq.read_table(path)
    frames = table.to_pylist()
    for frame in frames:
        change(frame)
    pq.write_table(pa.Table.from_pylist(frames, table.schema), path)
    return at


def test_the_split_of_a_run_is_that_of_its_checkpoint(ten: Path) -> None:
    first = module(arm(ten))
    assert len(held_out(first)) == 2
    again = module(arm(ten), record=first.split_record(), seed=5)
    assert held_out(again) == held_out(first)
    assert held_out(module(arm(ten), seed=5)) != held_out(first)


def test_a_dataset_may_grow(ten: Path, fourteen: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = module(arm(ten))
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        grown = module(arm(fourteen), record=first.split_record())
    assert held_out(first).items() <= held_out(grown).items()
    assert len(held_out(grown)) == 3  # a fifth of 14
    assert set(held_out(grown)) - set(held_out(first)) <= {10, 11, 12, 13}
    (line,) = caplog.messages
    assert "arm: the data have changed since before.ckpt: 4 episodes are new (1 of them" in line
    assert "0 have changed and 0 are gone" in line


def test_episodes_are_known_by_their_content(ten: Path, fourteen: Path, tmp_path: Path) -> None:
    """Renumbered: the first three episodes are deleted, and the folder has another name."""
    first = module(arm(fourteen), seed=2)
    rest = tmp_path / "cleaned"
    shutil.copytree(fourteen, rest)
    path = next((rest / "data").glob("*/*.parquet"))
    table = pq.read_table(path)
    gone = sum(MORE[:3])
    kept = table.slice(gone)
    for name, shift in (("episode_index", 3), ("index", gone)):
        place = kept.schema.get_field_index(name)
        kept = kept.set_column(place, name, pa.array(kept[name].to_numpy() - shift))
    pq.write_table(kept, path)
    episodes = next((rest / "meta/episodes").glob("*/*.parquet"))
    rows = pq.read_table(episodes).slice(3)
    place = rows.schema.get_field_index("episode_index")
    rows = rows.set_column(place, "episode_index", pa.array(np.arange(11)))
    pq.write_table(rows, episodes)
    info = rest / "meta/info.json"
    info.write_text(
        info.read_text()
        .replace('"total_episodes": 14', '"total_episodes": 11')
        .replace(f'"total_frames": {sum(MORE)}', f'"total_frames": {sum(MORE) - gone}')
    )
    again = module(arm(rest), record=first.split_record())
    expected = {n - 3 for n in held_out(first) if n >= 3}
    assert expected
    assert set(held_out(again)) == expected


def test_an_edited_episode_keeps_its_side(
    ten: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = module(arm(ten))
    chosen = next(iter(held_out(first)))

    def clip(frame: dict[str, Any]) -> None:
        if frame["episode_index"] == chosen:
            frame["action"] = [min(v, 0.0) - 1 for v in frame["action"]]

    edited = edit(ten, clip, tmp_path / "edited" / "mine")
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        again = module(arm(edited), record=first.split_record(), seed=3)
    assert held_out(again) == held_out(first)
    assert "0 episodes are new (0 of them validate), 1 have changed" in caplog.messages[0]


def test_a_part_of_the_episodes_is_split_as_before(ten: Path) -> None:
    first = module(arm(ten))
    few = module(arm(ten), record=first.split_record(), max_episodes=max(held_out(first)) + 1)
    assert held_out(few) == held_out(first)


def test_a_single_episode_stays_cut_where_it_was(ten: Path, tmp_path: Path) -> None:
    one = write_dataset(tmp_path / "one" / "mine", LENGTHS[:1])
    first = module(arm(one), val_fraction=0.25)
    assert held_out(first) == {0: pytest.approx(0.75)}
    grown = module(arm(ten), record=first.split_record(), val_fraction=0.1)
    assert held_out(grown) == held_out(first)
    assert grown.frames.train.frames()[:10].tolist() == [*range(9), 12]


def test_another_dataset_is_split_on_its_own(ten: Path, tmp_path: Path) -> None:
    first = module(arm(ten))
    other = write_dataset(tmp_path / "other", LENGTHS, seed=7)
    assert held_out(module(arm(other), record=first.split_record())) == held_out(module(arm(other)))


def test_named_episodes_that_were_held_out_are_warned_of(ten: Path) -> None:
    first = module(arm(ten))
    numbers = sorted(set(range(10)) - set(held_out(first)))[:1]
    warning = r"episodes \[.*\] train here, but before.ckpt held them"
    with pytest.warns(UserWarning, match=warning):
        named = module(arm(ten), record=first.split_record(), val_episodes={"arm": numbers})
    assert set(held_out(named)) == set(numbers)
    with pytest.warns(UserWarning, match=warning):
        every = module(arm(ten), record=first.split_record(), val_fraction=0)
    assert held_out(every) == {}


def test_other_robots_do_not_change_a_robots_split(ten: Path, tmp_path: Path) -> None:
    first = module(arm(ten))
    other = write_dataset(tmp_path / "other", LENGTHS, seed=7)
    both = module(arm(other, name="new"), arm(ten), record=first.split_record())
    assert held_out(both) == held_out(first)
    assert len(held_out(both, "new")) == 2


def test_what_an_earlier_run_held_out_is_remembered_through_runs_on_other_data(
    ten: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if the other data have a folder and episodes of the same names."""
    first = module(arm(ten))
    for other, name in ((write_dataset(tmp_path / "mine", LENGTHS, seed=7), "arm"), (ten, "new")):
        between = module(arm(other, name=name), record=first.split_record(), seed=3)
        caplog.clear()
        with caplog.at_level("INFO", logger="lightning.pytorch"):
            again = module(arm(other, name=name), record=between.split_record(), seed=4)
        assert not caplog.messages  # nothing has changed since
        assert again.split_record() == between.split_record()
        last = module(arm(ten), record=again.split_record(), seed=5)
        assert held_out(last) == held_out(first)
        assert not set(last.frames.train.frames()) & set(first.frames.val.frames())


def test_records_of_earlier_versions_have_no_absent_episodes(ten: Path) -> None:
    first = module(arm(ten))
    record = {"arm": {k: v for k, v in first.split_record()["arm"].items() if k != "absent"}}
    assert held_out(module(arm(ten), record=record, seed=5)) == held_out(first)


def recipe(root: Path, folder: Path, steps: int) -> list[str]:
    robot = vars(arm(root)) | {"action": [vars(g) for g in arm().action]}
    robot["state"] = [vars(g) for g in arm().state]
    settings = {
        "model": {
            "class_path": "actionprior.MotionPriorModule",
            "init_args": {"architecture": {"width": 32, "latent_width": 16}},
        },
        "data": {
            "class_path": "data_modules.LeRobotTrajectories",
            "init_args": {"embodiments": [robot], "batch_size": 4, "val_fraction": 0.2},
        },
        "trainer": {
            "max_steps": steps,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "default_root_dir": str(folder / f"run{steps}"),
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return ["fit", f"--config={folder / 'recipe.yaml'}"]


def test_a_checkpoint_that_is_loaded_after_setup_is_followed_too(ten: Path) -> None:
    first = module(arm(ten), seed=5)
    data = module(arm(ten))
    before = data.frames
    data.follow_split(first.split_record(), "before.ckpt")
    assert held_out(data) == held_out(first)
    assert data.frames.val.frames().tolist() == first.frames.val.frames().tolist()
    assert data.frames is not before


@pytest.mark.slow
def test_a_resumed_run_on_more_episodes_trains_on_none_that_were_held_out(
    ten: Path, fourteen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    main(recipe(ten, tmp_path, 2))
    (checkpoint,) = (tmp_path / "run2").rglob("*.ckpt")
    before = recorded_split(checkpoint)["arm"]
    assert len(before["number"]) == 10
    main([*recipe(fourteen, tmp_path, 4), f"--ckpt_path={checkpoint}"])
    (resumed,) = (tmp_path / "run4").rglob("*.ckpt")
    after = recorded_split(resumed)["arm"]
    assert after["trained"][:10] == before["trained"]
    assert len(after["trained"]) == 14


@pytest.mark.slow
def test_a_continued_prior_and_its_resume_train_on_none_that_were_held_out(
    ten: Path, fourteen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    main(recipe(ten, tmp_path, 2))
    (checkpoint,) = (tmp_path / "run2").rglob("*.ckpt")
    before = recorded_split(checkpoint)["arm"]
    start = f"--model.prior_checkpoint={checkpoint}"
    main([*recipe(fourteen, tmp_path, 3), start, "--data.seed=5"])
    (continued,) = (tmp_path / "run3").rglob("*.ckpt")
    after = recorded_split(continued)["arm"]
    assert after["trained"][:10] == before["trained"]
    assert len(after["trained"]) == 14
    checkpoint.unlink()  # a run resumes without the prior that it started from
    main([*recipe(fourteen, tmp_path, 4), start, "--data.seed=6", f"--ckpt_path={continued}"])
    (resumed,) = (tmp_path / "run4").rglob("*.ckpt")
    assert recorded_split(resumed)["arm"] == after
