"""Checks of sizes that users and files give, before modules are built with them."""

from actionprior.errors import UserError, shown


def require_size(name: str, value: object, least: int, most: int | None = None) -> None:
    """Check that a size is a whole number in a range.

    Args:
        name: Argument that has the value, for the message.
        value: Value to check.
        least: Smallest value.
        most: Largest value; None for no limit.

    Raises:
        UserError: It is not.
    """
    if type(value) is int and value >= least and (most is None or value <= most):
        return
    limit = f"{least} or more" if most is None else f"from {least} to {most}"
    raise UserError(f"{name} is {shown(value)}; expected a whole number, {limit}")


def require_heads(name: str, width: int, heads: int) -> None:
    """Check that attention heads share a width evenly.

    Raises:
        UserError: The width is not a multiple of the heads.
    """
    if width % heads:
        raise UserError(
            f"{name}.width is {width}, which is not a multiple of {name}.heads, {heads}"
        )
