"""``lightning record``: from an environment's id and an expert's name to a dataset that trains."""

import io
import json
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from actionprior.benchmarks.metaworld_tasks import METAWORLD_DESCRIPTIONS
from actionprior.cli import main
from actionprior.data import DataError
from actionprior.networks.trunks import SmallTrunk
from actionprior.rollout import RENDER
from actionprior.training.settings import FusionSize
from actionprior.vla import VLAModule
from data_modules import LeRobotTrajectories
from data_modules.lerobot.columns import LeRobotEmbodiment
from data_modules.vla import ImageSettings, LeRobotVLA
from tests.helpers import point_env  # noqa: F401  registers
from tests.helpers.environments import needs
from tests.helpers.point_env import point_robot
from tests.helpers.policies import SMALL
from tests.helpers.stage1_runs import trainer

RECIPES = Path(__file__).parents[2] / "recipes" / "metaworld"
POINT = ["record", "--env=test/PointCamera-v0", "--observation_map.state=arm/state"]
POINT += ["--observation_map.state_names=[x, y, target_x, target_y]", "--action_names=[dx, dy]"]
POINT += ["--observation_map.images={observation.images.top: image}", "--robot=point"]


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    line = capsys.readouterr().out.splitlines()[-1]
    found: dict[str, int] = json.loads(line.removeprefix("RESULT "))
    return found


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*POINT, "--episodes=1", *words])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_a_recording_trains_both_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "points"
    main([*POINT, "--expert=tests.helpers.experts.Sometimes", f"--out={root}", "--episodes=4"])
    summary = result(capsys)
    assert (summary["kept"], summary["tried"]) == (4, 7)  # seeds 0, 2, 4 and 6
    info = json.loads((root / "meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"]) == (4, summary["frames"])
    assert (info["fps"], info["robot_type"]) == (10, "point")
    robot = vars(point_robot(["observation.images.top"]))
    stage1 = LeRobotTrajectories([LeRobotEmbodiment(**robot, roots=[str(root)])], batch_size=4)
    stage2 = LeRobotVLA([LeRobotEmbodiment(**robot, roots=[str(root)])], batch_size=4)
    for data in (stage1, stage2):
        data.prepare_data()
        data.setup("fit")
    batch = next(iter(stage2.train_dataloader()))
    assert batch.observation.images_BCKYX.shape == (4, 1, 3, 20, 30)
    assert set(batch.observation.task) == {"go to the target"}


@pytest.mark.parametrize(
    ("words", "disturbed"),
    [([], False), (["--noise=0.1"], True), (["--push.dx=0.5"], True), (["--push.dx=0"], False)],
)
def test_a_dataset_knows_whether_it_was_disturbed(
    tmp_path: Path, words: list[str], disturbed: bool
) -> None:
    root = tmp_path / "points"
    always = ["--expert=tests.helpers.experts.Sometimes", "--episodes=1", "--seed=3"]
    main([*POINT, *always, f"--out={root}", *words])
    about = json.loads((root / "meta/recording.json").read_text())
    assert about["seed"] == 3
    robot = LeRobotEmbodiment(**vars(point_robot([])), roots=[str(root)])
    assert LeRobotTrajectories([robot]).disturbed(0) == disturbed
    (root / "meta/recording.json").write_text('{"noise": "much"}')
    with pytest.raises(DataError, match=r"points: meta/recording\.json is damaged"):
        LeRobotTrajectories([robot]).disturbed(0)
    (root / "meta/recording.json").unlink()
    assert not LeRobotTrajectories([robot]).disturbed(0)


