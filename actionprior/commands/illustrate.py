"""Draw a prior's latent space and the paths of rollouts, for the page of a study.

Write into the folder of the study's figures::

    lightning illustrate --config recipes/pretrain.yaml --prior PRIOR.ckpt --out docs/study
    lightning illustrate --policy WITH.ckpt --policy_without WITHOUT.ckpt --out docs/study
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from actionprior.batch import TrajectoryBatch
from actionprior.checkpoints.prior import load_starting_prior
from actionprior.commands._parser import call, require_data
from actionprior.commands._trunk import chosen_trunk
from actionprior.data import EmbodiedDataModule
from actionprior.embodiment import FloatArray
from actionprior.envs import ENV_IDS, EVALUATION_SEED
from actionprior.envs.env import TabletopEnv
from actionprior.envs.recording import CAMERA_KEY
from actionprior.errors import UserError
from actionprior.networks.motion_prior import MotionPrior
from actionprior.networks.trunks.base import Trunk
from actionprior.rollout import ObservationMap, rollout
from actionprior.study.illustrations import PlayedScene, draw_trajectories, draw_z_map
from actionprior.study.latents import MOTIONS, LatentMap, embed, motion_types
from actionprior.study.tip_paths import TipPath, expert_path, table_tips
from actionprior.training.embodied_data import check_lengths
from actionprior.vla import VLAModule

CONTROL_SEED = 0
"""Seed of the untrained encoder's weights."""


def map_latents(data: EmbodiedDataModule, prior: str, chunks: int = 1500) -> LatentMap:
    """Encode held-out chunks with a prior, and with an untrained prior of its architecture.

    Args:
        data: Data module of Stage 1 with the simulated suite's robots.
        prior: Checkpoint of either stage.
        chunks: Approximate number of chunks, evenly spaced over those that end within their
            episode.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, or has other robots.
        UserError: The chunks' length differs from the prior's, too few are held out, or the motion
            of a chunk cannot be read from the robots' states.
    """
    robots = data.embodiments
    trained = load_starting_prior(prior, robots)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(CONTROL_SEED)
        untrained = load_starting_prior(prior, robots, use_prior=False)
    check_lengths(trained.architecture, data, prior)
    data.split_checkpoint = str(prior)
    data.prepare_data()
    data.setup("fit")
    frames_N = _held_out(data, chunks)
    batch = data.frames.store.future(frames_N, data.chunk_length)
    robot_N, state_NHS = batch.embodiment_B.numpy(), batch.state_BHS.numpy()
    motion_N = np.zeros(len(robot_N), dtype=np.int64)
    for index, robot in enumerate(robots):
        rows = robot_N == index
        motion_N[rows] = motion_types(robot, state_NHS[rows])
    episode_N = np.searchsorted(data.frames.store.stop_E, frames_N.numpy(), side="right")
    rows_N = torch.tensor([trained.index_of(robot.name) for robot in robots])[batch.embodiment_B]
    mapped = batch._replace(embodiment_B=rows_N)
    embedded = [embed(_encode(p, mapped), motion_N, episode_N) for p in (trained, untrained)]
    return LatentMap([robot.name for robot in robots], robot_N, motion_N, *embedded)


def _held_out(data: EmbodiedDataModule, chunks: int) -> Tensor:
    """Return the first frames (N,) of held-out chunks that end within their episode."""
    store, frames_N = data.frames.store, data.frames.val.frames()
    episode_N = np.searchsorted(store.stop_E, frames_N, side="right")
    whole_N = frames_N[frames_N + data.chunk_length <= store.stop_E[episode_N]]
    if len(whole_N) < 2 or chunks < 2:
        raise UserError(
            f"found {len(whole_N)} held-out chunks, and --chunks is {chunks}; expected at least 2 "
            "of both (data.val_fraction, --chunks)"
        )
    chosen = np.linspace(0, len(whole_N) - 1, min(chunks, len(whole_N))).round().astype(int)
    return torch.from_numpy(whole_N[chosen])


def _encode(prior: MotionPrior, batch: TrajectoryBatch) -> FloatArray:
    with torch.no_grad():
        z_NZ: FloatArray = prior.eval().encode(batch).numpy()
    return z_NZ


