"""Test that files of version 0.1.0 give the same numbers; ``made_before/README.md`` lists them."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
import yaml
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from safetensors.torch import load_file
from torch import Tensor, distributed

import data_modules
from actionprior import (
    ActionGroup,
    MotionPriorModule,
    Policy,
    ShardedStrategy,
    StateGroup,
    VLAModule,
)
from actionprior.batch import Observation, TrajectoryBatch
from actionprior.cli import main
from actionprior.lerobot.modeling_actionprior import ActionPriorPolicy
from actionprior.networks.motion_prior import PriorArchitecture
from actionprior.networks.trunks import SmallTrunk
from actionprior.study.finished_cells import assemble
from actionprior.study.grid import Cell, Grid, make_grid
from actionprior.study.plan import Study
from actionprior.study.table import read_table
from actionprior.training.settings import (
    FusionSize,
    OptimizerSettings,
    PolicyFlowSettings,
    PolicyOptimizerSettings,
)
from data_modules import ImageSettings, LeRobotEmbodiment, LeRobotTrajectories, LeRobotVLA

PROJECT = Path(__file__).parents[1]
MADE = PROJECT / "tests" / "made_before"
EXPECTED: dict[str, Any] = json.loads((MADE / "expected.json").read_text("utf-8"))
STUDIES: dict[str, Any] = json.loads((MADE / "studies.json").read_text("utf-8"))
TENSORS = load_file(MADE / "expected.safetensors")
CAMERA = "observation.images.front"
ARCHITECTURE = PriorArchitecture(
    chunk_length=4,
    history_length=4,
    width=8,
    latent_width=8,
    encoder_depth=1,
    decoder_depth=1,
    heads=2,
    decoder_sees_state=True,
)
RECORDED = "action observation.state"
RESAMPLED = (
    "resampled 5 False action observation.state "
    "([{'name': 'arm', 'slot': 'joints', 'features': ['j1', 'j2'], "
    "'representation': 'joint_position', 'unit': 'rad', 'offset': 0, 'relative_to': 'joints', "
    "'encoding': ''}, {'name': 'gripper', 'slot': 'joints', 'features': ['grip'], "
    "'representation': 'gripper', 'unit': '', 'offset': 7, 'relative_to': '', 'encoding': ''}], "
    "[{'name': 'joints', 'slot': 'joints', 'features': ['j1', 'j2'], "
    "'representation': 'position', 'unit': 'rad', 'offset': 0, 'encoding': ''}, "
    "{'name': 'gripper', 'slot': 'joints', 'features': ['grip'], 'representation': 'gripper', "
    "'unit': '', 'offset': 7, 'encoding': ''}])"
)
"""Parts of the hash in a store's name that follow the dataset's folder."""


# ---- the dataset and its cache --------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Copy the dataset with the old modification times, on which names in the cache depend."""
    folder = tmp_path / "dataset"
    shutil.copytree(MADE / "dataset", folder)
    for path in folder.rglob("*"):
        _make_old(path)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the cache, with the names that belong to the dataset's new place."""
    folder, names = tmp_path / "cache", EXPECTED["data"]
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(folder))
    for kind, key in (("recorded", RECORDED), ("resampled", RESAMPLED)):
        source = hashlib.sha256(f"{root.resolve()} {key}".encode()).hexdigest()[:12]
        name = "-".join([root.name, source, *names[f"{kind} store"]])
        shutil.copytree(MADE / "store" / kind, folder / "trajectories" / name)
    shutil.copytree(MADE / "images", folder / "images" / names["images"])
    return folder


def robot(root: Path | str, name: str, hz: float, cameras: list[str]) -> LeRobotEmbodiment:
    return LeRobotEmbodiment(
        name=name,
        control_hz=hz,
        action=[
            ActionGroup("arm", "joints", ["j1", "j2"], "joint_position", "rad", 0, "joints"),
            ActionGroup("gripper", "joints", ["grip"], "gripper", "", 7),
        ],
        state=[
            StateGroup("joints", "joints", ["j1", "j2"], "position", "rad"),
            StateGroup("gripper", "joints", ["grip"], "gripper", "", 7),
        ],
        cameras=cameras,
        roots=[str(root)],
        resample=hz != 10,
    )