def test_cameras_of_different_size_are_recorded_described_and_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    root, recipe = tmp_path / "points", tmp_path / "arm.yaml"
    names = [f"joint_{n}.pos" for n in range(1, 5)]
    cameras = {"observation.images.top": "image", "observation.images.near": f"{RENDER}/near"}
    mapped = json.dumps({"state": "arm/state", "state_names": names, "images": cameras})
    words = ["record", "--env=test/PointTwoCameras-v0", f"--observation_map={mapped}"]
    words += [f"--action_names={names[:2]}", "--expert=tests.helpers.experts.Walker"]
    main([*words, "--robot=point", f"--out={root}", "--episodes=3"])
    features = json.loads((root / "meta/info.json").read_text())["features"]
    sizes = [features[camera]["shape"] for camera in cameras]
    assert sizes == [[20, 30, 3], [12, 16, 3]]
    drawn = [
        [np.array(Image.open(io.BytesIO(cell["bytes"]))) for cell in column.to_pylist()]
        for column in pq.read_table(root / "data", columns=list(cameras)).columns
    ]
    for seen, near in zip(*drawn, strict=True):
        np.testing.assert_array_equal(seen[:12, :16], near)

    main(["describe", str(root), f"--out={recipe}"])
    assert "cameras differ in size" in capsys.readouterr().out
    (robot,) = yaml.safe_load(recipe.read_text())["data"]["init_args"]["embodiments"]
    assert robot["cameras"] == sorted(cameras)
    main(["fit", f"--config={recipe}", "--trainer.fast_dev_run=1", "--data.batch_size=4"])
    images = ImageSettings(image_size=24, fit="pad", cache_dir=str(tmp_path / "cache"))
    data = LeRobotVLA([LeRobotEmbodiment.from_dict(robot)], 12, 4, batch_size=4, images=images)
    module = VLAModule(
        [robot.to_dict() for robot in data.embodiments],
        SmallTrunk(image_size=32, channels=16, text_width=16, width=48),
        architecture=SMALL,
        use_prior=False,
        fusion=FusionSize(32, 1, 2),
    )
    runner = trainer(tmp_path, 1, fast_dev_run=1)
    runner.fit(module, data)
    assert runner.global_step == 1


def test_several_environments_become_one_dataset_in_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {
        "env": ["test/Point-v0", "test/Point-v0"],
        "expert": "tests.helpers.experts.Walker",
        "observation_map": {"state": "", "text": "go"},
        "out": str(tmp_path / "two"),
        "episodes": 2,
    }
    (tmp_path / "record.yaml").write_text(yaml.safe_dump(settings))
    main(["record", f"--config={tmp_path / 'record.yaml'}"])
    assert result(capsys)["kept"] == 4
    meta = pq.read_table(tmp_path / "two/meta/episodes").to_pydict()
    assert meta["tasks"] == [["go"]] * 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--expert=tests.helpers.experts.stands_still"],
            "the expert of test/PointCamera-v0 keeps failing",
        ),
        (
            ["--expert=tests.helpers.experts.Nobody"],
            "expert 'tests.helpers.experts.Nobody' cannot be found",
        ),
        (["--expert=Nobody"], "expert 'Nobody' cannot be found"),
        (["--expert=tests.helpers.experts.not_callable"], "is 0.1, expected a class or function"),
        (["--env=test/None-v0"], "environment 'test/None-v0' cannot be found"),
        (["--env=[]"], "env is empty"),
        (["--env=[test/PointCamera-v0, CartPole-v1]"], "'CartPole-v1' has the action space"),
        (["--noise=-1"], "noise is -1.0; it must be 0 or more"),
        (["--push.dx=-1"], "push.dx is -1.0; it must be 0 or more"),
        (["--seed=900"], "seed is 900; it must be 0 to 899"),
        (["--episodes=0"], "episodes_per_task is 0"),
        (["--import_modules=[no_such]"], "import_modules names 'no_such'"),
    ],
)
def test_refusals_leave_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    out = tmp_path / "refused"
    given = ["--expert=tests.helpers.experts.Walker", f"--out={out}", *words]
    assert message in refusal(capsys, *given)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_kept_without_overwrite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old").mkdir()
    given = ["--expert=tests.helpers.experts.Walker", f"--out={tmp_path / 'old'}"]
    assert "exists already" in refusal(capsys, *given)
    main([*POINT, *given, "--episodes=1", "--overwrite=true"])
    assert result(capsys)["kept"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


def test_ctrl_c_keeps_the_recorded_episodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "points"
    words = ["--expert=tests.helpers.experts.Interrupts", f"--out={root}", "--episodes=9"]
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stop:
        main([*POINT, *words])
    assert stop.value.code == 130
    assert signal.getsignal(signal.SIGINT) is handler
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1].removeprefix("RESULT "))["kept"] == 3
    assert "stopped after 3 of 9 episodes; to record more" in err
    assert len(pq.read_table(root / "meta/episodes")) == 3
    assert (root / "meta/recording.json").exists()


