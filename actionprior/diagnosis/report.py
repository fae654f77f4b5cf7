"""The report of a diagnosis: tables in the terminal, JSON, and an HTML page."""

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actionprior.checkup import LEVELS, Finding
from actionprior.checkup.report import print_table, write_html
from actionprior.diagnosis.measurement import Diagnosis, MeasuredValue
from actionprior.errors import printable
from actionprior.files.atomic import write_json

COLUMNS = ("robot", "subject", "measured", "value")
_ZERO = 1e-9
HEALTHY = "no cause of error was found"


def write_report(results: Diagnosis, out: Path) -> None:
    """Print both tables, and write ``diagnosis.json`` and ``report.html``."""
    out.mkdir(parents=True, exist_ok=True)
    lines = measured_lines(results.measurements)
    _print_measurements(lines)
    findings = sorted(results.findings, key=lambda f: LEVELS.index(f.level))
    if findings:
        print_table(findings)
    else:
        print(HEALTHY)
    write_json(as_plain(results), out / "diagnosis.json")
    write_html(findings, [], out / "report.html", "lightning diagnose", _html_table(lines))
    print(f"report: {out / 'report.html'}, {out / 'diagnosis.json'}")


def as_plain(results: Diagnosis) -> dict[str, Any]:
    """Convert to plain data for JSON; NaN becomes null."""
    rows = [m._asdict() | {"value": _finite(m.value)} for m in results.measurements]
    return {"measurements": rows, "findings": [_plain(f) for f in results.findings]}


def measured_lines(measurements: Sequence[MeasuredValue]) -> list[tuple[str, ...]]:
    """Join the numbers of one quantity to a line: robot, subject, quantity, values."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for m in measurements:
        words = (m.group, _number(m.value), "" if m.unit == "1" else m.unit)
        values = lines.setdefault((m.robot, m.subject, m.what), [])
        values.append(" ".join(word for word in words if word))
    return [
        tuple(printable(cell) for cell in (*key, ", ".join(values)))
        for key, values in lines.items()
    ]


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "unknown"
    return "0" if abs(value) < _ZERO else f"{value:.3g}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(found: Finding) -> dict[str, Any]:
    kept = ("level", "check", "robot", "feature", "message")
    return {key: value for key, value in found._asdict().items() if key in kept}


def _print_measurements(lines: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=False)
    for name in COLUMNS:
        table.add_column(name, overflow="fold")
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    Console(width=140).print(table)


def _html_table(lines: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in lines]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<h2>Measured</h2><table><thead><tr>{head}</thead><tbody>{body}</tbody></table>"
