"""``lightning convert`` writes datasets that describe, doctor and fit read."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from actionprior.cli import main
from data_modules.lerobot.columns import LeRobotEmbodiment
from data_modules.trajectories import LeRobotTrajectories
from tests.helpers.command_line import refused
from tests.helpers.recordings_elsewhere import JOINTS, pictures, states, write_csv, write_pictures

RUN = ["--control_hz=10", "--out=out", "--state=[j?]"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    Path("csv").mkdir()
    for number in range(3):
        names = write_pictures(Path(f"csv/e{number}_front"), pictures(20, episode=number))
        columns = dict(zip(JOINTS, states(20, number).T, strict=True)) | {
            "wrist": [f"e{number}_front/{name}" for name in reversed(names)],
            "task": ["reach"] * 20,
        }
        write_csv(Path(f"csv/e{number}.csv"), columns)


@pytest.mark.slow
def test_guided_demonstrations_with_two_cameras_are_trained_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cameras = "--cameras={front: '{stem}_front', wrist: wrist}"
    main(["convert", "--source=csv/*.csv", *RUN, "--next_state=1", cameras, "--robot=my_arm"])
    assert "out: 3 episodes, 57 frames\nnext: lightning describe" in capsys.readouterr().out
    main(["describe", "out", "--out=robot.yaml"])
    recipe = yaml.safe_load(Path("robot.yaml").read_text())
    (robot,) = recipe["data"]["init_args"]["embodiments"]
    assert robot["name"] == "my_arm"
    assert robot["cameras"] == ["observation.images.front", "observation.images.wrist"]
    data = LeRobotTrajectories([LeRobotEmbodiment.from_dict(robot)], val_fraction=0)
    data.setup("fit")
    (recording,) = data.frames.store.recordings
    for number, start in enumerate((0, 19, 38)):
        rows = slice(start, start + 19)
        np.testing.assert_allclose(recording.state_Ns[rows], states(20, number)[:-1], atol=1e-6)
        np.testing.assert_allclose(recording.action_Na[rows], states(20, number)[1:], atol=1e-6)
    import pyarrow.parquet as pq

    (file,) = Path("out/data").rglob("*.parquet")
    table = pq.read_table(file)
    for camera, reds in (("front", range(19)), ("wrist", range(19, 0, -1))):
        cells = table[f"observation.images.{camera}"].to_pylist()[19:38]
        assert [_red(cell["bytes"]) for cell in cells] == list(reds)
    main(["fit", "--config=robot.yaml", "--trainer.fast_dev_run=1", "--data.batch_size=4"])


def _red(content: bytes) -> int:
    import io

    from PIL import Image

    return int(np.asarray(Image.open(io.BytesIO(content)))[0, 0, 0])


def test_an_existing_folder_stays_unless_it_may_be_replaced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("out").mkdir()
    words = ["convert", "--source=csv/e0.csv", *RUN, "--action=[j1]"]
    assert "exists already; choose another --out, or pass --over" in refused(words, capsys)
    main([*words, "--overwrite"])
    assert Path("out/meta/info.json").is_file()


def test_a_robot_without_a_state_is_converted() -> None:
    words = ["--control_hz=10", "--out=out", "--state=[]", "--action=[j1, j2]"]
    main(["convert", "--source=csv/e0.csv", *words])
    features = json.loads(Path("out/meta/info.json").read_text())["features"]
    assert features["action"]["names"] == ["j1", "j2"]
    assert "observation.state" not in features


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--source=csv", *RUN],
            "Set --action, or --next_state 1 if the robot was guided by hand",
        ),
        (["--source=csv", *RUN, "--next_state=-1"], "next_state is -1; it must be 0 or more"),
        (["--source=csv", *RUN, "--control_hz=0"], "control_hz is 0; it must be 1 or more"),
        (["--source=csv", *RUN, "--max_gap=0"], "max_gap is 0.0; it must be above 0"),
        (["--source=none", *RUN], "none does not exist"),
        (["--source=csv", *RUN, "--time_unit=h"], "time_unit"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(["convert", *words], capsys)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("file", "module", "extra"),
    [("a.hdf5", "h5py", "hdf5"), ("a.mcap", "rosbags.highlevel", "ros")],
)
def test_a_missing_package_is_one_sentence(
    file: str,
    module: str,
    extra: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(file).write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    said = refused(["convert", f"--source={file}", *RUN, "--action=[a]"], capsys)
    assert f"is not installed; run `uv pip install -e '.[{extra}]'`" in said
