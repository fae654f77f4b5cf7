"""User-facing errors, and the one sentence that names a missing extra."""


class UserError(ValueError):
    """Base class of user-facing errors: what was found, what was expected, what to do.

    The command line prints the message and exits with code 2, without a traceback.
    """


def missing_extra(module: str, extra: str) -> str:
    """Return the sentence that says how to install an optional dependency.

    Args:
        module: Package that is not installed, as it is imported.
        extra: Extra of this project that installs it, as ``pyproject.toml`` names it.
    """
    return (
        f"{module} is not installed; run `uv pip install -e '.[{extra}]'` "
        f"(or `pip install -e '.[{extra}]'`) in your clone of actionprior"
    )
