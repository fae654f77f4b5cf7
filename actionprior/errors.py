"""User-facing errors, and helpers for their messages."""

import errno
from difflib import get_close_matches

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
_OTHER_KIND = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


class UserError(ValueError):
    """Base class of user-facing errors: what was found, what was expected, what to do.

    The command line prints the message and exits with code 2, without a traceback.
    """

    def __init__(self, *args: object) -> None:
        # torch raises an error of a loader process again with its traceback as the message.
        if args and isinstance(args[0], str) and args[0].startswith("Caught "):
            kind = f"{type(self).__module__}.{type(self).__qualname__}: "
            args = (args[0].rpartition(kind)[2].strip(), *args[1:])
        super().__init__(*args)


class PolicyError(UserError):
    """Input that a policy cannot act on. The message names the key or the robot."""


def disk_error(error: BaseException | None, elsewhere: str) -> UserError | None:
    """Return what to say if a disk is full or not writable, or a path is of another kind.

    Args:
        error: Error that may be of a disk.
        elsewhere: How to write to another place.

    Returns:
        The user error; None for any other error.
    """
    if not isinstance(error, OSError) or error.errno not in _FULL | _REFUSED | _OTHER_KIND:
        return None
    remedy = f"make room, or {elsewhere}" if error.errno in _FULL else elsewhere
    return UserError(f"cannot use {error.filename or 'the disk'}: {error.strerror}; {remedy}")


def shorten(error: BaseException, length: int = 200) -> str:
    """Put an error's message on one line and cut it; an empty message becomes the class's name."""
    return " ".join(str(error).split())[:length] or type(error).__name__


def shown(value: object, length: int = 200) -> str:
    """Return a value of a file as Python writes it, without control characters and shortened."""
    text = repr(value[: length + 1] if isinstance(value, str | bytes | list | tuple) else value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def printable(text: str) -> str:
    """Return a text on one line, with control characters as escapes.

    Names in files may hold sequences that change a terminal's colours, title or contents, or the
    direction of the text.
    """
    return "".join(c if c.isprintable() else " " if c in "\n\t" else ascii(c)[1:-1] for c in text)


def near_matches(name: str, known: list[str]) -> str:
    """End of an error message that lists the known names closest to an unknown one."""
    near = get_close_matches(name, known, n=3, cutoff=0.4) or known[:3]
    return f"; near are {', '.join(near)}" if near else "; it has none"


def missing_extra(module: str, extra: str) -> str:
    """Return the sentence that says how to install an optional dependency.

    Args:
        module: Import name of the package that is not installed.
        extra: Extra of this project that installs it, as ``pyproject.toml`` names it.
    """
    return (
        f"{module} is not installed; run `uv pip install -e '.[{extra}]'` "
        f"(or `pip install -e '.[{extra}]'`) in your clone of actionprior"
    )
