"""Test the converter and the recipe, on the recordings themselves if this machine has them."""

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import jsonargparse
import numpy as np
import pytest
import torch
import yaml

from actionprior.data import DataError
from data_modules import LeRobotTrajectories
from tests.helpers.recordings import RECORDINGS

REPOSITORY = Path(__file__).parents[2]
SOURCE = RECORDINGS
EXAMPLE = REPOSITORY / "examples" / "real_recordings"
NAMES = {
    "g1_inspire": 2,
    "so101_bimanual_cloth": 2,
    "piper_smolvla": 2,
    "so101_record_test": 2,
    "rebot_b601": 1,
    "tiago_excitation": 1,
}

real = pytest.mark.skipif(
    not SOURCE.is_dir(), reason=f"no real recordings in {SOURCE}; set ACTIONPRIOR_RECORDINGS"
)


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import convert  # ty: ignore

    return convert


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        import convert

        out = tmp_path_factory.mktemp("real") / "real"
        convert.main([f"--source={SOURCE}", f"--out={out}", "--max-episodes=2"])
    return out


def recipe(folder: Path) -> LeRobotTrajectories:
    text = (REPOSITORY / "recipes" / "real" / "pretrain.yaml").read_text()
    data = yaml.safe_load(text.replace("outputs/real", str(folder)))["data"]
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--data", type=LeRobotTrajectories)
    return parser.instantiate(parser.parse_object({"data": data})).data


