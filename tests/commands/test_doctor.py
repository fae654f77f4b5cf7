"""The doctor reads what training would read, and its exit code says whether to train."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from actionprior.cli import main
from tests.helpers.datasets import write_dataset, write_v2
from tests.helpers.recipes import ROBOT


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    roots = [str(write_dataset(tmp_path / "mine", (40, 30, 9)))]
    data = {
        "class_path": "data_modules.LeRobotTrajectories",
        "init_args": {"embodiments": [ROBOT | {"roots": roots}]},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"data": data, "trainer": {"max_steps": 3}}))
    return path


def test_findings_are_printed_written_and_drawn(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["doctor", f"--config={recipe}"])
    printed = capsys.readouterr().out
    assert "0 errors" in printed
    findings = json.loads(Path("outputs/doctor/doctor.json").read_text())
    short = next(f for f in findings if f["check"] == "short")
    assert (short["level"], short["robot"], short["episode"]) == ("warning", "arm", 2)
    assert Path(short["dataset"]).name == "mine"
    assert "action_is_next_state" in {f["check"] for f in findings}
    picture = Image.open("outputs/doctor/00-arm.png").convert("L")
    assert picture.size[0] > 800
    assert picture.getextrema() == (0, 255)
    page = Path("outputs/doctor/report.html").read_text()
    assert "9 frames, fewer than a chunk of 15" in page
    assert page.count("data:image/png;base64,") == 1


def test_a_refused_robot_does_not_hide_the_others(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(recipe.read_text())
    robots = content["data"]["init_args"]["embodiments"]
    spoilt = write_dataset(Path("spoilt"), (20, 20))
    spoil(spoilt, "observation.state", lambda rows: rows[25].__setitem__(1, np.nan))
    slow = write_dataset(Path("slow"), (20, 20))
    spoil(slow, "timestamp", lambda rows: [row.__imul__(1.1) for row in rows])
    empty = write_dataset(Path("<i>empty"), (20, 20), tasks=("",))
    robots += [
        ROBOT | {"name": name, "roots": [str(root)]}
        for name, root in (("spoilt", spoilt), ("slow", slow), ("empty", empty))
    ]
    recipe.write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit) as stop:
        main(["doctor", f"--config={recipe}"])
    assert stop.value.code == 1
    findings = json.loads(Path("outputs/doctor/doctor.json").read_text())
    of = {(f["robot"], f["check"]): f for f in findings}
    refused = of["spoilt", "refused"]
    assert (refused["feature"], refused["episode"], refused["frame"]) == (
        "observation.state j2",
        1,
        5,
    )
    assert of["slow", "rate"]["level"] == "error"
    assert of["empty", "empty_task"]["level"] == "warning"
    assert of["arm", "short"]["episode"] == 2
    page = Path("outputs/doctor/report.html").read_text()
    assert "&lt;i&gt;empty" in page
    assert "<i>" not in page


def test_resampled_recordings_are_checked_at_the_recorded_rate(recipe: Path) -> None:
    content = yaml.safe_load(recipe.read_text())
    root = write_dataset(Path("slow"), (60, 50))
    spoil(root, "timestamp", lambda rows: [row.__imul__(1.1) for row in rows])
    robot = ROBOT | {"roots": [str(root)], "resample": True, "control_hz": 5}
    content["data"]["init_args"]["embodiments"] = [robot]
    recipe.write_text(yaml.safe_dump(content))
    main(["doctor", f"--config={recipe}"])
    of = {f["check"]: f for f in json.loads(Path("outputs/doctor/doctor.json").read_text())}
    assert of["rate"]["level"] == "warning"  # training uses the timestamps
    assert "runs at 9.09 Hz, but the robot at 10 Hz" in of["rate"]["message"]
    assert "action_is_next_state" in of


def test_a_vector_with_the_features_of_the_action_is_advised(recipe: Path) -> None:
    root = Path("mine")
    (path,) = (root / "data").glob("*/*.parquet")
    table = pq.read_table(path)
    same = table["observation.state"]
    table = table.set_column(table.schema.names.index("action"), "action", same)
    pq.write_table(table.append_column("leader", same), path)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["leader"] = info["features"]["action"]
    info["features"]["goal"] = {"dtype": "float32", "shape": [3], "names": None}
    info["features"]["observation.images.front"] = {
        "dtype": "video",
        "shape": [240, 320, 3],  # more numbers than an action may have
        "names": ["height", "width", "channels"],
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(SystemExit):
        main(["doctor", f"--config={recipe}"])
    for finding in findings():
        if finding["check"] == "action_is_state":
            assert finding["advice"].endswith("`action_key: leader` on the robot")
    assert {f["check"] for f in findings()} > {"action_is_state", "absent_video"}
    page = Path("outputs/doctor/report.html").read_text()
    assert "→ if these are the commands: <code>action_key: leader</code> on the robot" in page


def spoil(root: Path, column: str, change: Callable[[list], object]) -> None:
    """Change the rows of a column of the dataset's only data file."""
    (path,) = (root / "data").glob("*/*.parquet")
    table = pq.read_table(path)
    rows = [np.array(row) for row in table[column].to_pylist()]
    change(rows)
    values = pa.array([row.tolist() for row in rows], table.schema.field(column).type)
    pq.write_table(table.set_column(table.schema.names.index(column), column, values), path)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_images_are_read_and_not_cached(recipe: Path, kind: str) -> None:
    cameras = ("observation.images.front", "observation.images.wrist")
    root = write_dataset(Path("filmed"), (20, 20, 20), cameras=dict.fromkeys(cameras, kind))
    content = yaml.safe_load(recipe.read_text())
    robot = ROBOT | {"roots": [str(root)], "cameras": list(cameras)}
    content["data"] = {
        "class_path": "data_modules.LeRobotVLA",
        "init_args": {"embodiments": [robot]},
    }
    recipe.write_text(yaml.safe_dump(content))
    for rate in ([], ["--data.chunk_seconds=0.5"]):  # 15 steps: 30 Hz of 10
        main(["doctor", f"--config={recipe}", *rate])
        findings = json.loads(Path("outputs/doctor/doctor.json").read_text())
        assert not {f["check"] for f in findings} & {"black", "plain", "frozen", "no_image"}
    assert not Path("cache/images").exists()
    if kind == "image":
        blacken(root, cameras[1], episode=1)
        with pytest.raises(SystemExit) as stop:
            main(["doctor", f"--config={recipe}"])
        assert stop.value.code == 1
        findings = json.loads(Path("outputs/doctor/doctor.json").read_text())
        (black,) = (f for f in findings if f["check"] == "black")
        assert (black["feature"], black["episode"], black["frame"]) == (cameras[1], 1, 0)


