"""Check a recipe's data for mistakes before training."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from actionprior.checkup import (
    Camera,
    Finding,
    Subject,
    check_images,
    check_polarities,
    examine,
    refusal,
)
from actionprior.commands._parser import call
from actionprior.data import EmbodiedDataModule, Source
from actionprior.errors import UserError
from actionprior.files.atomic import write_json


def doctor(data: EmbodiedDataModule, out: Path = Path("outputs/doctor")) -> list[Finding]:
    """Read a recipe's data as training would, check every dataset, and report.

    Prints a table, and writes `doctor.json`, `report.html` and a picture of each dataset. An error
    that training would raise becomes a finding, so it does not hide other findings. The exit code
    is 1 if a finding is an error.

    Args:
        data: Data module of the recipe.
        out: Folder of the report.
    """
    from actionprior.checkup.report import draw, print_table, write_html

    out.mkdir(parents=True, exist_ok=True)
    findings, sources = _sources(data)
    subjects: list[Subject] = []
    pictures: list[Path] = []
    for source in sources:
        try:
            contents = source.read()
        except UserError as error:
            findings.append(refusal(error, source.robot.name, source.name))
            continue
        robot, chunk = source.robot, data.chunk_length
        if contents.recorded_hz is not None:  # checks run at the recorded rate
            chunk = max(1, round(chunk * contents.recorded_hz / robot.control_hz))
            robot = replace(robot, control_hz=contents.recorded_hz)
        subject = Subject(robot, source.name, contents, chunk)
        findings += examine(subject)
        pictures.append(out / f"{len(subjects):02d}-{robot.name}.png")
        draw(robot, contents.recording, pictures[-1])
        subjects.append(subject)
    findings += check_polarities(subjects)
    findings += _check_together(data, subjects, findings)
    print_table(findings)
    write_json([f._asdict() for f in findings], out / "doctor.json")
    write_html(findings, pictures, out / "report.html")
    print(f"report: {out / 'report.html'}, {out / 'doctor.json'}, pictures beside them")
    return findings


def _sources(data: EmbodiedDataModule) -> tuple[list[Finding], Sequence[Source]]:
    from data_modules import LeRobotVLA

    if isinstance(data, LeRobotVLA):
        data.cache_images = False  # the check reads a few frames only; training fills the cache
    try:
        data.prepare_data()
        return [], data.sources()
    except UserError as error:
        return [refusal(error)], []


def _check_together(
    data: EmbodiedDataModule, subjects: Sequence[Subject], findings: Sequence[Finding]
) -> Iterator[Finding]:
    """Check what needs all datasets to be read together, such as images."""
    if any(finding.check == "refused" for finding in findings):
        return
    try:
        data.setup("fit")
    except UserError as error:
        if not any(finding.level == "error" for finding in findings):
            yield refusal(error)
        return
    from data_modules import LeRobotVLA

    if isinstance(data, LeRobotVLA):
        windows = data.windows(training=False)
        for dataset, (subject, images) in enumerate(zip(subjects, windows.images, strict=True)):
            sizes = subject.contents.image_sizes
            cameras = [
                Camera(name, partial(images.read, camera=name), sizes[name])
                for name in images.cameras
            ]
            yield from check_images(subject, cameras, data.excluded_episodes(dataset))


def main(args: list[str]) -> None:
    """Run the verb: ``lightning doctor --config RECIPE [--data.… ] [--out FOLDER]``.

    Raises:
        SystemExit: With code 1 if a finding is an error.
    """
    if any(finding.level == "error" for finding in call(doctor, args, "lightning doctor")):
        raise SystemExit(1)