@real
def test_each_recording_becomes_a_dataset_that_lerobot_opens(converted: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    assert sorted(p.name for p in converted.iterdir()) == sorted([*NAMES, "g1_inspire_published"])
    assert (converted / "g1_inspire_published").samefile(SOURCE / "g1_inspire")
    for name, episodes in NAMES.items():
        dataset = LeRobotDataset(name, root=converted / name)
        assert dataset.num_episodes == episodes
        assert name in (converted / name / "CONVERSION.txt").read_text()


@real
def test_flaws_are_reported(converted: Path) -> None:
    def report(name: str) -> str:
        return (converted / name / "CONVERSION.txt").read_text()

    assert "files of episodes [0, 3, 6, 9, 47, 58, 61] are missing" in report("g1_inspire")
    assert "info says 20 Hz; timestamps say 18.3" in report("so101_bimanual_cloth")
    assert "['episode_000026']" in report("so101_bimanual_cloth")
    assert "claims 105 episodes and 27623 frames, the data hold 19 and 4958" in report(
        "piper_smolvla"
    )
    assert "['joint_4.pos']" in report("piper_smolvla")
    assert "degrees: converted to rad" in report("rebot_b601")


@real
def test_values_are_what_was_recorded_in_the_units_promised(converted: Path) -> None:
    import pyarrow.parquet as pq

    def columns(path: Path, key: str) -> np.ndarray:
        return np.stack(pq.read_table(path)[key].to_numpy())

    def of(name: str, key: str) -> np.ndarray:
        return columns(next((converted / name / "data").glob("*/*.parquet")), key)

    tail = "data/chunk-000/file-000.parquet"
    degrees = columns(SOURCE / "rebot_b601" / "data" / tail, "action")
    np.testing.assert_allclose(of("rebot_b601", "action"), np.deg2rad(degrees), atol=1e-5)
    piper = columns(SOURCE / "piper_smolvla" / "data" / tail, "action")
    np.testing.assert_array_equal(of("piper_smolvla", "action"), piper[: 268 + 224])
    g1 = columns(SOURCE / "g1_inspire/data/chunk-000/episode_000000.parquet", "observation.state")
    np.testing.assert_array_equal(of("g1_inspire", "observation.state")[: len(g1)], g1)

    raw = SOURCE / "so101_bimanual_cloth/dataset/data/chunk-000/episode_000000.parquet"
    ticks, times = columns(raw, "observation.state"), pq.read_table(raw)["timestamp"].to_numpy()
    state, action = of("so101_bimanual_cloth", "observation.state"), None
    length = int(times[-1] * 20) + 1
    for k in (0, 7, length - 1):  # by hand: between which two samples, how far
        i = min(int(np.searchsorted(times, k / 20, side="right")), len(times) - 1)
        share = (k / 20 - times[i - 1]) / (times[i] - times[i - 1])
        expected = ((1 - share) * ticks[i - 1] + share * ticks[i] - 2048) * 2 * np.pi / 4096
        np.testing.assert_allclose(state[k], expected, atol=1e-4)
    action = of("so101_bimanual_cloth", "action")[:length]
    np.testing.assert_array_equal(action[:-1], state[1:length])
    np.testing.assert_array_equal(action[-1], state[length - 1])


@real
def test_the_recipe_reads_all_robots_jointly(converted: Path) -> None:
    data = recipe(converted)
    data.setup("fit")
    sample = data.statistics_sample(120)
    assert torch.bincount(sample.embodiment_B).tolist() == [20] * 6
    held_out = data.frames.store.embodiment_of(torch.from_numpy(data.frames.val.frames()))
    assert held_out.unique().tolist() == list(range(6))
    assert next(iter(data.train_dataloader())).action_BHA.shape == (96, 15, 37)


@real
@pytest.mark.slow
def test_the_doctor_finds_the_flaws_of_raw_recordings(tmp_path: Path) -> None:
    from actionprior.commands.doctor import doctor

    data = recipe(SOURCE)
    roots = {
        "so101_bimanual": "so101_bimanual_cloth/dataset",
        "piper": "piper_smolvla/data",
        "rebot_b601": "rebot_b601/data",
    }
    for robot in data.robots:
        folder = SOURCE / roots.get(robot.name, robot.roots[0].split("/")[-1])
        robot.roots = [str(folder)]
    data.robots = data.robots[:-1]  # TIAGo's is an npz
    found = {(f.robot, f.check, f.feature): f for f in doctor(data, tmp_path)}
    lacking = found["g1_inspire", "absent_video", "observation.images.cam_high"].message
    assert "7 of 100 episodes is missing (0, 3, 6, 9, 47, 58, 61)" in lacking
    assert "has no column 'task_index'" in found["so101_bimanual", "refused", ""].message
    assert "claims 105 episodes" in found["piper", "refused", ""].message
    degrees = found["rebot_b601", "unit", "action shoulder_lift.pos"]
    assert (degrees.level, degrees.episode, degrees.frame) == ("error", 0, 284)
    assert "6 of the 6 features of 'arm' do); is it in degrees?" in degrees.message
    clipped = found["so101", "clipped", "action elbow_flex.pos"]
    assert (clipped.level, "34.5% of frames" in clipped.message) == ("warning", True)
    assert {f.robot for f in found.values() if f.level == "error"} == {*roots}


@real
@pytest.mark.slow
def test_the_doctor_finds_the_follower_that_reached_its_limit(
    converted: Path, tmp_path: Path
) -> None:
    from actionprior.commands.doctor import doctor

    findings = doctor(recipe(converted), tmp_path)
    assert not [f for f in findings if f.level == "error"]
    found = {(f.robot, f.check, f.feature): f for f in findings}
    assert found["piper", "clipped", "state joint_2.pos"].level == "warning"
    assert ("piper", "narrow", "state joint_4.pos") in found  # held throughout
    for robot, group in (("so101_bimanual", "arm1"), ("tiago", "torso")):
        assert (robot, "action_is_next_state", group) in found


@real
def test_the_doctor_sees_the_black_camera_and_the_rate_and_the_ticks() -> None:
    import av
    import pyarrow.parquet as pq

    from actionprior.checkup import Camera, Subject, check_images, examine
    from actionprior.data import Contents
    from actionprior.data.store import Recording

    folder = SOURCE / "so101_bimanual_cloth" / "dataset"
    tables = [pq.read_table(p) for p in sorted(folder.glob("data/*/*.parquet"))[:5]]
    action, state = (
        np.concatenate([np.stack(t[key].to_numpy()) for t in tables]).astype(np.float32)
        for key in ("action", "observation.state")
    )
    lengths = np.array([len(t) for t in tables])
    times = np.concatenate([t["timestamp"].to_numpy() for t in tables])
    robot = next(e for e in recipe(SOURCE).embodiments if e.name == "so101_bimanual")
    robot = replace(robot, control_hz=20)  # as its info says; the recipe resamples
    contents = Contents(Recording(action, state, lengths), timestamp_N=times)
    subject = Subject(robot, "cloth", contents, chunk_length=15)
    found = {(f.check, f.feature): f for f in examine(subject)}
    assert "has whole numbers" in found["unit", "state arm1"].message
    assert found["rate", "timestamp"].level == "error"
    assert "the robot at 20" in found["rate", "timestamp"].message

    def look(episode: int, row: int, name: str) -> np.ndarray:
        path = next(folder.glob(f"videos/*/{name}/episode_{episode:06d}.mp4"))
        with av.open(str(path)) as video:
            frame = next(f for i, f in enumerate(video.decode(video=0)) if i == row)
            return frame.to_ndarray(format="rgb24").transpose(2, 0, 1)

    names = [f"observation.images.cam{i}" for i in range(2)]
    cameras = [Camera(n, lambda e, r, n=n: look(e, r, n), (224, 224)) for n in names]
    (black,) = check_images(subject, cameras)
    assert (black.level, black.check, black.feature, black.episode) == (
        "error",
        "black",
        names[0],
        0,
    )


def write_g1(folder: Path, filmed_frames: int) -> None:
    """Make two v2.1 episodes of six frames; the second has a video."""
    import av
    import pyarrow as pa
    import pyarrow.parquet as pq

    info = {"fps": 30, "features": {"action": {"names": [["a", "b"]]}}}
    for part in ("meta", "data", video := "videos/chunk-000/observation.images.cam_high"):
        (folder / part).mkdir(parents=True)
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    (folder / "meta" / "episodes.jsonl").write_text('{"tasks": ["pick"]}\n' * 2)
    for episode in range(2):
        rows = [[float(episode), t / 10] for t in range(6)]
        columns = {
            "observation.state": rows,
            "action": rows,
            "timestamp": [t / 30 for t in range(6)],
        }
        pq.write_table(pa.table(columns), folder / "data" / f"episode_{episode}.parquet")
    with av.open(str(folder / video / "episode_000001.mp4"), "w") as container:
        stream = container.add_stream("h264", rate=30, width=64, height=64, pix_fmt="yuv420p")
        for t in range(filmed_frames):
            image = np.full((64, 64, 3), 40 * t, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())


def test_the_head_camera_is_kept_if_there_is_one(
    converter: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    write_g1(tmp_path / "g1_inspire", filmed_frames=6)
    converter.main([f"--source={tmp_path}", f"--out={tmp_path}", "--only=g1_inspire", "--videos"])
    assert "files of episodes [0] are missing" in capsys.readouterr().out
    dataset = LeRobotDataset("x", root=tmp_path / "g1_inspire_video", video_backend="pyav")
    assert len(dataset) == 6
    for t in range(6):
        assert dataset[t]["action"].tolist() == pytest.approx([1.0, t / 10])
        brightness = dataset[t]["observation.images.cam_high"].mean() * 255
        assert brightness == pytest.approx(40 * t, abs=6)


@pytest.mark.parametrize(("frames", "message"), [(4, "has 4 frames"), (7, "has more frames")])
def test_a_video_of_another_length_is_refused(
    converter: ModuleType, tmp_path: Path, frames: int, message: str
) -> None:
    write_g1(tmp_path / "g1_inspire", filmed_frames=frames)
    with pytest.raises(SystemExit, match=message):
        converter.main(
            [f"--source={tmp_path}", f"--out={tmp_path}", "--only=g1_inspire", "--videos"]
        )


@real
def test_an_existing_dataset_is_kept(
    converter: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiago_excitation").mkdir()
    arguments = [f"--source={SOURCE}", f"--out={tmp_path}", "--only", "tiago_excitation"]
    converter.main(arguments)
    assert "exists already" in capsys.readouterr().out
    converter.main([*arguments, "--overwrite"])
    assert (tmp_path / "tiago_excitation" / "meta" / "info.json").is_file()


def test_a_missing_source_is_refused_in_one_sentence(converter: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"g1_inspire is missing: expected the folder of real"):
        converter.main([f"--source={tmp_path}", f"--out={tmp_path}"])


def write_tiago(folder: Path, **changes: np.ndarray) -> None:
    rows = np.zeros((6, 2), np.float32)
    parts = {
        "state": rows, "action": rows, "episode_ends": np.array([2, 6]), "fps": np.array(30),
        "names": np.array(["torso", "arm"]), "tasks": np.array(["a", "b"]),
    }  # fmt: skip
    folder.mkdir()
    np.savez(folder / "tiago_excitation.npz", **(parts | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"action": np.array([[0, 0], [0, np.nan], [0, 0], [0, 0], [0, 0], [0, 0]])},
            r"action 'arm' is nan at frame 1 of episode 0",
        ),
        ({"state": np.zeros((6, 3))}, r"state of episode 0 has shape \(2, 3\), expected \(fr.*2\)"),
        ({"tasks": np.array([{"a": 1}, None], dtype=object)}, "cannot be read"),
    ],
)
def test_a_spoilt_recording_is_refused_and_leaves_nothing(
    converter: ModuleType, tmp_path: Path, changes: dict[str, np.ndarray], message: str
) -> None:
    write_tiago(tmp_path / "tiago_excitation", **changes)
    out = tmp_path / "out"
    with pytest.raises(SystemExit, match=message):
        converter.main([f"--source={tmp_path}", f"--out={out}", "--only=tiago_excitation"])
    assert not out.exists() or not list(out.iterdir())


def test_a_killed_conversion_leaves_nothing_that_looks_whole(
    converter: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    def killed(self: object) -> None:
        raise KeyboardInterrupt

    write_tiago(tmp_path / "tiago_excitation")
    monkeypatch.setattr(LeRobotDataset, "finalize", killed)
    with pytest.raises(KeyboardInterrupt):
        converter.main([f"--source={tmp_path}", f"--out={tmp_path / 'out'}",
                        "--only=tiago_excitation"])  # fmt: skip
    assert not (tmp_path / "out" / "tiago_excitation").exists()
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(EXAMPLE))
    converter.main([f"--source={tmp_path}", f"--out={tmp_path / 'out'}",
                    "--only=tiago_excitation"])  # fmt: skip
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["tiago_excitation"]


def test_the_recipe_says_how_to_make_what_is_missing(tmp_path: Path) -> None:
    data = recipe(tmp_path / "nothing")
    with pytest.raises(DataError) as refused:
        data.setup("fit")
    assert str(refused.value) == (
        f"{tmp_path}/nothing/g1_inspire: no such dataset folder; make it with `python "
        "examples/real_recordings/convert.py --source DIR`, where DIR holds the recordings"
    )
    assert json.dumps([robot.to_dict() for robot in data.embodiments])