def test_excluded_episodes_are_not_checked(recipe: Path) -> None:
    camera = "observation.images.front"
    source = write_dataset(
        Path("filmed"), (20, 20, 20), cameras={camera: "video"}, split_videos=True
    )
    root = write_v2(source, Path("old"))
    (root / "videos/chunk-000" / camera / "episode_000001.mp4").unlink()
    content = yaml.safe_load(recipe.read_text())
    robot = ROBOT | {"roots": [str(root)], "cameras": [camera]}
    content["data"] = {
        "class_path": "data_modules.LeRobotVLA",
        "init_args": {"embodiments": [robot], "images": {"skip_missing_videos": True}},
    }
    recipe.write_text(yaml.safe_dump(content))
    main(["doctor", f"--config={recipe}"])
    findings = json.loads(Path("outputs/doctor/doctor.json").read_text())
    (absent,) = (f for f in findings if f["check"] == "absent_video")
    assert (absent["level"], absent["episode"]) == ("note", 1)


def test_recipes_of_stage_1_look_at_the_cameras_and_the_page_shows_them(recipe: Path) -> None:
    cameras = ("observation.images.front", "observation.images.wrist")
    root = write_dataset(Path("filmed"), (20, 20, 20), cameras=dict.fromkeys(cameras, "image"))
    blacken(root, cameras[1], episode=1)
    content = yaml.safe_load(recipe.read_text())
    for named in (list(cameras), []):
        robot = ROBOT | {"roots": [str(root)], "cameras": named}
        content["data"]["init_args"]["embodiments"] = [robot]
        recipe.write_text(yaml.safe_dump(content))
        with pytest.raises(SystemExit):
            main(["doctor", f"--config={recipe}", "--exclude_episodes=list.yaml"])
        (black,) = (f for f in findings() if f["check"] == "black")
        assert (black["feature"], black["episodes"]) == (cameras[1], [1])
    page = Path("outputs/doctor/report.html").read_text()
    assert page.index("60") < page.index("<p>") < page.index("data:image/jpeg")
    assert page.count("data:image/jpeg") == 6
    assert " excluded)" not in page
    main(["doctor", f"--config={recipe}", "--data.mixture.exclude_episodes=list.yaml"])
    assert "(and 1 excluded)" in Path("outputs/doctor/report.html").read_text()
    assert not [f for f in findings() if f["level"] == "error"]


