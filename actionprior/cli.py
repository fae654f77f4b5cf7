"""The command line: ``lightning fit --config recipes/…``; ``actionprior`` is the same command.

``fit``, ``validate``, ``test`` and ``predict`` are LightningCLI's. Any other verb is a module
``actionprior/commands/<verb>.py`` with a ``main(args)``, imported only when it is used. A dash in a
verb is an underscore in the file's name.
"""

import ast
import io
import os
import signal
import sys
from collections.abc import Buffer, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from actionprior import __version__
from actionprior.errors import UserError, disk_error, printable
from actionprior.files import user_modules

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
_OWN_NAMES = ("lightning", "actionprior", "-c")  # a script that calls `main` has another name
COMMANDS = Path(__file__).parent / "commands"


def main(args: list[str] | None = None) -> None:
    """Run the verb that the command line names.

    Args:
        args: Words after the command's name; None reads ``sys.argv``.

    Raises:
        SystemExit: With code 2 and one sentence on stderr, for bad input (``UserError``), and with
            code 130 after Ctrl-C. The environment variable ``ACTIONPRIOR_DEBUG`` shows the
            traceback.
    """
    drop_output_of_closed_pipes()
    words = sys.argv[1:] if args is None else args
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        raise SystemExit(0 if words else 2)
    if words[0] == "--version":
        print(f"actionprior {__version__}")
        return
    if Path(sys.argv[0]).name in _OWN_NAMES:
        # Processes that Python starts with `-c` would search the working folder first.
        os.environ.setdefault("PYTHONSAFEPATH", "1")
    try:
        with exit_on_user_error():
            _dispatch(words, args)
    except KeyboardInterrupt:
        if os.environ.get("ACTIONPRIOR_DEBUG"):
            raise
        # A run that has begun says itself what it leaves behind.
        lost = "nothing was trained, so nothing was saved" if words[0] == "fit" else "stopped"
        print(f"Ctrl-C: {lost}", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None


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
        print(f"error: {printable(str(user_error))}", file=sys.stderr)
        raise SystemExit(2) from None


class _OutputFile(io.FileIO):
    """File of the process's output that ignores what is written after its reader has closed it."""

    def write(self, data: Buffer, /) -> int | None:  # type: ignore[override]  # as FileIO itself
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def drop_output_of_closed_pipes() -> None:
    """Let a command continue when nobody reads its output any more, as in ``… | head -1``.

    A server must not leave its robots, and a run must not lose its training, because a terminal or
    a pager was closed. So the work continues, and what is printed is dropped. Other errors of the
    output, such as a full disk, stay errors.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # A terminal raises no such error, and tests replace the streams by their own.
        if stream is not getattr(sys, f"__{name}__") or stream is None or stream.isatty():
            continue
        stream.flush()
        raw = _OutputFile(stream.fileno(), "w", closefd=False)
        wrapped = io.TextIOWrapper(
            # Without a buffer under PYTHONUNBUFFERED, as Python's own stream.
            cast(Any, raw if stream.write_through else io.BufferedWriter(raw)),
            stream.encoding,
            stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, wrapped)


def _dispatch(words: list[str], args: list[str] | None) -> None:
    verb = words[0]
    own = _own_verbs()
    if not verb.startswith("-") and verb not in TRAINER_VERBS | own:
        near = get_close_matches(verb, TRAINER_VERBS | own, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UserError(
            f"unknown verb {verb!r}{hint}; expected one of {', '.join(TRAINER_VERBS | own)}"
        )
    # `class_path: mylab.franka.FrankaDataModule` is found in the user's folder. No file there can
    # replace one of the project's packages, even if the folder is on the path for another reason.
    for name in ("callbacks", "data_modules"):
        import_module(name)
    user_modules.allow(words[1:], Path.cwd())
    if verb in own:
        import_module(f"actionprior.commands.{verb.replace('-', '_')}").main(words[1:])
    else:
        from actionprior.commands import _trainer

        _trainer.main(args)


def _user_error(error: BaseException | None) -> UserError | None:
    """Find the ``UserError`` behind an error: jsonargparse wraps what a constructor raises.

    A full or write-protected disk is one, too, whichever verb met it.
    """
    link = error
    while link is not None and not isinstance(link, UserError):
        link = link.__cause__
    return link or disk_error(error, "name another folder")


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