def trajectories(root: Path) -> LeRobotTrajectories:
    robots = [robot(root, "arm", 10, [CAMERA]), robot(root, "slow_arm", 5, [])]
    return LeRobotTrajectories(
        robots, chunk_length=4, history_length=4, batch_size=8, val_fraction=0.34
    )


def seen(root: Path) -> LeRobotVLA:
    return LeRobotVLA(
        [robot(root, "arm", 10, [CAMERA])],
        chunk_length=4,
        history_length=4,
        batch_size=8,
        val_fraction=0.34,
        images=ImageSettings(16, video_backend="pyav"),
    )


def test_stores_and_images_of_the_cache_are_used_and_nothing_is_extracted_again(
    root: Path, cache: Path
) -> None:
    for path in [*root.glob("data/*/*.parquet"), *root.glob("videos/*/*/*.mp4")]:
        path.write_bytes(bytes(path.stat().st_size))  # nothing can be extracted from these
        _make_old(path)
    before = _contents(cache)
    first, second = trajectories(root), seen(root)
    for data in (first, second):
        data.prepare_data()
        data.setup("fit")
    _same("batch", first.windows(False).__getitems__([0, 9, 13, 25, 30, 41]))
    window = second.windows(False).__getitems__([3, 14, 26])
    _same("observation", window.observation)
    assert window.observation.task == EXPECTED["policy"]["tasks"]
    assert _contents(cache) == before


def test_the_copy_of_a_published_dataset_keeps_its_name(root: Path, cache: Path) -> None:
    url, storage = EXPECTED["data"]["copy"]["url"], fsspec.filesystem("memory")
    storage.put(str(root), url.removeprefix("memory:/"), recursive=True)
    try:
        LeRobotTrajectories([robot(url, "arm", 10, [])]).prepare_data()
    finally:
        storage.rm("/made", recursive=True)
    assert (cache / "datasets" / EXPECTED["data"]["copy"]["folder"]).is_dir()


@pytest.mark.parametrize("name", STUDIES["recorded"])
def test_demonstrations_of_the_suite_are_found_where_they_were_recorded(name: str) -> None:
    recipe = yaml.safe_load(_recipe(name).read_text("utf-8"))["data"]
    kind = getattr(data_modules, recipe["class_path"].rpartition(".")[2])
    found = [Path(e.roots[0]).name for e in kind(**recipe["init_args"]).embodiments]
    assert found == STUDIES["recorded"][name]


# ---- checkpoints and weights ----------------------------------------------------------------


@pytest.fixture
def process_group(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End the process group that a strategy opens with the test."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


def stage1(data: LeRobotTrajectories) -> MotionPriorModule:
    robots = [e.to_dict() for e in data.embodiments]
    optimizer = OptimizerSettings(warmup_steps=1)
    return MotionPriorModule(robots, ARCHITECTURE, learning_rate=3e-3, optimizer=optimizer)


def new_trunk(weights: str = "") -> SmallTrunk:
    return SmallTrunk(width=48, image_size=16, channels=8, text_width=4, weights=weights)


def stage2(data: LeRobotVLA, prior: Path) -> VLAModule:
    robots = [e.to_dict() for e in data.embodiments]
    return VLAModule(
        robots,
        new_trunk(),
        prior_checkpoint=str(prior),
        learning_rate=3e-3,
        decay_fraction=1.0,
        fusion=FusionSize(width=8, depth=1, heads=2),
        flow=PolicyFlowSettings(noise_repeats=2),
        optimizer=PolicyOptimizerSettings(warmup_steps=1),
    )


def trainer(**settings: Any) -> Trainer:
    quiet = {
        "max_steps": 3,
        "logger": False,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "use_distributed_sampler": False,
        "accelerator": "cpu",
        "devices": 1,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 1,
        "gradient_clip_val": 1.0,
    }
    return Trainer(**{**quiet, **settings})


def check_validation(
    module: LightningModule, data: LightningDataModule, path: Path, kind: str
) -> None:
    (found,) = trainer().validate(module, data, path, verbose=False, weights_only=True)
    expected = EXPECTED[kind]["validated"]
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-5)


