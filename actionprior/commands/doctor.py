"""Look for what is wrong with a recipe's data, before a GPU hour is spent on them."""

import json
from pathlib import Path

from actionprior.checkup import Checkup, Finding
from actionprior.data import EmbodiedDataModule
from actionprior.errors import UserError


def doctor(data: EmbodiedDataModule, out: Path) -> list[Finding]:
    """Read the data as training would, check every recording, and report.

    Prints a table; writes ``doctor.json`` and a picture of each recording to ``out``. Data that
    training would refuse are one finding, the refusal.
    """
    from actionprior.commands._doctor_report import draw, print_table

    out.mkdir(parents=True, exist_ok=True)
    findings = []
    try:
        data.prepare_data()
        data.setup("fit")
    except UserError as error:
        findings = [Finding("error", "refused", "", "", "", -1, -1, str(error))]
    else:
        store = data.frames.store
        for number, (robot, recording) in enumerate(
            zip(store.robot_R.tolist(), store.recordings, strict=True)
        ):
            embodiment = data.embodiments[robot]
            name = recording.name or f"recording {number}"
            findings += Checkup(embodiment, name, recording, data.chunk_length).findings()
            draw(embodiment, recording, out / f"{number:02d}-{embodiment.name}.png")
    print_table(findings)
    (out / "doctor.json").write_text(json.dumps([f._asdict() for f in findings], indent=1) + "\n")
    print(f"all of it: {out / 'doctor.json'}, pictures beside it")
    return findings


def main(args: list[str]) -> None:
    """Run the verb: ``lightning doctor --config RECIPE [--data.… ] [--out FOLDER]``.

    Raises:
        SystemExit: with code 1 where there is an error among the findings.
    """
    from actionprior.commands._recipe import data_parser

    parser = data_parser("lightning doctor")
    parser.add_argument("--out", type=str, default="outputs/doctor", help="folder of the report")
    options = parser.instantiate(parser.parse_args(args))
    if not isinstance(options.get("data"), EmbodiedDataModule):
        raise UserError(
            f"doctor needs a recipe whose `data` is an EmbodiedDataModule, found "
            f"{type(options.get('data')).__name__} (--config)"
        )
    if any(finding.level == "error" for finding in doctor(options["data"], Path(options["out"]))):
        raise SystemExit(1)
