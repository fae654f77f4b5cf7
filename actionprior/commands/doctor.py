"""Check a recipe's data for mistakes before training."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from actionprior.checkup import (
    LEVELS,
    Finding,
    Subject,
    cameras,
    check_images,
    check_polarities,
    examine,
    refusal,
)
from actionprior.checkup.trained import Trained, compare, compare_images
from actionprior.commands._parser import call
from actionprior.data import EmbodiedDataModule, Source
from actionprior.errors import UserError
from actionprior.files.atomic import write_json
from actionprior.files.names import file_name


def doctor(
    data: EmbodiedDataModule,
    out: Path = Path("outputs/doctor"),
    exclude_episodes: Path | None = None,
    ckpt_path: str | None = None,
) -> list[Finding]:
    """Read a recipe's data as training would, check every dataset, and report.

    Prints a table, and writes `doctor.json`, `report.html` and a picture of each dataset. An error
    that training would raise becomes a finding, so it does not hide other findings. The exit code
    is 1 if a finding is an error.

    Args:
        data: Data module of the recipe.
        out: Folder of the report.
        exclude_episodes: File to write: a list of the episodes with errors or warnings of their
            own. `lightning fit --data.mixture.exclude_episodes FILE` leaves them out.
        ckpt_path: Checkpoint of either stage, or exported policy, with which the data are compared:
            robots, units, cameras and ranges.

    Raises:
        UserError: The checkpoint is missing or damaged.
    """
    from actionprior.checkup.exclusion import OPTION, write_list
    from actionprior.checkup.overview import overview, overview_html
    from actionprior.checkup.report import draw, print_table, write_html

    trained = None if ckpt_path is None else _trained(ckpt_path)
    out.mkdir(parents=True, exist_ok=True)
    findings, sources = _sources(data)
    subjects: list[Subject] = []
    pictures: list[Path] = []
    overviews = []
    for source in sources:
        try:
            subject = _read(source, data.chunk_length)
        except UserError as error:
            findings.append(refusal(error, source.robot.name, source.name))
            continue
        seen = cameras(subject)
        findings += [*examine(subject), *check_images(subject, seen)]
        if trained is not None:
            findings += compare(subject, source.robot, trained)
        overviews.append(overview(subject, seen))
        print(overviews[-1].line())
        pictures.append(out / f"{len(subjects):02d}-{file_name(subject.robot.name)}.png")
        draw(subject.robot, subject.contents.recording, pictures[-1])
        subjects.append(subject)
    findings += check_polarities(subjects)
    findings += _check_together(data, findings)
    if trained is not None and (shape := data.image_shape) is not None:
        findings += [f for s in subjects[:1] for f in compare_images(s, trained, shape)]
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    print_table(findings)
    write_json([f._asdict() for f in findings], out / "doctor.json")
    sections = [o.html() for o in overviews]
    first = overview_html(overviews)
    write_html(findings, pictures, out / "report.html", more="\n".join(sections), first=first)
    beside = ", pictures beside them" if pictures else ""
    print(f"report: {out / 'report.html'}, {out / 'doctor.json'}{beside}")
    if exclude_episodes is not None:
        before = {(s.robot.name, s.dataset): s.contents.excluded for s in subjects}
        count = write_list(findings, before, exclude_episodes)
        print(f"{count} episodes to exclude: train with {OPTION} {exclude_episodes}")
    return findings


def _read(source: Source, chunk: int) -> Subject:
    contents, robot, recipe_chunk = source.read(), source.robot, chunk
    if contents.recorded_hz is not None:  # checks run at the recorded rate
        chunk = max(1, round(chunk * contents.recorded_hz / robot.control_hz))
        robot = replace(robot, control_hz=contents.recorded_hz)
    return Subject(robot, source.name, contents, chunk, recipe_chunk)


def _trained(path: str) -> Trained:
    """Read what a checkpoint was trained on."""
    from actionprior.checkpoints import keys
    from actionprior.checkpoints.folder import load_policy_network, read_config
    from actionprior.checkpoints.policy import policy_description, recorded_image_shape
    from actionprior.checkpoints.prior import load_prior
    from actionprior.checkpoints.sharded import read_file_or_folder

    if (Path(path) / "config.json").is_file():
        description = read_config(Path(path))
        return Trained(
            path,
            load_policy_network(path)[0].prior.normalizer,
            True,
            recorded_image_shape(description),
        )
    prior = load_prior(path)
    checkpoint = read_file_or_folder(path, weights=False)
    if keys.POLICY not in checkpoint:
        return Trained(path, prior.normalizer)
    return Trained(
        path, prior.normalizer, True, recorded_image_shape(policy_description(checkpoint, path))
    )


def _sources(data: EmbodiedDataModule) -> tuple[list[Finding], Sequence[Source]]:
    from data_modules import LeRobotVLA

    if isinstance(data, LeRobotVLA):
        data.cache_images = False  # the check reads a few frames only; training fills the cache
    try:
        data.prepare_data()
        return [], data.sources()
    except UserError as error:
        return [refusal(error)], []


def _check_together(data: EmbodiedDataModule, findings: Sequence[Finding]) -> Iterator[Finding]:
    """Find what training refuses about all datasets together."""
    if any(finding.level == "error" for finding in findings):
        return
    try:
        data.setup("fit")
    except UserError as error:
        yield refusal(error)


def main(args: list[str]) -> None:
    """Run the verb: ``lightning doctor --config RECIPE [--data.… ] [--out FOLDER]``.

    Raises:
        SystemExit: With code 1 if a finding is an error.
    """
    if any(finding.level == "error" for finding in call(doctor, args, "lightning doctor")):
        raise SystemExit(1)
