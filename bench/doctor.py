"""Measure which planted faults the doctor finds, and how often it raises a false alarm."""

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actionprior.checkup import Finding, Subject, check_images, examine
from actionprior.errors import UserError
from actionprior.files.atomic import write_json, write_text
from bench.clean_recordings import CleanSet, clean_sets
from bench.command_line import run
from bench.planted_faults import FAULTS, Planted, Planter

CHUNK = 15
BEGIN, END = "<!-- table of bench.doctor -->", "<!-- end of the table -->"


def bench_doctor(
    places: int = 3, episodes: int = 30, clean: int = 3, seed: int = 1000, page: Path | None = None
) -> dict[str, Any]:
    """Plant each fault into clean recordings of three robots, and count what is found.

    A fault is found if an error or a warning of its kind is reported. It is placed if that names
    the right dataset, episode, feature and frame. An alarm about another episode is false. The
    last line is `RESULT` and JSON.

    Args:
        places: Number of random places of each fault, per robot.
        episodes: Number of episodes per robot.
        clean: Number of clean sets per robot, in which every alarm is false.
        seed: Seed of the recordings and of the places.
        page: Page whose table is replaced; `doctor/faults.json` beside it gets the counts.

    Raises:
        UserError: There is no place to plant a fault in.
    """
    if places < 1:
        raise UserError(f"places is {places}, expected at least 1")
    began = time.process_time()
    sets = [clean_sets(episodes, seed + i) for i in range(max(clean, 1))]
    result: dict[str, Any] = {"places": places, "episodes": episodes, "faults": {}}
    result["clean"] = [
        {"robot": s.robot.name, "alarms": _named(_alarms(s))} for same in sets[:clean] for s in same
    ]
    for number, name in enumerate(FAULTS):
        counts = [
            _count(name, s, np.random.default_rng([seed, number, i, place]))
            for i, s in enumerate(sets[0])
            if not (name == "whole_turn" and s.robot.name == "deltas")  # it has no angles
            for place in range(places)
        ]
        row = {key: sum(c[key] for c in counts) for key in ("found", "placed", "false")}
        result["faults"][name] = {"planted": len(counts), **row}
        print(f"{name:<15} {result['faults'][name]}", flush=True)
    if page is not None:
        _write(page, result)
    print(f"clean sets: {sum(len(c['alarms']) for c in result['clean'])} false alarms")
    result["seconds"] = round(time.process_time() - began, 1)
    print("RESULT " + json.dumps(result), flush=True)
    return result


def _write(page: Path, result: dict[str, Any]) -> None:
    write_json(result, page.parent / "doctor" / "faults.json")
    text = page.read_text("utf-8")
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    write_text(f"{before}{BEGIN}\n{table(result)}\n{after}", page)


def table(result: dict[str, Any]) -> str:
    """Write the result as a table of a page."""
    lines = ["| fault | planted | found | placed right | false alarms |", "|---|---|---|---|---|"]
    for name, row in result["faults"].items():
        cells = (FAULTS[name][0], row["planted"], row["found"], row["placed"], row["false"])
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    alarms = sum(len(c["alarms"]) for c in result["clean"])
    frames = f"{len(result['clean'])} clean sets of {result['episodes']} episodes"
    lines.append(f"| none: {frames} | | | | {alarms} |")
    return "\n".join(lines)


def _alarms(clean: CleanSet) -> list[Finding]:
    subject = Subject(clean.robot, clean.contents.recording.name, clean.contents, CHUNK)
    findings = [*examine(subject), *check_images(subject, clean.cameras)]
    return [f for f in findings if f.level != "note"]


def _count(name: str, clean: CleanSet, rng: np.random.Generator) -> dict[str, int]:
    planted: Planted = FAULTS[name][1](Planter(clean, rng))
    alarms = _alarms(planted.found)
    found = [f for f in alarms if f.check in planted.checks]
    placed = [f for f in found if _is_placed(f, planted)]
    false = [f for f in alarms if f.episode not in (planted.episode, -1)]
    if not placed or false:
        print(f"  {name} in {clean.robot.name}, {_where(planted)}: {_named(alarms)}", flush=True)
    return {"found": bool(found), "placed": bool(placed), "false": len(false)}


def _is_placed(finding: Finding, planted: Planted) -> bool:
    frame = not planted.frames or finding.frame in planted.frames
    return finding.episode == planted.episode and finding.feature in planted.features and frame


def _where(planted: Planted) -> str:
    rows = f" frame {planted.frames[len(planted.frames) // 2]}" if planted.frames else ""
    return f"episode {planted.episode}{rows} of {sorted(planted.features)[0]}"


def _named(findings: Sequence[Finding]) -> list[str]:
    return [
        re.sub(r"\s+", " ", f"{f.check} {f.feature} {f.episode} {f.frame}: {f.message[:100]}")
        for f in findings
    ]


def main(args: list[str] | None = None) -> None:
    """Run the benchmark: see :func:`bench_doctor` for its options."""
    run(bench_doctor, "doctor", args)


if __name__ == "__main__":
    main()