@pytest.mark.parametrize("expert", ["Interrupts", "InterruptsTwice"])
def test_ctrl_c_never_replaces_a_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], expert: str
) -> None:
    root = tmp_path / "points"
    old = ["--expert=tests.helpers.experts.Walker", f"--out={root}", "--episodes=1"]
    main([*POINT, *old])
    words = [f"--expert=tests.helpers.experts.{expert}", f"--out={root}", "--overwrite=true"]
    with pytest.raises(SystemExit) as stop:
        main([*POINT, *words, "--episodes=9"])
    assert stop.value.code == 130
    assert len(pq.read_table(root / "meta/episodes")) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["points"]


def test_a_second_ctrl_c_discards_the_recording(tmp_path: Path) -> None:
    root = tmp_path / "points"
    words = [f"--out={root}", "--episodes=9", "--expert=tests.helpers.experts.InterruptsTwice"]
    with pytest.raises(SystemExit) as stop:
        main([*POINT, *words])
    assert stop.value.code == 130
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A limit on the size of files stands for a full disk: images of 20 x 30 pixels are larger.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    words = ["--expert=tests.helpers.experts.Sometimes", f"--out={tmp_path / 'points'}"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        message = refusal(capsys, *words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large; make room, or name another folder" in message
    assert list(tmp_path.iterdir()) == []


def test_robots_do_not_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["record", "--env=[actionprior/PandaReach-v0, actionprior/KukaReach-v0]"]
    words += ["--expert=actionprior.envs.experts.TabletopExpert", f"--out={tmp_path / 'x'}"]
    with pytest.raises(SystemExit):
        main([*words, "--env_kwargs={images: false}"])
    assert "one dataset holds one robot, but" in capsys.readouterr().err


@needs("metaworld", "metaworld")
@pytest.mark.parametrize(
    "name", ["record", "record_blind", pytest.param("record_mt10", marks=pytest.mark.slow)]
)
def test_recipes_record_metaworld(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    from actionprior.benchmarks import METAWORLD_IDS, expand_groups

    recipe: dict[str, Any] = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    ids = recipe["env"] if isinstance(recipe["env"], list) else expand_groups([recipe["env"]])
    assert set(ids) <= set(METAWORLD_IDS)
    two = [env_id for env_id in ids if "reach" in env_id or "push-" in env_id][:2]
    few = [f"--env={two}", "--episodes=1", f"--out={tmp_path / 'x'}"]
    main(["record", f"--config={RECIPES / name}.yaml", *few])
    assert result(capsys)["kept"] == 2
    info = json.loads((tmp_path / "x/meta/info.json").read_text())
    assert info["fps"] == 80
    assert info["features"]["observation.state"]["names"] == ["x", "y", "z", "opening"]
    assert ("observation.images.corner" in info["features"]) == (name == "record")
    if name == "record_mt10":
        assert info["features"]["observation.image"]["shape"] == [192, 192, 3]
        tasks = pq.read_table(tmp_path / "x/meta/tasks.parquet").to_pandas().index
        assert set(tasks) <= set(METAWORLD_DESCRIPTIONS.values())
