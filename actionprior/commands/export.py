"""Write a policy as a folder that actionprior and LeRobot load, with a model card."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from actionprior.checkpoints.folder import CONFIG, WEIGHTS, read_config
from actionprior.commands._parser import call
from actionprior.commands._trunk import trunk_class
from actionprior.errors import UserError, shorten

if TYPE_CHECKING:
    from actionprior.embodiment import Embodiment
    from actionprior.export.model_card import CardFacts
    from actionprior.lerobot.configuration_actionprior import ActionPriorConfig
    from actionprior.lerobot.modeling_actionprior import ActionPriorPolicy

FILES = {
    CONFIG,
    WEIGHTS,
    "policy_preprocessor.json",
    "policy_postprocessor.json",
    "statistics.json",
    "README.md",
}
"""Files of an exported folder."""
GRAPHS = {"see.onnx", "act.onnx"}
"""Files of an exported folder with ONNX graphs, besides ``FILES``."""


def export(
    ckpt_path: Path,
    out: Path,
    embodiment: str = "",
    execute_steps: int = 0,
    delay_steps: int = 0,
    task: str = "",
    dataset: str = "",
    evaluation: Path | None = None,
    license: str | None = None,
    push_to_hub: str | None = None,
    private: bool = False,
    overwrite: bool = False,
    onnx_image_size: tuple[int, int] | dict[str, tuple[int, int]] | None = None,
    trunk: str | None = None,
    guard: Literal["off", "warn", "clip"] = "warn",
    guard_margin: float = 0.1,
) -> None:
    """Write a policy as a folder that actionprior and LeRobot load, with a model card.

    The folder is written completely or not at all. An earlier export at `out` is replaced.

    Args:
        ckpt_path: Stage-2 checkpoint.
        out: Folder to write.
        embodiment: Name of the robot, needed only for a policy of several robots.
        execute_steps: Actions executed per chunk; 0 selects 8, or fewer if the chunk is shorter.
        delay_steps: Actions that the robot executes while the next chunk is computed.
        task: Instruction of the ONNX graphs, and of LeRobot's tools if they have none.
        dataset: Folder of a LeRobot dataset of the robot. LeRobot's tools then use the order of
            its state and action vectors; by default the order in the robot's description.
        evaluation: File results.json for the model card; by default the files of the checkpoint's
            run.
        license: License in the model card, such as apache-2.0.
        push_to_hub: Repository OWNER/NAME on the Hugging Face hub to upload the folder to.
        private: Make the repository on the hub private.
        overwrite: Replace a folder at `out` even if it is not an export.
        onnx_image_size: Size [rows, columns] of the images of ONNX graphs, for all cameras or by
            camera. The graphs are written for the instruction `task`. By default there are none.
        trunk: Class of the policy's trunk, e.g. my.module.MyTrunk; needed only for a trunk of your
            own.
        guard: What happens to actions beyond the recorded limits, and to steps larger than any
            recorded, wherever the folder is loaded.
        guard_margin: Share of the recorded range by which limits and steps may be exceeded.

    Raises:
        UserError: The checkpoint, robot, number of steps or folder cannot be used, or the upload
            failed.
    """
    from actionprior.checkpoints.policy import network_from_checkpoint
    from actionprior.checkpoints.reading import read_checkpoint
    from actionprior.chunk_planner import Planner
    from actionprior.export.model_card import CardFacts, find_evaluations, read_evaluation
    from actionprior.files.folders import atomic_folder
    from actionprior.lerobot.configuration_actionprior import ActionPriorConfig
    from actionprior.lerobot.modeling_actionprior import ActionPriorPolicy

    _check_target(out, ckpt_path, overwrite)
    if onnx_image_size and not task:
        raise UserError("an ONNX graph has one fixed instruction; give it as --task")
    contents = read_checkpoint(ckpt_path)
    network = network_from_checkpoint(contents, ckpt_path, trunk_class(trunk) if trunk else None)
    network.prior.normalizer.require_fitted()
    step = int(contents.get("global_step", 0))
    robot = Planner(network, embodiment).robot
    acting = {
        "execute_steps": execute_steps,
        "delay_steps": delay_steps,
        "guard": guard,
        "guard_margin": guard_margin,
    }
    config = ActionPriorConfig(
        device="cpu",
        actionprior={"embodiment": robot.name, **acting},
        chunk_size=network.chunk_length,
        default_task=task,
        license=license,
        repo_id=push_to_hub,
    )
    if dataset:
        _order_vectors(config, robot, Path(dataset))
    policy = ActionPriorPolicy(config, network=network)
    evaluations = [read_evaluation(evaluation)] if evaluation else find_evaluations(ckpt_path, step)
    chunk = policy.execute_steps, policy.delay_steps
    facts = CardFacts(robot, *chunk, ckpt_path.name, step, license, push_to_hub, evaluations)
    with atomic_folder(out) as folder:
        _write(folder, policy, facts)
        if onnx_image_size:
            from actionprior.export.onnx import export_onnx

            export_onnx(network, folder, network.embodiments.index(robot), task, onnx_image_size)
    if trunk:
        print(f"{out}: lightning serve --ckpt_path {out} --trunk {trunk}")
    else:
        print(
            f"{out}: lerobot-eval --discover_packages_path=actionprior.lerobot "
            f"--policy.path={out} …"
        )
    if push_to_hub:
        print(push(out, push_to_hub, private))


def _order_vectors(config: "ActionPriorConfig", robot: "Embodiment", dataset: Path) -> None:
    """Give LeRobot's tools the order of a dataset's vectors."""
    from actionprior.lerobot.training import dataset_names
    from data_modules.lerobot.source import read_info

    config.describe_robot(robot, *dataset_names(read_info(dataset)["features"], robot))


def _write(folder: Path, policy: "ActionPriorPolicy", facts: "CardFacts") -> None:
    """Write weights, description, processors, statistics and the model card."""
    from actionprior.export.model_card import model_card
    from actionprior.export.statistics import readable_statistics
    from actionprior.lerobot.processor_actionprior import make_actionprior_pre_post_processors

    for processor in make_actionprior_pre_post_processors(policy.config):
        processor.save_pretrained(folder)
    policy.config.device = None  # the loading machine chooses its own
    policy.save_pretrained(folder)
    statistics = json.dumps(readable_statistics(policy.network), indent=2)
    (folder / "statistics.json").write_text(statistics + "\n", "utf-8")
    (folder / "README.md").write_text(model_card(policy.network, facts), "utf-8")


def push(folder: Path, repo_id: str, private: bool) -> str:
    """Upload an exported folder to the hub, and return its address there.

    Args:
        folder: Exported folder.
        repo_id: Repository OWNER/NAME.
        private: Make the repository private.

    Raises:
        UserError: The hub refused the upload or cannot be reached; the folder stays.
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
    """Check that ``out`` may be replaced: it is an export, and nothing in it is still needed."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file; choose another --out")
    names = {path.name for path in out.iterdir()}
    needed = [checkpoint.resolve(), Path.cwd()]
    if any(path.is_relative_to(out.resolve()) for path in needed):
        raise UserError(f"{out} holds the checkpoint or the current folder; choose another --out")
    if overwrite or not names:
        return
    if not names <= FILES | GRAPHS or not _is_export(out):
        other = sorted(names - FILES - GRAPHS)[:3] or sorted(names)[:3]
        raise UserError(
            f"{out} holds files that are no export ({', '.join(other)}); choose another --out, or "
            "replace all of it with --overwrite"
        )


def _is_export(folder: Path) -> bool:
    try:
        read_config(folder)
    except UserError:
        return False
    return True


def main(args: list[str]) -> None:
    """Run the verb: see :func:`export` for its options."""
    call(export, args, "lightning export")
