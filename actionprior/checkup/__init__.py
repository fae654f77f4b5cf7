"""Checks of a robot's recordings, to find faults before a GPU hour is spent on them.

Each check is a function of one dataset in the robot's own units. It reports what it found, where,
and what it expected.
"""

from actionprior.checkup.action_and_state import check_action_and_state
from actionprior.checkup.copies import check_copies
from actionprior.checkup.episodes import check_episodes
from actionprior.checkup.finding import LEVELS, Finding, Level, refusal
from actionprior.checkup.following import check_following
from actionprior.checkup.grippers import check_grippers, check_polarities
from actionprior.checkup.images import Camera, cameras, check_images, check_videos
from actionprior.checkup.normalised_form import check_round_trip
from actionprior.checkup.single_frames import check_single_frames
from actionprior.checkup.stretches import check_stretches
from actionprior.checkup.subject import Subject
from actionprior.checkup.tasks import check_tasks
from actionprior.checkup.timing import check_timing
from actionprior.checkup.units import check_units
from actionprior.checkup.values import check_values
from actionprior.checkup.whole_turns import check_whole_turns

__all__ = [
    "LEVELS",
    "Camera",
    "Finding",
    "Level",
    "Subject",
    "cameras",
    "check_images",
    "check_polarities",
    "examine",
    "refusal",
]

CHECKS = (
    check_units,
    check_values,
    check_whole_turns,
    check_action_and_state,
    check_following,
    check_single_frames,
    check_stretches,
    check_grippers,
    check_timing,
    check_tasks,
    check_videos,
    check_episodes,
    check_copies,
    check_round_trip,
)


def examine(subject: Subject) -> list[Finding]:
    """Run all checks of one dataset except those of its images; errors come first."""
    found = [finding for check in CHECKS for finding in check(subject)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))
