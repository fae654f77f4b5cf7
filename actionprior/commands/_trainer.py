"""``fit``, ``validate``, ``test`` and ``predict``: the project's only LightningCLI."""

import re
from argparse import Action
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, override

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.seed import isolate_rng

from actionprior.checkpoints import resume
from actionprior.checkpoints.atomic import AtomicCheckpointIO
from actionprior.checkpoints.policy import recorded_trunk
from actionprior.checkpoints.reading import CheckpointError
from actionprior.checkpoints.sharded import read_file_or_folder
from actionprior.commands._parser import OneSentenceErrors
from actionprior.commands._run_faults import as_user_error
from actionprior.data import EmbodiedDataModule
from actionprior.embodiment import Embodiment, EmbodimentError
from actionprior.errors import UserError
from actionprior.motion_prior import MotionPriorModule
from actionprior.networks.trunks.base import Trunk
from actionprior.training.quiet import quiet
from actionprior.training.step_bar import StepBar
from actionprior.training.stop import EXIT_CODES, INTERRUPT, StopBetweenSteps
from actionprior.vla import VLAModule

DESCRIPTIONS = {
    "fit": (
        "Train the model of a recipe: `lightning fit --config RECIPE [--option value …]`. A recipe "
        "is a YAML file with the model, the data and the trainer's settings; each entry is also an "
        "option, such as --trainer.max_steps 100. "
        "Several --config are merged, and later ones win. `--ckpt_path last` resumes from the "
        "checkpoint with the most steps. `--model.help CLASS` and `--data.help CLASS` list a "
        "class's options."
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
        _check_order(config)
        if config.trainer.get("val_check_interval") == 0:
            raise UserError(
                "trainer.val_check_interval is 0, expected a number of steps, or a share of an "
                "epoch; trainer.limit_val_batches 0 turns validation off"
            )
        if config.get("ckpt_path") == resume.LAST:
            config["ckpt_path"] = self._last(config)
        # A checkpoint is complete: prior and trunk come from it, not from the files that the recipe
        # still names and that may be deleted.
        settings, path = config.model.get("init_args") or {}, config.get("ckpt_path") or ""
        _require_prior(settings, str(path))
        trunk = settings.get("trunk")
        continued = "prior_checkpoint" in settings and (trunk or settings["prior_checkpoint"])
        if not continued or not path or not Path(path).exists():
            return
        settings["prior_checkpoint"] = str(path)
        if trunk is None:  # a Stage 1 that started from another prior
            return
        checkpoint = read_file_or_folder(path, weights=False)
        recorded = recorded_trunk(checkpoint, path).get("init_args", {})
        if arguments := trunk.get("init_args"):
            found = _import_named(trunk.class_path)  # a class, or a function that returns a trunk
            kind = found if isinstance(found, type) and issubclass(found, Trunk) else Trunk
            _assign(arguments, kind.args_for_checkpoint(arguments.as_dict(), recorded))

    @override
    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        config = self.config[self.subcommand] if self.subcommand else self.config
        if isinstance(self.datamodule, EmbodiedDataModule):
            prior = (config.model.get("init_args") or {}).get("prior_checkpoint")
            self.datamodule.split_checkpoint = str(config.get("ckpt_path") or prior or "")

    def _last(self, config: Namespace) -> str | None:
        model = _import_named(config.model.class_path)
        stage = 2 if issubclass(model, VLAModule) else int(issubclass(model, MotionPriorModule))
        robots = _robots(config.data) if stage else []
        continued = bool((config.model.get("init_args") or {}).get("prior_checkpoint"))
        path = resume.furthest(
            resume.folders(config.trainer), stage, robots, more=stage == 1 and continued
        )
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
        named = self._get(self.config_init, "trainer", default={}).get("callbacks") or []
        of_recipe = list(named) if isinstance(named, list) else [named]  # the trainer adds to it
        trainer = super().instantiate_trainer(**kwargs)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # untyped
        for place, callback in enumerate(callbacks):
            default = type(callback) in (RichProgressBar, TQDMProgressBar)
            if default and callback not in of_recipe:
                callbacks[place] = StepBar()
        # Set here rather than among the default plugins, so that a recipe's own plugins and
        # strategies that write checkpoints themselves stay unchanged.
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        return trainer


def _robots(data: Namespace) -> list[str]:
    """Return the names of the robots of a recipe's ``data``, which is built for this only."""
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data")
    section: Any = Namespace  # jsonargparse does not type its constructor
    with isolate_rng():
        built = parser.instantiate_classes(section(data=data)).data
    return [robot["name"] for robot in plain_embodiments(built)]


def _check_order(config: Namespace) -> None:
    """Refuse a Stage-1 recipe after a Stage-2 one, which would drop what the latter says.

    Raises:
        UserError: The recipes are in this order.
    """
    if not config.model.class_path.endswith(MotionPriorModule.__name__):
        return
    for path in config.get("config") or []:
        content = yaml.safe_load(path.get_content())
        model = content.get("model") if isinstance(content, dict) else None
        name = model.get("class_path") if isinstance(model, dict) else None
        if str(name).endswith(VLAModule.__name__):
            raise UserError(
                f"{path} is of Stage 2, and the recipe of Stage 1 after it would win; give "
                f"--config {path} last to train Stage 2, or leave it out to train Stage 1"
            )


def _require_prior(settings: Mapping[str, Any], checkpoint: str) -> None:
    """Refuse to train or run a policy from fresh weights if that is not asked for.

    A stacked Stage-1 recipe brings an ``architecture``, with which the module itself could start.

    Raises:
        UserError: There is neither a prior, nor a checkpoint, nor ``use_prior: false``.
    """
    given = settings.get("prior_checkpoint", "of a module without this argument")
    if settings.get("use_prior") and not given and not checkpoint:
        raise UserError(
            "no motion prior: give --model.prior_checkpoint PRIOR.ckpt (model.init_args."
            "prior_checkpoint, a Stage-1 checkpoint), or --model.use_prior false to train the same "
            "policy without one"
        )


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
        SystemExit: With code 130 after Ctrl-C.
    """
    try:
        with quiet():
            return _run(args)
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # Lightning exits with code 1
            raise SystemExit(EXIT_CODES[INTERRUPT]) from None
        raise
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
            "enable_model_summary": False,  # a run reports its parameters
        },
        args=args,
    )
