"""The command line: ``lightning fit --config recipes/…``; ``actionprior`` is the same command.

``fit``, ``validate``, ``test`` and ``predict`` are LightningCLI's. Any other verb is a module
``actionprior/commands/<verb>.py`` with a ``main(args)``, imported only when it is used. A dash in a
verb is an underscore in the file's name.
"""

import ast
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from actionprior import __version__
from actionprior.errors import UserError

TRAINER_VERBS = {
    "fit": "Train a model, as a recipe says.",
    "validate": "Compute a model's metrics on the validation data.",
    "test": "Test a model, for instance with rollouts.",
    "predict": "Run a model on new data.",
}
_USAGE = """\
Options have names: `--out folder` or `--out=folder`. A switch needs no value: `--overwrite` is
`--overwrite true`, and `--overwrite false` turns it off; switches of fit, validate, test and
predict need the value. `--config FILE` reads options from a YAML file, and options after it win.

`lightning VERB --help` lists the options of a verb, `lightning --version` prints the version, and
ACTIONPRIOR_DEBUG=1 shows the traceback of an error."""
COMMANDS = Path(__file__).parent / "commands"


def main(args: list[str] | None = None) -> None:
    """Run the verb that the command line names.

    Args:
        args: Words after the command's name; None reads ``sys.argv``.

    Raises:
        SystemExit: With code 2 and one sentence on stderr, for bad input (``UserError``). The
            environment variable ``ACTIONPRIOR_DEBUG`` shows the traceback.
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
        SystemExit: In place of the error, unless the environment variable ``ACTIONPRIOR_DEBUG``
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
    own = _own_verbs()
    if not verb.startswith("-") and verb not in TRAINER_VERBS | own:
        near = get_close_matches(verb, TRAINER_VERBS | own, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UserError(
            f"unknown verb {verb!r}{hint}; expected one of {', '.join(TRAINER_VERBS | own)}"
        )
    # The project's packages are imported before the user's folder is on the path, so that
    # `class_path: mylab.franka.FrankaDataModule` works and no file there can replace one of them.
    for name in ("callbacks", "data_modules"):
        import_module(name)
    sys.path.append(str(Path.cwd()))
    if verb in own:
        import_module(f"actionprior.commands.{verb.replace('-', '_')}").main(words[1:])
    else:
        from actionprior.commands import _trainer

        _trainer.main(args)


def _user_error(error: BaseException | None) -> UserError | None:
    """Find the ``UserError`` behind an error: jsonargparse wraps what a constructor raises."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


def _own_verbs() -> dict[str, str]:
    """Return each verb in ``commands`` with its docstring's first line, without importing it."""
    files = sorted(COMMANDS.glob("[!_]*.py"))
    docstrings = {
        f.stem.replace("_", "-"): ast.get_docstring(ast.parse(f.read_text("utf-8"))) for f in files
    }
    return {verb: (text or "").partition("\n")[0] for verb, text in docstrings.items()}


def _help() -> str:
    lines = [
        "usage: lightning VERB [--option value …]      (`actionprior` is the same command)",
        "",
    ]
    for verb, text in (TRAINER_VERBS | _own_verbs()).items():
        lines.append(f"  {verb:<13}{text}")
    return "\n".join([*lines, "", _USAGE])
