"""Error of a wrong robot description."""

from actionprior.errors import UserError


class EmbodimentError(UserError):
    """An embodiment's description is wrong; the message names the robot and the feature."""
