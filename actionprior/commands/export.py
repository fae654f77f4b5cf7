"""Write a policy as a folder that actionprior and LeRobot load, and that a hub shows."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from actionprior.checkpoints.folder import CONFIG, WEIGHTS, read_config
from actionprior.errors import UserError, shorten

if TYPE_CHECKING:
    from actionprior.networks.trunks.base import Trunk

FILES = {
    CONFIG,
    WEIGHTS,
    "policy_preprocessor.json",
    "policy_postprocessor.json",
    "statistics.json",
    "README.md",
}
"""What an exported folder holds, and nothing else but these two where they are asked for:"""
GRAPHS = {"see.onnx", "act.onnx"}


def export(
    checkpoint: Path,
    out: Path,
    embodiment: str = "",
    execute_steps: int = 0,
    delay_steps: int = 0,
    task: str = "",
    dataset: str = "",
    evaluation: Path | None = None,
    license: str | None = None,
    repo_id: str | None = None,
    overwrite: bool = False,
    onnx_image_size: tuple[int, int] | None = None,
    trunk: "type[Trunk] | None" = None,
) -> None:
    """Write the folder; it appears whole or not at all.

    Args:
        checkpoint: of Stage 2.
        out: the folder; an earlier export there is replaced.
        embodiment: the robot that it is for; empty: the only one.
        execute_steps: actions of a chunk before the next; 0: 8, or what fits the chunk.
        delay_steps: actions that are executed while a chunk is planned.
        task: the instruction where LeRobot gives none.
        dataset: folder of a LeRobot dataset of the robot, whose vectors' order LeRobot's tools
            use; empty: the order of the robot's description.
        evaluation: a ``results.json`` for the card; None: those of the checkpoint's own run.
        license: for the card, as the hub abbreviates it.
        repo_id: where it will lie on the hub, for the card.
        overwrite: replace whatever stands at ``out``.
        onnx_image_size: rows and columns of the images that ONNX graphs take, for the
            instruction ``task``; None: no graphs.
        trunk: Class of the policy's trunk, if it is none of actionprior's.

    Raises:
        UserError: a checkpoint, robot, number of steps or folder that cannot be used.
    """
    from actionprior.checkpoints.policy import network_from_checkpoint
    from actionprior.checkpoints.reading import read_checkpoint
    from actionprior.chunk_planner import Planner
    from actionprior.export.model_card import (
        Facts,
        find_evaluations,
        model_card,
        read_evaluation,
    )
    from actionprior.export.statistics import readable_statistics
    from actionprior.files.folders import atomic_folder
    from actionprior.lerobot.configuration_actionprior import ActionPriorConfig
    from actionprior.lerobot.modeling_actionprior import ActionPriorPolicy
    from actionprior.lerobot.processor_actionprior import make_actionprior_pre_post_processors

    _check_target(out, checkpoint, overwrite)
    if onnx_image_size and not task:
        raise UserError("an ONNX graph is of one instruction; give it as --task")
    contents = read_checkpoint(checkpoint)
    network, step = (
        network_from_checkpoint(contents, checkpoint, trunk),
        int(contents.get("global_step", 0)),
    )
    network.prior.normalizer.require_fitted()
    robot = Planner(network, embodiment).robot
    told = {"embodiment": robot.name, "execute_steps": execute_steps, "delay_steps": delay_steps}
    config = ActionPriorConfig(
        device="cpu",
        actionprior=told,
        chunk_size=network.chunk_length,
        default_task=task,
        license=license,
        repo_id=repo_id,
    )
    if dataset:
        from actionprior.lerobot.training import dataset_names
        from data_modules.lerobot.source import read_info

        features = read_info(Path(dataset))["features"]
        config.describe_robot(robot, *dataset_names(features, robot))
    policy = ActionPriorPolicy(config, network=network)
    found = [read_evaluation(evaluation)] if evaluation else find_evaluations(checkpoint, step)
    steps = policy.execute_steps, policy.delay_steps
    facts = Facts(robot, *steps, checkpoint.name, step, license, repo_id, found)
    with atomic_folder(out) as folder:
        for processor in make_actionprior_pre_post_processors(config):
            processor.save_pretrained(folder)
        config.device = None  # whoever loads it has one of their own
        policy.save_pretrained(folder)
        statistics = json.dumps(readable_statistics(network), indent=2)
        (folder / "statistics.json").write_text(statistics + "\n", "utf-8")
        (folder / "README.md").write_text(model_card(network, facts), "utf-8")
        if onnx_image_size:
            from actionprior.export.onnx import export_onnx

            export_onnx(network, folder, network.embodiments.index(robot), task, onnx_image_size)


def push(folder: Path, repo_id: str, private: bool) -> str:
    """Upload an exported folder to the hub; gives its address there.

    Raises:
        UserError: the hub refused or was not reached; the folder stays.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=sorted(FILES | GRAPHS),
            commit_message="Upload a policy of actionprior",
        )
    except (HTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        raise UserError(
            f"{folder} is written, but {repo_id!r} was not uploaded ({shorten(error)}); "
            f"try again with `hf upload {repo_id} {folder}`"
        ) from None
    return str(commit.repo_url)


def _check_target(out: Path, checkpoint: Path, overwrite: bool) -> None:
    """Refuse to replace what is not ours, and what is still needed."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file; choose another --out")
    names = {path.name for path in out.iterdir()}
    needed = [checkpoint.resolve(), Path.cwd()]
    if any(path.is_relative_to(out.resolve()) for path in needed):
        raise UserError(f"{out} holds the checkpoint or is where you are; choose another --out")
    if overwrite or not names:
        return
    if not names <= FILES | GRAPHS or not _is_export(out):
        other = sorted(names - FILES - GRAPHS)[:3] or sorted(names)[:3]
        raise UserError(
            f"{out} holds what was not exported ({', '.join(other)}); choose another --out, or "
            "replace all of it with --overwrite true"
        )


def _is_export(folder: Path) -> bool:
    try:
        read_config(folder)
    except UserError:
        return False
    return True


def main(args: list[str]) -> None:
    """Run the verb: ``lightning export --ckpt_path POLICY.ckpt --out DIR``."""
    from jsonargparse import ArgumentParser

    from actionprior.commands import _trunk

    parser = ArgumentParser(prog="lightning export")
    parser.add_argument("--ckpt_path", type=str, required=True, help="a checkpoint of Stage 2")
    parser.add_argument("--out", type=str, required=True, help="folder to write")
    parser.add_argument("--embodiment", type=str, default="", help="of several robots, which")
    parser.add_argument("--execute_steps", type=int, default=0, help="of a chunk; 0: 8 if it fits")
    parser.add_argument("--delay_steps", type=int, default=0, help="executed while one is planned")
    parser.add_argument("--task", type=str, default="", help="instruction where LeRobot has none")
    parser.add_argument("--dataset", type=str, default="", help="whose vectors' order LeRobot uses")
    parser.add_argument("--evaluation", type=str | None, help="results.json for the model card")
    parser.add_argument("--license", type=str | None, help="for the model card, e.g. apache-2.0")
    parser.add_argument("--push_to_hub", type=str | None, help="OWNER/NAME to upload it to")
    parser.add_argument("--private", type=bool, default=False, help="on the hub")
    parser.add_argument("--overwrite", type=bool, default=False, help="whatever stands at --out")
    parser.add_argument(
        "--onnx_image_size",
        type=tuple[int, int] | None,
        help="[rows, columns]: ONNX graphs, too, of the instruction --task",
    )
    parser.add_argument("--trunk", type=str | None, help=_trunk.HELP)
    given = parser.parse_args(args)
    out = Path(given["out"])
    export(
        Path(given["ckpt_path"]),
        out,
        given["embodiment"],
        given["execute_steps"],
        given["delay_steps"],
        given["task"],
        given["dataset"],
        Path(given["evaluation"]) if given["evaluation"] else None,
        given["license"],
        given["push_to_hub"],
        given["overwrite"],
        given["onnx_image_size"],
        _trunk.trunk_class(given["trunk"]) if given["trunk"] else None,
    )
    if given["trunk"]:
        print(f"{out}: lightning serve --ckpt_path {out} --trunk {given['trunk']}")
    else:
        print(
            f"{out}: lerobot-eval --discover_packages_path=actionprior.lerobot "
            f"--policy.path={out} …"
        )
    if given["push_to_hub"]:
        print(push(out, given["push_to_hub"], given["private"]))
