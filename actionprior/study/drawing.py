"""How the study's figures look, and their files: SVG and PNG.

Colours: Okabe and Ito's, which the colour-blind tell apart; lines differ by marker, too.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

PRIOR, NONE, HISTORY, GREY = "#0072B2", "#D55E00", "#009E73", "#7F7F7F"
LINES = (("no_prior", NONE, "s"), ("prior", PRIOR, "o"), ("history", HISTORY, "^"))


class Figure(NamedTuple):
    """A drawn figure."""

    name: str  # of its files, without suffix
    title: str


def style() -> AbstractContextManager[None]:
    """In it, figures are drawn and saved."""
    from matplotlib import pyplot as plt

    settings: dict[Any, Any] = {
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.hashsalt": "actionprior",  # the same table gives the same file
        "legend.frameon": False,
    }
    return plt.rc_context(settings)


def save(canvas: "Canvas", folder: Path, name: str) -> None:
    """As SVG, without the date, and PNG."""
    canvas.savefig(folder / f"{name}.svg", metadata={"Date": None}, dpi=150)
    canvas.savefig(folder / f"{name}.png", dpi=150)
