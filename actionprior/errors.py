"""User-facing errors, and helpers for their messages."""

from difflib import get_close_matches


class UserError(ValueError):
    """Base class of user-facing errors: what was found, what was expected, what to do.

    The command line prints the message and exits with code 2, without a traceback.
    """


def shorten(error: BaseException, length: int = 200) -> str:
    """Put an error's message on one line and cut it; an empty message becomes the class's name."""
    return " ".join(str(error).split())[:length] or type(error).__name__


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
