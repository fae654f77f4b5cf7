"""Write an episode as a recording for the Rerun viewer."""

import importlib.util
from pathlib import Path

import numpy as np

from actionprior.errors import UserError, missing_extra
from actionprior.visualization.episode import Drawing


def require_rerun() -> None:
    """Check that the Rerun SDK is installed.

    Raises:
        UserError: The SDK is missing.
    """
    if importlib.util.find_spec("rerun") is None:
        raise UserError(f"--rerun needs the Rerun SDK; {missing_extra('rerun', 'rerun')}")


def write_rerun(drawing: Drawing, path: Path) -> None:
    """Write actions, predictions and images on a timeline in seconds, as an ``.rrd`` file."""
    import rerun as rr

    with rr.RecordingStream("actionprior", recording_id=path.stem) as stream:
        stream.save(path)
        for group, _ in drawing.groups():
            for kind in ("recorded", "predicted")[: 1 + bool(drawing.chunks)]:
                names = [f"{kind} {feature}" for feature in group.features]
                stream.log(f"{group.name}/{kind}", rr.SeriesLines(names=names), static=True)
        predicted_Ta = np.concatenate(drawing.chunks) if drawing.chunks else None
        images = drawing.film()
        for row, action_a in enumerate(drawing.action_Ta):
            stream.set_time("episode", duration=row / drawing.robot.control_hz)
            for group, columns in drawing.groups():
                stream.log(f"{group.name}/recorded", rr.Scalars(action_a[columns]))
                if predicted_Ta is not None:
                    stream.log(f"{group.name}/predicted", rr.Scalars(predicted_Ta[row, columns]))
            for number, image in enumerate(next(images) if drawing.cameras else []):
                stream.log(f"camera/{number}", rr.Image(image))
