"""List of the episodes that the findings advise to exclude, as a file for recipes."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from actionprior.checkup.finding import Finding
from actionprior.errors import printable
from actionprior.files.atomic import write_text

OPTION = "--data.mixture.exclude_episodes"
"""Option of ``lightning fit`` that reads the list."""

Reasons = dict[str, dict[str, dict[int, list[str]]]]
"""Reasons by robot, dataset and episode."""


def episodes_to_exclude(findings: Sequence[Finding]) -> Reasons:
    """Collect the episodes of errors and warnings that excluding them would end."""
    reasons: Reasons = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for f in findings:
        for episode in f.episodes if f.level != "note" else ():
            reason = f"{f.check} {f.feature}".strip()
            if reason not in reasons[f.robot][f.dataset][episode]:
                reasons[f.robot][f.dataset][episode].append(reason)
    return reasons


def write_list(
    findings: Sequence[Finding], excluded: dict[tuple[str, str], list[int]], path: Path
) -> int:
    """Write the list as YAML, with the reasons as comments.

    Args:
        findings: Findings of all datasets.
        excluded: Episodes that are excluded already, by robot and dataset. They stay in the list.
        path: File to write.

    Returns:
        The number of episodes in the list.
    """
    reasons = episodes_to_exclude(findings)
    for (robot, dataset), numbers in excluded.items():
        for number in numbers:
            reasons[robot][dataset][number].append("excluded before")
    lines = [
        "# Episodes that neither train nor validate, by robot and dataset. Edit the list, then",
        f"# train both stages with {OPTION} and the name of this file.",
    ]
    count = 0
    for robot, datasets in reasons.items():
        lines.append(f"{json.dumps(robot, ensure_ascii=True)}:")
        for dataset, episodes in datasets.items():
            lines.append(f"  {json.dumps(dataset, ensure_ascii=True)}:")
            for number, why in sorted(episodes.items()):
                lines.append(f"    - {number}  # {printable('; '.join(why))}")
            count += len(episodes)
    write_text("\n".join(lines) + "\n", path)
    return count
