"""Find out where a policy's error comes from."""

from pathlib import Path
from typing import Any

from actionprior.commands._parser import call
from actionprior.commands._simulator import choose_simulator
from actionprior.commands._trunk import chosen_trunk
from actionprior.data import EmbodiedDataModule
from actionprior.diagnosis.measurement import Diagnosis


def diagnose(
    data: EmbodiedDataModule,
    ckpt_path: str,
    model: dict[str, Any] | None = None,
    trainer: dict[str, Any] | None = None,
    out: Path = Path("outputs/diagnose"),
    windows: int = 256,
    env_ids: list[str] | None = None,
    episodes: int = 5,
    recording_seed: int | None = None,
    open_loop: bool = False,
    trunk: str | None = None,
) -> Diagnosis:
    """Split a policy's error on held-out episodes and in the simulator, and name its causes.

    Prints a table of measurements and one of findings with advice, and writes `diagnosis.json` and
    `report.html`. The recipe is that of Stage 2.

    Args:
        data: Data module of the recipe.
        ckpt_path: Stage-2 checkpoint, or exported folder.
        model: Section `model` of the recipe, which may name the class of the policy's trunk.
        trainer: Section `trainer` of the recipe, whose RolloutEvaluation names the simulator.
        out: Folder of the report.
        windows: Number of held-out and of training windows per robot.
        env_ids: Environments to roll out in, instead of those of the recipe's RolloutEvaluation.
        episodes: Number of rollouts, and of replayed demonstrations, per environment.
        recording_seed: Block of reset seeds that the demonstrations were recorded with, by default
            that of simulated data, else 0.
        open_loop: Use held-out episodes only, even if the recipe names environments.
        trunk: Class of the policy's trunk, e.g. my.module.MyTrunk; needed for a trunk of your own
            that the recipe does not name.

    Raises:
        UserError: The checkpoint, the recipe's data and the environments do not fit together.
    """
    from actionprior.checkpoints.folder import load_policy_network
    from actionprior.checkpoints.match import agree_on_images
    from actionprior.diagnosis.report import write_report
    from actionprior.diagnosis.run import diagnose_policy
    from actionprior.training.embodied_data import check_lengths

    own = None if Path(ckpt_path).is_dir() else model
    network, _ = load_policy_network(ckpt_path, chosen_trunk(trunk, own, ckpt_path))
    check_lengths(network.prior.architecture, data, ckpt_path)
    simulator = None if open_loop else choose_simulator(trainer, env_ids or [], data)
    data.split_checkpoint = str(ckpt_path)
    data.prepare_data()
    data.setup("fit")
    agree_on_images(network, data.image_shape, "the data")
    if recording_seed is None:
        sets = getattr(data, "sets", None)
        recording_seed = sets[0].seed if sets else 0
    results = diagnose_policy(network, data, windows, simulator, episodes, recording_seed)
    write_report(results, out)
    return results


def main(args: list[str]) -> None:
    """Run the verb: see :func:`diagnose` for its options."""
    call(diagnose, args, "lightning diagnose")