def check_resuming(
    module: LightningModule, data: LightningDataModule, path: Path, kind: str, **settings: Any
) -> None:
    """Check that step 3 starts from the same weights, moments, batch, noise and learning rate."""
    runner = trainer(**settings)
    runner.fit(module, data, ckpt_path=path, weights_only=True)
    assert runner.global_step == 3
    loss = float(runner.callback_metrics["train/loss"])
    assert loss == pytest.approx(EXPECTED[kind]["resumed"], abs=1e-5)


def check_prior(module: MotionPriorModule | VLAModule, kind: str) -> None:
    """Compute the latents of a batch, and the chunks that are reconstructed from them."""
    batch = TrajectoryBatch(**_tensors("batch"))
    state, rows = batch.state_BHS[:, 0], batch.embodiment_B
    with torch.no_grad():
        latents = module.prior.encode(batch)
    chunks = module.prior.sample_relative(latents, state, rows, TENSORS["noise"], 5, "midpoint")
    _close(latents, f"{kind}.latents")
    _close(chunks, f"{kind}.chunks")


def check_weights(found: torch.nn.Module) -> None:
    """Check that the policy's weights are the same bit for bit, under the same names."""
    expected = load_file(MADE / "exported" / "model.safetensors")
    assert found.state_dict().keys() == expected.keys()
    for name, value in found.state_dict().items():
        assert torch.equal(value, expected[name]), name


def check_actions(policy: Policy) -> None:
    """Check six actions, re-planned every two steps: memory and noise of a seed are unchanged."""
    policy.reset(seed=3)
    sensed = zip(TENSORS["images"].numpy(), TENSORS["states"].numpy(), strict=True)
    acted = [
        policy.select_action({"observation.state": state, CAMERA: image, "task": "push the cube"})
        for image, state in sensed
    ]
    _close(torch.from_numpy(np.stack(acted)), "policy.actions")


def test_a_stage_1_checkpoint_is_read_and_resumed(root: Path) -> None:
    path, data = MADE / "prior.ckpt", trajectories(root)
    module = stage1(data)
    check_validation(module, data, path, "prior")
    check_prior(module, "prior")
    check_prior(stage2(seen(root), path), "prior")
    averages = EMAWeightAveraging(decay=0.5, update_starting_at_step=0, use_buffers=False)
    check_resuming(stage1(data), trajectories(root), path, "prior", callbacks=[averages])


@pytest.mark.usefixtures("process_group")
def test_a_sharded_checkpoint_is_read_consolidated_and_resumed(root: Path, tmp_path: Path) -> None:
    path, file = MADE / "shards.ckpt", tmp_path / "whole.ckpt"
    check_prior(stage2(seen(root), path), "shards")
    main(["consolidate", str(path), str(file)])
    data = trajectories(root)
    check_resuming(stage1(data), data, file, "shards")
    strategy = ShardedStrategy(sharded_checkpoints=True)
    data = trajectories(root)
    check_resuming(stage1(data), data, path, "shards", strategy=strategy)


def test_a_stage_2_checkpoint_is_read_and_resumed(root: Path) -> None:
    path, data = MADE / "policy.ckpt", seen(root)
    check_validation(stage2(data, path), data, path, "policy")
    observed = _tensors("observation")
    history = {key: observed.pop(f"history.{key}") for key in TrajectoryBatch._fields}
    observation = Observation(
        **observed, history=TrajectoryBatch(**history), task=EXPECTED["policy"]["tasks"]
    )
    loaded = VLAModule.load(path)
    check_weights(loaded.network)
    with torch.no_grad():
        latents = torch.cat([*loaded.network.latents(observation)])  # with history, and without
    _close(latents, "policy.latents")
    _close(loaded.predict_chunk(observation, TENSORS["policy.noise"]), "policy.chunks")
    check_actions(Policy.load(path, execute_steps=2))
    check_resuming(stage2(data, path), seen(root), path, "policy")


def test_an_exported_policy_acts_as_it_did() -> None:
    policy = Policy.load(MADE / "exported")
    check_weights(policy.network)
    check_actions(policy)