def play_scenes(
    policies: Mapping[str, str],
    env_id: str,
    scenes: int = 4,
    seed: int = EVALUATION_SEED,
    execute_steps: int = 2,
    trunks: Mapping[str, type[Trunk] | None] | None = None,
) -> list[PlayedScene]:
    """Let the expert and policies play the same scenes of one of the suite's tasks.

    Args:
        policies: Stage-2 checkpoints, under the keys ``prior`` and ``no_prior``.
        env_id: Environment of the suite, e.g. ``actionprior/PandaPlace-v0``.
        scenes: Number of scenes.
        seed: Seed of the first scene, by default that of evaluations.
        execute_steps: Actions executed per chunk.
        trunks: Class of each policy's trunk, or None if the trunk is part of actionprior.

    Raises:
        CheckpointError: A checkpoint is missing, damaged, or not of Stage 2.
        UserError: The task is not in the suite, PyBullet is missing, or a policy does not fit.
    """
    if env_id not in ENV_IDS:
        raise UserError(f"env_id {env_id!r} is not the suite's; choose one of {list(ENV_IDS)}")
    if scenes < 1:
        raise UserError(f"scenes is {scenes}, expected at least 1")
    loaded = {arm: VLAModule.load(path, (trunks or {}).get(arm)) for arm, path in policies.items()}
    env = gymnasium.make(env_id, images=False).unwrapped
    assert isinstance(env, TabletopEnv)  # every id of the suite makes one
    try:
        paths = {
            arm: _policy_paths(policy, env, env_id, scenes, seed, execute_steps)
            for arm, policy in loaded.items()
        }
        played = []
        for k in range(scenes):
            expert = expert_path(env, seed + k)
            assert env.scene is not None  # expert_path has reset the environment
            mine = {arm: of_scene[k] for arm, of_scene in paths.items()}
            played.append(PlayedScene(seed + k, env.scene, expert, mine))
        return played
    finally:
        env.close()


def _policy_paths(
    policy: VLAModule,
    env: TabletopEnv,
    env_id: str,
    scenes: int,
    seed: int,
    execute_steps: int,
) -> list[TipPath]:
    result = rollout(
        policy,
        env_id,
        episodes=scenes,
        observation_map=ObservationMap(images={CAMERA_KEY: "image"}),
        embodiment=env.robot_name,
        seed=seed,
        num_envs=scenes,
        execute_steps=execute_steps,
    )
    return [TipPath(table_tips(env.robot, e.state_Ts), e.success) for e in result.episodes]


def illustrate(
    data: EmbodiedDataModule | None = None,
    model: dict[str, Any] | None = None,
    prior: str | None = None,
    chunks: int = 1500,
    policy: str | None = None,
    policy_without: str | None = None,
    env_id: str = "actionprior/PandaPlace-v0",
    scenes: int = 4,
    seed: int = EVALUATION_SEED,
    execute_steps: int = 2,
    out: Path = Path("outputs/illustrate"),
    trunk: str | None = None,
) -> None:
    """Draw the latent space of a prior, and the paths of policies in the same scenes.

    With a prior it writes `z_map`, with a policy `trajectories`, both as SVG and PNG. The last line
    is `RESULT` and JSON.

    Args:
        data: Data module of the recipe, needed for `prior`.
        model: Section `model` of the recipe, which may name the class of the policies' trunk.
        prior: Checkpoint of either stage, whose latents of the recipe's held-out chunks are drawn.
        chunks: Number of chunks in the map of latents.
        policy: Stage-2 checkpoint with the prior, whose paths are drawn.
        policy_without: Stage-2 checkpoint without the prior, drawn beside the other.
        env_id: Environment of the suite for the paths.
        scenes: Number of scenes.
        seed: Seed of the first scene.
        execute_steps: Actions executed per chunk.
        out: Folder to write.
        trunk: Class of the policies' trunk, e.g. my.module.MyTrunk; needed for a trunk of your own
            that the recipe does not name.

    Raises:
        UserError: There is nothing to draw, or ``map_latents`` or ``play_scenes`` refuses.
    """
    arms = {"prior": policy, "no_prior": policy_without}
    policies = {arm: path for arm, path in arms.items() if path}
    if not prior and not policies:
        raise UserError("illustrate has nothing to draw; give --prior or --policy")
    result = {}
    if prior:
        require_data(data, EmbodiedDataModule, "illustrate")
        assert data is not None
        latents = map_latents(data, prior, chunks)
        draw_z_map(latents, out)
        result["z_map"] = _map_results(latents)
    if policies:
        trunks = {arm: chosen_trunk(trunk, model, path) for arm, path in policies.items()}
        played = play_scenes(policies, env_id, scenes, seed, execute_steps, trunks)
        draw_trajectories(env_id, played, out)
        result["trajectories"] = _scene_results(played, env_id)
    print("RESULT " + json.dumps(result), flush=True)


def main(args: list[str]) -> None:
    """Run the verb: see :func:`illustrate` for its options."""
    call(illustrate, args, "lightning illustrate")


def _map_results(found: LatentMap) -> dict[str, Any]:
    counts = np.bincount(found.motion_N, minlength=len(MOTIONS)).tolist()
    return {
        "chunks": dict(zip(MOTIONS, counts, strict=True)),
        "neighbour_accuracy": round(found.trained.accuracy, 4),
        "neighbour_accuracy_untrained": round(found.untrained.accuracy, 4),
        "largest_share": round(found.largest_share, 4),
        "variance": [round(float(x), 4) for x in found.trained.variance_2],
    }


def _scene_results(played: list[PlayedScene], env_id: str) -> dict[str, Any]:
    successes = {arm: [scene.paths[arm].success for scene in played] for arm in played[0].paths}
    return {
        "env_id": env_id,
        "seeds": [scene.seed for scene in played],
        "expert": [scene.expert.success for scene in played],
        **successes,
    }
