"""Run a benchmark from the command line."""

from collections.abc import Callable

from actionprior.cli import exit_on_user_error


def run[T](measure: Callable[..., T], name: str, args: list[str] | None = None) -> T:
    """Call a benchmark with the options of the command line.

    Args:
        measure: Function of the benchmark; each of its arguments is an option.
        name: Module of the benchmark, as in ``python -m bench.<name>``.
        args: Options; ``None`` reads ``sys.argv``.

    Raises:
        SystemExit: with code 2 and one sentence on stderr, for bad input.
    """
    from jsonargparse import auto_cli

    with exit_on_user_error():
        result: T = auto_cli(
            measure, args=args, as_positional=False, prog=f"python -m bench.{name}"
        )
    return result
