"""Draw what trained models do: the map of a prior's latents, and rollouts' paths.

For the page of a study, into the folder of its figures::

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
from actionprior.commands import _trunk
from actionprior.commands._recipe import data_parser, embodied_data
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
from actionprior.training.stage import check_lengths
from actionprior.vla import VLAModule

CONTROL_SEED = 0
"""Of the untrained encoder's weights."""


def map_latents(data: EmbodiedDataModule, prior: str, chunks: int = 1500) -> LatentMap:
    """Encode held-out chunks with a prior, and with an untrained one of its architecture.

    Args:
        data: of Stage 1; its robots are the simulated suite's.
        prior: checkpoint of either stage.
        chunks: about how many, evenly spaced over all that lie within their episode.

    Raises:
        CheckpointError: missing, damaged, or of other robots.
        UserError: chunks of another length than the prior's, too few of them are held out, or
            the robots' states do not tell what a chunk does.
    """
    robots = data.embodiments
    trained = load_starting_prior(prior, robots)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(CONTROL_SEED)
        untrained = load_starting_prior(prior, robots, use_prior=False)
    check_lengths(trained.architecture, data)
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
    ours = batch._replace(embodiment_B=rows_N)
    embedded = [embed(_encode(p, ours), motion_N, episode_N) for p in (trained, untrained)]
    return LatentMap([robot.name for robot in robots], robot_N, motion_N, *embedded)


def _held_out(data: EmbodiedDataModule, chunks: int) -> Tensor:
    """First frames (N,) of held-out chunks that end within their episode."""
    store, frames_N = data.frames.store, data.frames.val.frames()
    episode_N = np.searchsorted(store.stop_E, frames_N, side="right")
    whole_N = frames_N[frames_N + data.chunk_length <= store.stop_E[episode_N]]
    if len(whole_N) < 2 or chunks < 2:
        raise UserError(
            f"found {len(whole_N)} held-out chunks, of which {chunks} are asked for; expected at "
            "least 2 (data.val_fraction, --chunks)"
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
        policies: checkpoints of Stage 2, by ``prior`` and ``no_prior``.
        env_id: e.g. ``actionprior/PandaPlace-v0``.
        scenes: how many.
        seed: of the first scene; by default the first that evaluations use.
        execute_steps: actions executed of a chunk before the policy re-plans.
        trunks: Class of each policy's trunk, if it is none of actionprior's.

    Raises:
        CheckpointError: missing, damaged, or not of Stage 2.
        UserError: the task is not the suite's, PyBullet is missing, or a policy does not fit it.
    """
    if env_id not in ENV_IDS:
        raise UserError(f"env_id {env_id!r} is not the suite's; choose one of {list(ENV_IDS)}")
    if scenes < 1:
        raise UserError(f"scenes is {scenes}, expected at least 1")
    loaded = {arm: VLAModule.load(path, (trunks or {}).get(arm)) for arm, path in policies.items()}
    env = gymnasium.make(env_id, images=False).unwrapped
    assert isinstance(env, TabletopEnv)  # the suite's ids are
    try:
        paths = {
            arm: _policy_paths(policy, env, env_id, scenes, seed, execute_steps)
            for arm, policy in loaded.items()
        }
        played = []
        for k in range(scenes):
            expert = expert_path(env, seed + k)
            assert env.scene is not None  # after a reset
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


def main(args: list[str]) -> None:
    """Run the verb: ``lightning illustrate [--config RECIPE --prior …] [--policy …] [--out …]``.

    Writes ``z_map`` and ``trajectories`` as SVG and PNG, and prints a line ``RESULT {json}``.

    Raises:
        UserError: there is nothing to draw, or what ``map_latents`` and ``play_scenes`` refuse.
    """
    parser = data_parser("lightning illustrate")
    parser.add_argument("--prior", type=str | None, help="draws z_map, of the recipe's data")
    parser.add_argument("--chunks", type=int, default=1500, help="of z_map")
    parser.add_argument("--policy", type=str | None, help="with the prior; draws trajectories")
    parser.add_argument("--policy_without", type=str | None, help="one without, beside it")
    parser.add_argument("--env_id", type=str, default="actionprior/PandaPlace-v0")
    parser.add_argument("--scenes", type=int, default=4, help="of trajectories")
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED, help="first scene's")
    parser.add_argument("--execute_steps", type=int, default=2, help="of a chunk")
    parser.add_argument("--out", type=str, default="outputs/illustrate", help="folder")
    parser.add_argument("--trunk", type=str | None, help=_trunk.HELP)
    options = parser.instantiate(parser.parse_args(args))
    arms = {"prior": options["policy"], "no_prior": options["policy_without"]}
    policies = {arm: path for arm, path in arms.items() if path}
    if not options["prior"] and not policies:
        raise UserError("illustrate has nothing to draw; give --prior or --policy")
    out, told = Path(options["out"]), {}
    if options["prior"]:
        found = map_latents(
            embodied_data(options, "illustrate"), options["prior"], options["chunks"]
        )
        draw_z_map(found, out)
        told["z_map"] = _measured(found)
    if policies:
        played = play_scenes(
            policies,
            options["env_id"],
            options["scenes"],
            options["seed"],
            options["execute_steps"],
            {
                arm: _trunk.chosen_trunk(options["trunk"], options["model"], path)
                for arm, path in policies.items()
            },
        )
        draw_trajectories(options["env_id"], played, out)
        told["trajectories"] = _outcomes(played, options["env_id"])
    print("RESULT " + json.dumps(told), flush=True)


def _measured(found: LatentMap) -> dict[str, Any]:

    counts = np.bincount(found.motion_N, minlength=len(MOTIONS)).tolist()
    return {
        "chunks": dict(zip(MOTIONS, counts, strict=True)),
        "neighbour_accuracy": round(found.trained.accuracy, 4),
        "neighbour_accuracy_untrained": round(found.untrained.accuracy, 4),
        "largest_share": round(found.largest_share, 4),
        "variance": [round(float(x), 4) for x in found.trained.variance_2],
    }


def _outcomes(played: list[PlayedScene], env_id: str) -> dict[str, Any]:
    successes = {arm: [one.paths[arm].success for one in played] for arm in played[0].paths}
    return {
        "env_id": env_id,
        "seeds": [one.seed for one in played],
        "expert": [one.expert.success for one in played],
        **successes,
    }
