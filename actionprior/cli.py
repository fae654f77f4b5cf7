"""The command line: ``lightning fit --config recipes/…``; ``actionprior`` is the same command.

``fit``, ``validate``, ``test`` and ``predict`` are LightningCLI's. Any other verb is one module
``actionprior/commands/<verb>.py`` with a ``main(args)``, imported only when it is called for; a
verb's dash is an underscore in the file's name.
"""

import ast
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from actionprior import __version__
from actionprior.errors import UserError

TRAINER_VERBS = {
    "fit": "Train a model.",
    "validate": "Run the validation data through a model.",
    "test": "Test a model, for instance by rolling it out.",
    "predict": "Run a model on new data.",
}
COMMANDS = Path(__file__).parent / "commands"


def main(args: list[str] | None = None) -> None:
    """Run the command.

    Args:
        args: what follows the command's name; ``None`` reads ``sys.argv``.

    Raises:
        SystemExit: with code 2 and one sentence on stderr, for bad input (``UserError``); the
            traceback is shown where the environment variable ``ACTIONPRIOR_DEBUG`` is set.
    """
    words = sys.argv[1:] if args is None else args
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        raise SystemExit(0 if words else 2)
    if words[0] == "--version":
        print(f"actionprior {__version__}")
        return
    with exit_on_user_error():
        _dispatch(words, args)


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Print a ``UserError`` as one sentence on stderr and exit with code 2.

    Raises:
        SystemExit: in place of the error, unless the environment variable ``ACTIONPRIOR_DEBUG``
            is set, which shows the traceback.
    """
    try:
        yield
    except Exception as error:
        user_error = _user_error(error)
        if user_error is None or os.environ.get("ACTIONPRIOR_DEBUG"):
            raise
        print(f"error: {user_error}", file=sys.stderr)
        raise SystemExit(2) from None


def _dispatch(words: list[str], args: list[str] | None) -> None:
    verb = words[0]
    ours = _our_verbs()
    if not verb.startswith("-") and verb not in TRAINER_VERBS and verb not in ours:
        raise UserError(f"unknown verb {verb!r}; expected one of {', '.join(TRAINER_VERBS | ours)}")
    # Ours first, the user's folder after it: `class_path: mylab.franka.FrankaDataModule` works,
    # and no file of that folder can stand in for one of ours.
    for name in ("callbacks", "data_modules"):
        import_module(name)
    sys.path.append(str(Path.cwd()))
    if verb in ours:
        import_module(f"actionprior.commands.{verb.replace('-', '_')}").main(words[1:])
    else:
        from actionprior.commands import _trainer

        _trainer.main(args)


def _user_error(error: BaseException | None) -> UserError | None:
    """The ``UserError`` behind ``error``: jsonargparse wraps what a constructor raises."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


def _our_verbs() -> dict[str, str]:
    """Each verb of ours with the first sentence of its docstring, read without importing it."""
    files = sorted(COMMANDS.glob("[!_]*.py"))
    docstrings = {
        f.stem.replace("_", "-"): ast.get_docstring(ast.parse(f.read_text("utf-8"))) for f in files
    }
    return {verb: (text or "").partition("\n")[0] for verb, text in docstrings.items()}


def _help() -> str:
    lines = ["usage: lightning <verb> [options]      (actionprior is the same command)", ""]
    for verb, text in (TRAINER_VERBS | _our_verbs()).items():
        lines.append(f"  {verb:<17}{text}")
    lines += ["", "`lightning <verb> --help` tells a verb's options; --version the version."]
    return "\n".join(lines)
