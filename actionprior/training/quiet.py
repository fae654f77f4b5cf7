"""Hide messages of Lightning that say nothing to a user of this project's command line."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed")

INFOS = (
    "💡 Tip",
    "Found current_model_state in the checkpoint",  # the averages are restored
    "GPU available",  # a run reports its device
    "HPU available",
    "\nDetected KeyboardInterrupt",  # ``StopBetweenSteps`` says what is left behind
    "Restored all states from the checkpoint",
    "Restoring states from the checkpoint path",
    "Seed set to",
    "TPU available",
    "`Trainer.fit` stopped",  # a run reports its steps
)
"""First words of messages."""

WARNINGS = (
    # Lightning's own calls of a deprecated function of torch.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # Frozen parts of trunks stay in eval mode.
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # It counts steps, not batches of an epoch.
    r"The number of training batches .* is smaller than the logging interval",
    # Stage 1 gathers windows faster than a step takes; recipes of Stage 2 set the number.
    r"The '.*dataloader' does not have many workers",
    r"You're using the WeightAveraging callback with a model that overrides the configure_model",
    # `state_dict` holds the averages then, which are what is tested.
    r"You're using the WeightAveraging callback, but loading a checkpoint outside the 'fit' stage",
    # Recipes name files that a run replaces.
    r"Checkpoint directory .* exists and is not empty",
    r"The dirpath has changed from",
    r"When using the `ThroughputMonitor`, you need to define a `flops_per_batch`",
)
"""Regular expressions of warnings, from their first word on."""


@contextmanager
def quiet() -> Iterator[None]:
    """Context manager: without messages that mean nothing here, and with warnings on one line."""
    before = warnings.formatwarning
    warnings.formatwarning = _on_one_line
    with warnings.catch_warnings():
        for message in WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        for name in LOGGERS:
            logging.getLogger(name).addFilter(_means_something)
        try:
            yield
        finally:
            warnings.formatwarning = before
            for name in LOGGERS:
                logging.getLogger(name).removeFilter(_means_something)


def _on_one_line(message: Warning | str, *_: object, **__: object) -> str:
    """Return the text of a warning without the line of code that gave it."""
    return f"warning: {message}\n"


def _means_something(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(INFOS)
