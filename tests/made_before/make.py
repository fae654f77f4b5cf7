"""Make the files of this folder with version 0.1.0, as it was at commit cf61e03.

Later versions only read what it made: this script is kept as a record, and is not kept running.

    git worktree add --detach ../before cf61e03
    cp -r tests/made_before ../before/tests/ && cd ../before
    PYTHONPATH=. python tests/made_before/make.py tests/made_before
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from safetensors.torch import save_file
from tests.datasets import write_dataset
from torch import Tensor

import data_modules
from actionprior.batch import Observation
from actionprior.commands import ground as ground_verb
from actionprior.commands.export import export
from actionprior.embodiment import ActionGroup, StateGroup
from actionprior.motion_prior import MotionPriorModule
from actionprior.networks.motion_prior import PriorArchitecture
from actionprior.networks.trunks import SmallTrunk
from actionprior.policy import Policy
from actionprior.sharding import ShardedStrategy
from actionprior.study.finished import Finished, assemble, finished_file
from actionprior.study.grid import Cell, Grid, make_grid
from actionprior.study.measured import Measured, Measurement
from actionprior.study.plan import Study
from actionprior.vla import VLAModule
from data_modules import LeRobotEmbodiment, LeRobotTrajectories, LeRobotVLA
from data_modules.published import copy_folder

CAMERA = "observation.images.front"
CHANGED_AT = 1_700_000_000_000_000_000  # [ns] the dataset's files: a store's name depends on it
URL = "memory://made/before"
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
TRUNK: dict[str, Any] = {"width": 48, "channels": 8, "text_width": 4}
PIXELS = 16


# ---- data ---------------------------------------------------------------------------------


def robot(root: Path, name: str, hz: float, cameras: list[str]) -> LeRobotEmbodiment:
    """A two-joint arm with a gripper; at 5 Hz the dataset is resampled."""
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


def trajectories(root: Path, batch_size: int = 8) -> LeRobotTrajectories:
    """Two robots: one at the dataset's rate, one resampled."""
    robots = [robot(root, "arm", 10, [CAMERA]), robot(root, "slow_arm", 5, [])]
    return LeRobotTrajectories(robots, 4, 4, batch_size, val_fraction=0.34)


def seen(root: Path) -> LeRobotVLA:
    """One robot with a camera."""
    robots = [robot(root, "arm", 10, [CAMERA])]
    return LeRobotVLA(robots, 4, 4, 8, val_fraction=0.34, image_size=PIXELS, video_backend="pyav")


# ---- runs ---------------------------------------------------------------------------------


def stage1(data: LeRobotTrajectories) -> MotionPriorModule:
    robots = [e.to_dict() for e in data.embodiments]
    module = MotionPriorModule(robots, ARCHITECTURE, learning_rate=3e-3, warmup_steps=1)
    for part in module.prior.decoder.modules():  # a fresh decoder's output depends on nothing
        if isinstance(part, torch.nn.Linear) and not part.weight.any():
            torch.nn.init.normal_(part.weight, std=0.2)
    return module


def stage2(data: LeRobotVLA, prior: Path, trunk: SmallTrunk) -> VLAModule:
    robots = [e.to_dict() for e in data.embodiments]
    return VLAModule(
        robots,
        trunk,
        str(prior),
        width=8,
        depth=1,
        heads=2,
        learning_rate=3e-3,
        warmup_steps=1,
        noise_repeats=2,
        decay_fraction=1.0,
    )


def averages() -> EMAWeightAveraging:
    return EMAWeightAveraging(decay=0.5, update_starting_at_step=0, use_buffers=False)