def test_an_exported_policy_acts_in_lerobot_as_it_did() -> None:
    policy = ActionPriorPolicy.from_pretrained(MADE / "exported")
    check_weights(policy.network)
    torch.manual_seed(3)
    acted = [
        policy.select_action(
            {
                "observation.state": state[None],
                CAMERA: image[None].movedim(-1, 1).float() / 255,
                "task": ["push the cube"],
            }
        )
        for image, state in zip(TENSORS["images"], TENSORS["states"], strict=True)
    ]
    _close(torch.cat(acted), "policy.actions")


def test_grounded_trunk_weights_are_read() -> None:
    trunk = new_trunk(str(MADE / "trunk.safetensors")).eval()
    images = TENSORS["trunk.images"]
    mask, tasks = torch.ones(len(images), 1, dtype=torch.bool), ["push the cube", "lift it"]
    with torch.no_grad():
        _close(trunk(images, mask, tasks).tokens_BNW, "trunk.tokens")


# ---- studies --------------------------------------------------------------------------------


def study(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Study, Grid]:
    monkeypatch.chdir(PROJECT)
    plan = Study.read(str(_recipe(name).relative_to(PROJECT)))
    return plan, make_grid(plan)


@pytest.mark.parametrize("name", STUDIES["studies"])
def test_the_runs_of_a_study_keep_their_identities(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished runs and committed tables are found by identity, jobs of an array by order."""
    _, grid = study(name, monkeypatch)
    expected = STUDIES["studies"][name]
    assert [(_key(cell), cell.id) for cell in grid.cells] == [*expected["cells"].items()]
    priors = {f"{prior.name} seed {prior.seed}": prior.id for prior in grid.priors}
    assert priors == expected["priors"]
    assert grid.trunk == expected["trunk"]
    table = read_table(PROJECT / "docs" / name / "results.parquet")
    reported, known = {row.cell for row in table}, {cell.id for cell in grid.cells}
    unfinished = 4 if name == "study_metaworld" else 0
    assert reported <= known
    assert len(known - reported) <= unfinished


def test_a_finished_cell_counts_as_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, grid = study("study_real", monkeypatch)
    folder = tmp_path / STUDIES["finished"]["folder"]
    folder.mkdir(parents=True)
    shutil.copy(MADE / "finished.json", folder)
    found = [_plain(row._asdict()) for row in assemble(plan, grid, tmp_path, [])]
    assert found == [_plain(row) for row in STUDIES["finished"]["rows"]]


# ---- parts ----------------------------------------------------------------------------------


def _recipe(name: str) -> Path:
    """Find a recipe by its name in any folder below ``recipes``; ``study/real`` is study_real."""
    recipes = PROJECT / "recipes"
    if (recipes / f"{name}.yaml").is_file():
        return recipes / f"{name}.yaml"
    for path in sorted(recipes.rglob("*.yaml")):
        parts = path.relative_to(recipes).with_suffix("").parts
        if name in (path.stem, "_".join(parts), "_".join(reversed(parts))):
            return path
    raise FileNotFoundError(f"{recipes} has no recipe {name!r}")


def _key(cell: Cell) -> str:
    numbers = f"seed {cell.seed} demonstrations {cell.demonstrations} steps {cell.steps}"
    return f"{cell.arm} {cell.part} {numbers}"


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Make a row comparable: the notation of its arm's overrides may change."""
    values = {key: value for key, value in row.items() if key != "configuration"}
    return {k: "NaN" if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def _make_old(path: Path) -> None:
    time = EXPECTED["data"]["changed_at_ns"]
    os.utime(path, ns=(time, time))


def _contents(folder: Path) -> dict[str, bytes]:
    """List the files of a folder except locks."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if path.stat().st_size}


def _tensors(prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in TENSORS.items() if k.startswith(start)}


def _same(prefix: str, batch: Any) -> None:
    for name, value in batch._asdict().items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(value, TENSORS[f"{prefix}.{name}"], rtol=0, atol=1e-5)
        elif isinstance(value, tuple):
            _same(f"{prefix}.{name}", value)


def _close(found: Tensor, name: str) -> None:
    torch.testing.assert_close(found, TENSORS[name], rtol=1e-5, atol=1e-5)
