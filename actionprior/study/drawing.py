"""Style and files (SVG and PNG) of the study's figures.

The colours are those of Okabe and Ito, which colour-blind readers can distinguish. Lines also
differ by marker.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

PRIOR, NONE, HISTORY, GREY = "#0072B2", "#D55E00", "#009E73", "#7F7F7F"
LINES = (("no_prior", NONE, "s"), ("prior", PRIOR, "o"), ("history", HISTORY, "^"))


class DrawnFigure(NamedTuple):
    """File name and title of a drawn figure."""

    name: str  # of the files, without suffix
    title: str


def style() -> AbstractContextManager[None]:
    """Return a context manager that sets the matplotlib style."""
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
    """Save a figure as SVG and PNG; without a date, so that files are reproducible."""
    canvas.savefig(folder / f"{name}.svg", metadata={"Date": None}, dpi=150)
    canvas.savefig(folder / f"{name}.png", dpi=150)