def trainer(steps: int, **settings: Any) -> Trainer:
    quiet = {
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
    return Trainer(max_steps=steps, **{**quiet, **settings})


class SaveAt(Callback):
    """Saves after two of three steps, in the middle of an epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == 2:
            trainer.save_checkpoint(self.path)


def resumed(
    module: LightningModule, data: LightningDataModule, path: Path, **settings: Any
) -> float:
    """The loss of the third step."""
    runner = trainer(3, **settings)
    runner.fit(module, data, ckpt_path=path, weights_only=True)
    return float(runner.callback_metrics["train/loss"])


def validated(module: LightningModule, data: LightningDataModule, path: Path) -> dict[str, float]:
    (metrics,) = trainer(1).validate(module, data, path, verbose=False, weights_only=True)
    return dict(metrics)


# ---- what is expected of them ---------------------------------------------------------------


def fields(prefix: str, batch: Any) -> dict[str, Tensor]:
    """Tensors of a named tuple, those inside another one included."""
    found: dict[str, Tensor] = {}
    for name, value in batch._asdict().items():
        if isinstance(value, Tensor):
            found[f"{prefix}.{name}"] = value.clone()
        elif isinstance(value, tuple):
            found |= fields(f"{prefix}.{name}", value)
    return found


def latents_and_chunks(module: MotionPriorModule, batch: Any, noise: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        latents = module.prior.encode(batch)
    state, rows = batch.state_BHS[:, 0], batch.embodiment_B
    return latents, module.prior.sample_relative(latents, state, rows, noise, 5, "midpoint")


def observations() -> dict[str, Tensor]:
    """Six steps of what a robot senses."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (6, 20, 24, 3), dtype=torch.uint8, generator=generator)
    return {"images": images, "states": torch.rand(6, 3, generator=generator) - 0.5}


def actions(policy: Policy) -> Tensor:
    """What a policy does in these six steps, re-planning every two."""
    policy.reset(seed=3)
    sensed = observations()
    steps = zip(sensed["images"].numpy(), sensed["states"].numpy(), strict=True)
    acted = [
        policy.select_action({"observation.state": state, CAMERA: image, "task": "push the cube"})
        for image, state in steps
    ]
    return torch.from_numpy(np.stack(acted))


def describe_study(grid: Grid) -> dict[str, Any]:
    def key(cell: Cell) -> str:
        numbers = f"seed {cell.seed} demonstrations {cell.demonstrations} steps {cell.steps}"
        return f"{cell.arm} {cell.part} {numbers}"

    cells = {key(cell): cell.id for cell in grid.cells}
    assert len(cells) == len(grid.cells)
    priors = {f"{prior.name} seed {prior.seed}": prior.id for prior in grid.priors}
    return {"trunk": grid.trunk, "priors": priors, "cells": cells}


def recorded_sets(recipe: str) -> list[str]:
    """Folder names of the demonstrations that a recipe of the suite records."""
    facts = yaml.safe_load(Path(recipe).read_text())["data"]
    kind = getattr(data_modules, facts["class_path"].rpartition(".")[2])
    return [Path(e.roots[0]).name for e in kind(**facts["init_args"]).embodiments]


# ---- making ---------------------------------------------------------------------------------


def make_shards(root: Path, path: Path) -> None:
    """Stage 1 on two processes."""
    torch.manual_seed(0)
    data = trajectories(root, 4)
    strategy = ShardedStrategy(sharded_checkpoints=True)
    trainer(3, devices=2, strategy=strategy, callbacks=[SaveAt(path)]).fit(stage1(data), data)


def make_data(out: Path, root: Path, cache: Path) -> dict[str, Any]:
    """The dataset, and what is kept of it in the cache."""
    write_dataset(root, cameras={CAMERA: "video"}, size=(64, 96))
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, ns=(CHANGED_AT, CHANGED_AT))
    shutil.copytree(root, out / "dataset")
    for data in (trajectories(root), seen(root)):
        data.prepare_data()
        data.setup("fit")
    stores = [path for path in (cache / "trajectories").iterdir() if path.is_dir()]
    facts: dict[str, Any] = {"changed_at_ns": CHANGED_AT}
    for path in stores:
        kind = "resampled" if (path / "source_row.safetensors").exists() else "recorded"
        shutil.copytree(path, out / "store" / kind)
        # <dataset>-<hash of folder and columns>-<state of the dataset>-<format>
        facts[f"{kind} store"] = path.name.split("-")[2:]
    (images,) = (path for path in (cache / "images").iterdir() if not path.name.startswith("."))
    shutil.copytree(images, out / "images")
    return facts | {"images": images.name, "copy": {"url": URL, "folder": copy_folder(URL).name}}


def make_trunk(path: Path) -> SmallTrunk:
    ground_verb.SmallTrunk = partial(SmallTrunk, **TRUNK)  # its own size is fixed
    ground_verb.ground(["panda"], path, 2, 8, 4, image_size=PIXELS, processes=1, tasks=["push"])
    return SmallTrunk(image_size=PIXELS, weights=str(path), **TRUNK)


