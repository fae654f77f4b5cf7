"""``fit``, ``validate``, ``test`` and ``predict``: the project's only LightningCLI."""

import re
from argparse import Action
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, override

from jsonargparse import DefaultHelpFormatter, Namespace
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from actionprior.checkpoints import keys, resume
from actionprior.checkpoints.atomic import AtomicCheckpointIO
from actionprior.checkpoints.reading import CheckpointError
from actionprior.checkpoints.sharded import read_file_or_folder
from actionprior.commands._parser import OneSentenceErrors
from actionprior.commands._run_faults import as_user_error
from actionprior.embodiment import Embodiment, EmbodimentError
from actionprior.motion_prior import MotionPriorModule
from actionprior.networks.trunks.base import Trunk
from actionprior.training.stop import StopBetweenSteps
from actionprior.vla import VLAModule

DESCRIPTIONS = {
    "fit": (
        "Train the model of a recipe: `lightning fit --config RECIPE [--option value …]`. A recipe "
        "is a YAML file with the model, the data and the trainer's settings; each entry is also an "
        "option, such as --trainer.max_steps 100. "
        "Several --config are merged, and later ones win. `--ckpt_path last` resumes from the "
        "newest checkpoint. `--model.help CLASS` and `--data.help CLASS` list a class's options."
    ),
    "validate": "Compute a checkpoint's metrics on the validation data of a recipe.",
    "test": "Test a checkpoint as a recipe says, for instance with rollouts.",
    "predict": "Run a checkpoint on the prediction data of a recipe.",
}


MOST_CLASSES = 30
"""Longest list of known subclasses in a help text. An argument for any ``nn.Module`` has 350."""


class TrainerHelp(DefaultHelpFormatter):
    """Help texts without long lists of known subclasses."""

    @override
    def _expand_help(self, action: Action) -> str:
        text = super()._expand_help(action)
        listed = re.search(r", known subclasses: [^)]*", text)
        too_long = listed is not None and listed[0].count(",") > MOST_CLASSES
        return text.replace(listed[0], "") if listed and too_long else text


class TrainerParser(OneSentenceErrors, LightningArgumentParser):
    """LightningCLI's parser, which reports a wrong command line in one sentence."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  the parser's own
        super().__init__(*args, **{"formatter_class": TrainerHelp, **kwargs})


class TrainerCLI(LightningCLI):
    """LightningCLI that passes the data's robots to the model and reads checkpoints safely."""

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        # Plain dicts, so that the checkpoint's hyper-parameters load with weights_only=True.
        # The source is `data` itself: if `data.embodiments` did not exist, jsonargparse would skip
        # the link silently and the model would get None.
        parser.link_arguments(
            "data",
            "model.init_args.embodiments",
            compute_fn=plain_embodiments,
            apply_on="instantiate",
        )

    @override
    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        # No option turns the safe reading of checkpoints off.
        return {verb: skip | {"weights_only"} for verb, skip in LightningCLI.subcommands().items()}

    @override
    def _parse_ckpt_path(self) -> None:
        # Lightning's method lets a checkpoint's hyper-parameters override explicit flags, and
        # imports the class that the checkpoint names.
        pass

    @override
    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand] if self.subcommand else self.config
        if config.get("ckpt_path") == resume.LAST:
            config["ckpt_path"] = self._last(config)
        # A Stage-2 checkpoint is complete: prior and trunk come from it, not from the files that
        # the recipe still names and that may be deleted.
        settings, path = config.model.get("init_args") or {}, config.get("ckpt_path") or ""
        if "prior_checkpoint" not in settings or not path or not Path(path).exists():
            return
        settings["prior_checkpoint"] = str(path)
        recorded = (
            read_file_or_folder(path, weights=False)
            .get(keys.POLICY, {})
            .get("trunk", {})
            .get("init_args", {})
        )
        trunk = settings["trunk"]
        if arguments := trunk.get("init_args"):
            found = _import_named(trunk.class_path)  # a class, or a function that returns a trunk
            kind = found if isinstance(found, type) and issubclass(found, Trunk) else Trunk
            _assign(arguments, kind.args_for_checkpoint(arguments.as_dict(), recorded))

    def _last(self, config: Namespace) -> str | None:
        model = _import_named(config.model.class_path)
        stage = 2 if issubclass(model, VLAModule) else int(issubclass(model, MotionPriorModule))
        path = resume.newest(resume.folders(config.trainer), stage)
        if path is None and self.subcommand != "fit":
            raise CheckpointError(
                f"there is no checkpoint to {self.subcommand}; name one with --ckpt_path"
            )
        return None if path is None else str(path)

    @override
    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        # Set here rather than among the default plugins, so that a recipe's own plugins and
        # strategies that write checkpoints themselves stay unchanged.
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        return trainer


def _import_named(class_path: str) -> Any:  # noqa: ANN401  whatever the user's recipe names
    """Return the object that a recipe's class path names; parsing has already imported it."""
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)


def _assign(arguments: Namespace, values: Mapping[str, Any]) -> None:
    """Set those arguments whose values differ; nested arguments keep their type."""
    for name, value in values.items():
        inner = arguments.get(name)
        if isinstance(inner, Namespace) and isinstance(value, Mapping):
            _assign(inner, value)
        elif inner != value:
            arguments[name] = value


def plain_embodiments(data: LightningDataModule) -> list[dict[str, Any]]:
    """Return the DataModule's robots as plain data, for the model's hyper-parameters.

    Raises:
        EmbodimentError: The DataModule has no embodiments.
    """
    embodiments: list[Embodiment] | None = getattr(data, "embodiments", None)
    if not embodiments:
        raise EmbodimentError(
            f"{type(data).__name__} has no embodiments; expected a list of Embodiment, "
            "known when it is constructed"
        )
    return [embodiment.to_dict() for embodiment in embodiments]


def main(args: list[str] | None) -> TrainerCLI:
    """Parse a command line and run the trainer's verb.

    Args:
        args: Words of the command line; None reads ``sys.argv``.

    Raises:
        UserError: The input is wrong, or something around the run failed, such as a full disk or a
            killed loader process.
    """
    try:
        return _run(args)
    except Exception as error:
        if (user_error := as_user_error(error)) is not None:
            raise user_error from error
        raise


def _run(args: list[str] | None) -> TrainerCLI:
    return TrainerCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        parser_class=TrainerParser,
        parser_kwargs={
            "prog": "lightning",
            **{verb: {"description": text} for verb, text in DESCRIPTIONS.items()},
        },
        # Modules configure their own optimisers.
        auto_configure_optimizers=False,
        # A resumed or requeued job writes config.yaml a second time.
        save_config_kwargs={"overwrite": True},
        seed_everything_default=0,
        trainer_defaults={
            "default_root_dir": "outputs",
            # The DataModules shard themselves, so that a resumed run sees the same data.
            "use_distributed_sampler": False,
            "callbacks": StopBetweenSteps(),
        },
        args=args,
    )