def test_a_camera_that_the_dataset_lacks_is_named(recipe: Path) -> None:
    front, low = "observation.images.front", "observation.images.low"
    root = write_dataset(Path("seen"), (20, 20), cameras={front: "image"})
    content = yaml.safe_load(recipe.read_text())
    robot = ROBOT | {"roots": [str(root)], "cameras": [front, low]}
    content["data"]["init_args"]["embodiments"] = [robot]
    recipe.write_text(yaml.safe_dump(content))
    main(["doctor", f"--config={recipe}"])
    (finding,) = (f for f in findings() if f["check"] == "unknown_camera")
    assert (finding["level"], finding["feature"]) == ("warning", low)
    assert f"there is no such camera, only {front}: Stage 1 needs none" in finding["message"]


def test_a_report_cannot_replace_a_file(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("mine")
    with pytest.raises(SystemExit):
        main(["doctor", f"--config={recipe}", "--out=taken"])
    assert "error: cannot use taken: File exists; name another folder" in capsys.readouterr().err
    assert Path("taken").read_text() == "mine"


def test_cameras_that_are_not_looked_at_are_named(recipe: Path) -> None:
    camera = "observation.images.front"
    root = write_dataset(Path("filmed"), (20, 20), cameras={camera: "video"})
    content = yaml.safe_load(recipe.read_text())
    content["data"]["init_args"]["embodiments"] = [
        ROBOT | {"roots": [str(root)], "video_urls": ["memory://elsewhere"], "cameras": [camera]}
    ]
    recipe.write_text(yaml.safe_dump(content))
    main(["doctor", f"--config={recipe}"])
    (finding,) = (f for f in findings() if f["check"] == "not_looked_at")
    assert (finding["level"], finding["feature"]) == ("note", camera)
    assert "use the recipe of Stage 2" in finding["message"]


def test_the_list_of_episodes_keeps_what_was_excluded_before(recipe: Path) -> None:
    root = write_dataset(Path("copied"), (40, 30, 40, 20))
    (path,) = (root / "data").glob("*/*.parquet")
    table = pq.read_table(path)
    for name in ("action", "observation.state"):
        rows = table[name].to_pylist()
        rows[70:110] = rows[:40]
        values = pa.array(rows, table.schema.field(name).type)
        table = table.set_column(table.schema.names.index(name), name, values)
    pq.write_table(table, path)
    content = yaml.safe_load(recipe.read_text())
    content["data"]["init_args"]["embodiments"][0]["roots"] = [str(root)]
    recipe.write_text(yaml.safe_dump(content))
    main(["doctor", f"--config={recipe}", "--exclude_episodes=list.yaml"])
    assert yaml.safe_load(Path("list.yaml").read_text()) == {"arm": {str(root): [2]}}
    again = ["--data.mixture.exclude_episodes=list.yaml", "--exclude_episodes=list.yaml"]
    main(["doctor", f"--config={recipe}", *again])
    assert yaml.safe_load(Path("list.yaml").read_text()) == {"arm": {str(root): [2]}}
    assert "duplicate" not in {f["check"] for f in findings()}


@pytest.mark.slow
def test_data_are_compared_with_checkpoints_of_both_stages(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cameras = ["observation.images.front", "observation.images.wrist"]
    root = write_dataset(Path("filmed"), (25, 20, 20), cameras=dict.fromkeys(cameras, "image"))
    robot = ROBOT | {"roots": [str(root)], "cameras": cameras}
    sizes = {"width": 16, "latent_width": 8, "chunk_length": 5, "history_length": 3}
    trunk = "actionprior.networks.trunks.SmallTrunk"
    data = {"embodiments": [robot], "chunk_length": 5, "history_length": 3, "batch_size": 4}
    policy = {
        "prior_checkpoint": "LeRobotTrajectories.ckpt",
        "fusion": {"width": 32},
        "trunk": {"class_path": trunk, "init_args": {"image_size": 32, "grid": 2}},
    }
    for kind, module, arguments, more in (
        ("LeRobotTrajectories", "MotionPriorModule", {"architecture": sizes}, {}),
        ("LeRobotVLA", "VLAModule", policy, {"images": {"image_size": 32}}),
    ):
        callback = {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {"dirpath": ".", "filename": kind, "save_on_train_epoch_end": True},
        }
        trainer = {"max_steps": 1, "limit_val_batches": 0, "callbacks": [callback]}
        content = {
            "model": {"class_path": f"actionprior.{module}", "init_args": arguments},
            "data": {"class_path": f"data_modules.{kind}", "init_args": data | more},
            "trainer": trainer | {"enable_progress_bar": False, "logger": False},
        }
        recipe.write_text(yaml.safe_dump(content))
        main(["fit", f"--config={recipe}"])
        main(["doctor", f"--config={recipe}", f"--ckpt_path={kind}.ckpt"])
        assert not [f for f in findings() if f["check"].startswith("checkpoint")]
    robot["cameras"] = cameras[::-1]
    spoil(root, "observation.state", lambda rows: [row.__imul__(57.3) for row in rows])
    recipe.write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit):
        main(["doctor", f"--config={recipe}", "--ckpt_path=LeRobotVLA.ckpt"])
    of = {(f["check"], f["feature"]): f for f in findings()}
    assert of["checkpoint_camera", ""]["level"] == "error"
    assert ("checkpoint_range", "state j1") in of
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["doctor", f"--config={recipe}", "--ckpt_path=nowhere.ckpt"])
    assert stop.value.code == 2
    assert "nowhere.ckpt does not exist" in capsys.readouterr().err