def main(out: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    scratch = Path(tempfile.mkdtemp())
    os.environ["ACTIONPRIOR_CACHE"] = str(scratch / "cache")
    root, kept = scratch / "dataset", out.resolve()
    facts: dict[str, Any] = {"data": make_data(kept, root, scratch / "cache")}
    tensors: dict[str, Tensor] = {}

    prior = kept / "prior.ckpt"
    data = trajectories(root)
    trainer(3, callbacks=[averages(), SaveAt(prior)]).fit(stage1(data), data)
    module = stage1(data)
    facts["prior"] = {"validated": validated(module, trajectories(root), prior)}
    batch = data.windows(False).__getitems__([0, 9, 13, 25, 30, 41])
    noise = torch.randn(len(batch.embodiment_B), 4, 37)
    tensors |= fields("batch", batch) | {"noise": noise}
    tensors["prior.latents"], tensors["prior.chunks"] = latents_and_chunks(module, batch, noise)
    facts["prior"]["resumed"] = resumed(stage1(data), data, prior, callbacks=[averages()])

    shards = kept / "shards.ckpt"
    command = [sys.executable, __file__, str(root), str(shards), "shards"]
    subprocess.run(command, check=True)
    strategy = ShardedStrategy(sharded_checkpoints=True)
    module, data = stage1(data), trajectories(root)
    facts["shards"] = {"resumed": resumed(module, data, shards, strategy=strategy)}

    trunk_file, policy = kept / "trunk.safetensors", kept / "policy.ckpt"
    trunk = make_trunk(trunk_file).eval()
    images = torch.randint(0, 256, (2, 1, 3, 20, 24), dtype=torch.uint8)
    tensors["trunk.images"] = images
    tasks = ["push the cube", "lift it"]
    with torch.no_grad():
        found = trunk(images, torch.ones(2, 1, dtype=torch.bool), tasks)
    tensors["trunk.tokens"] = found.tokens_BNW

    vla = seen(root)
    trainer(3, callbacks=[SaveAt(policy)]).fit(stage2(vla, prior, trunk.train()), vla)
    tensors["shards.latents"], tensors["shards.chunks"] = latents_and_chunks(
        stage2(vla, shards, trunk), batch, noise
    )
    facts["policy"] = {"validated": validated(stage2(vla, policy, trunk), seen(root), policy)}
    facts["policy"]["resumed"] = resumed(stage2(vla, policy, trunk), seen(root), policy)
    window = vla.windows(False).__getitems__([3, 14, 26])
    observation: Observation = window.observation
    tensors |= fields("observation", observation) | {"policy.noise": noise[:3].clone()}
    facts["policy"]["tasks"] = observation.task
    loaded = VLAModule.load(policy)
    with torch.no_grad():
        tensors["policy.latents"] = torch.cat([*loaded.network.latents(observation)])
    tensors["policy.chunks"] = loaded.predict_chunk(observation, noise[:3])
    tensors |= observations()
    tensors["policy.actions"] = actions(Policy.load(policy, execute_steps=2))
    export(policy, kept / "exported", execute_steps=2, dataset=str(root))
    assert torch.equal(actions(Policy.load(kept / "exported")), tensors["policy.actions"])

    save_file(tensors, kept / "expected.safetensors")
    (kept / "expected.json").write_text(json.dumps(facts, indent=1) + "\n")
    make_studies(kept, scratch)
    shutil.rmtree(scratch)


def make_studies(kept: Path, scratch: Path) -> None:
    grids = {p.stem: make_grid(Study.read(str(p))) for p in sorted(Path("recipes").glob("study*"))}
    plan, grid = Study.read("recipes/study_real.yaml"), grids["study_real"]
    cell = grid.cells[0]
    measurements = [
        Measurement(600, "", "", "", 0, float("nan"), 0.25),
        Measurement(
            step=600,
            task="",
            robot="g1_inspire",
            outcomes="",
            first_scene=0,
            latency_ms=float("nan"),
            val_mae=float("nan"),
            group="left_arm",
            unit="rad",
            mae=0.125,
            bend=0.5,
            bend_recorded=0.75,
        ),
    ]
    file = finished_file(scratch, cell)
    file.parent.mkdir(parents=True)
    Finished(Measured(1.5, 2.5, 0.125, measurements), 30.0, "cf61e03").write(file)
    shutil.copy(file, kept / "finished.json")
    rows = [row._asdict() for row in assemble(plan, grid, scratch, [])]
    suite = ("pretrain", "finetune", "pretrain_suite", "finetune_suite")
    facts = {
        "studies": {name: describe_study(grid) for name, grid in grids.items()},
        "finished": {"folder": str(file.parent.relative_to(scratch)), "rows": rows},
        "recorded": {name: recorded_sets(f"recipes/{name}.yaml") for name in suite},
    }
    (kept / "studies.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[3:] == ["shards"]:
        make_shards(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