def findings() -> list[dict]:
    return json.loads(Path("outputs/doctor/doctor.json").read_text())


def blacken(root: Path, camera: str, episode: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (48, 32)).save(buffer, format="PNG")
    (path,) = (root / "data").glob("*/*.parquet")
    table = pq.read_table(path)
    cells = table[camera].to_pylist()
    for cell, number in zip(cells, table["episode_index"].to_pylist(), strict=True):
        if number == episode:
            cell["bytes"] = buffer.getvalue()
    values = pa.array(cells, table.schema.field(camera).type)
    pq.write_table(table.set_column(table.schema.names.index(camera), camera, values), path)


def test_an_error_ends_with_exit_code_1(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load(recipe.read_text())
    content["data"]["init_args"]["embodiments"][0]["control_hz"] = 30
    recipe.write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit) as stop:
        main(["doctor", f"--config={recipe}", "--out=elsewhere"])
    assert stop.value.code == 1
    (finding,) = json.loads(Path("elsewhere/doctor.json").read_text())
    assert finding["robot"] == "arm"
    assert (finding["level"], finding["check"]) == ("error", "refused")
    assert "has 10 frames per second, but embodiment 'arm' has control_hz 30" in finding["message"]
    assert "refused" in capsys.readouterr().out


def test_a_recipe_without_data_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none.yaml"
    path.write_text("trainer: {max_steps: 3}\n")
    with pytest.raises(SystemExit) as stop:
        main(["doctor", f"--config={path}"])
    assert stop.value.code == 2
    assert "found NoneType" in capsys.readouterr().err
