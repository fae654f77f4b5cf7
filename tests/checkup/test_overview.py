"""The report starts with numbers that follow from the data, and shows features and cameras."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from actionprior.checkup import Camera, Subject
from actionprior.checkup.overview import overview, overview_html
from actionprior.data import Contents, DataError
from actionprior.data.store import Recording
from tests.helpers.checked import clean, robot


def subject(recording: Recording | None = None, **more) -> Subject:
    recording = recording or clean((80, 60, 100))
    rows = np.concatenate([np.arange(n) for n in recording.lengths_E])
    contents = Contents(recording, timestamp_N=rows * 0.11, **more)
    return Subject(robot(), "da<b>ta\x1b[31m", contents, chunk_length=15)


def test_numbers_are_those_of_the_data() -> None:
    found = overview(subject(), [])
    assert (found.episodes, found.frames, found.lengths) == (3, 240, (60, 80, 100))
    assert found.hours == pytest.approx(240 / 10 / 3600)
    assert (found.hz, found.measured_hz) == (10, pytest.approx(1 / 0.11))
    assert "3 episodes, 240 frames, 0.01 h at 10 Hz (9.091 by timestamps)" in found.line()


def test_excluded_episodes_are_counted_and_not_examined() -> None:
    examined = subject(excluded=[1])
    found = overview(examined, [])
    assert (found.episodes, found.excluded, found.frames) == (2, 1, 180)
    assert "2 episodes of 3" in found.line()
    assert examined.say("note", "x", "", "", at=85).episode == 2
    assert examined.say("note", "x", "", "", episode=1, episodes=[0, 1]).episodes == (0, 2)


def test_names_of_files_hold_no_markup_and_no_control_characters() -> None:
    found = overview(subject(), [])
    page = found.html() + overview_html([found]) + found.line()
    assert "\x1b" not in page
    assert "da<b>" not in page.replace(found.line(), "")


def test_each_feature_has_its_range_and_a_line() -> None:
    recording = clean((80, 60, 100))
    recording.action_Na[:, 1] = 0.25
    section = overview(subject(recording), []).section
    rows = re.findall(r"<tr><td>(.*?)</td></tr>", section)
    assert len(rows) == 8
    constant = next(row for row in rows if row.startswith("action j2"))
    assert constant.count("<td>0.25") == 5
    assert section.count("<polyline") == 8


def test_cameras_are_shown_and_unreadable_ones_are_passed_over() -> None:
    def look(episode: int, row: int) -> np.ndarray:
        if episode == 1:
            raise DataError("damaged")
        return np.full((3, 480, 640), 40 * episode + 20, np.uint8)

    section = overview(subject(), [Camera("front", look, (480, 640))]).section
    assert "<h3>front (480×640)</h3>" in section
    images = re.findall(r"data:image/jpeg;base64,([^\"]+)", section)
    opened = [Image.open(io.BytesIO(base64.b64decode(image))) for image in images]
    assert [image.size for image in opened] == [(160, 120)] * 2
    assert [image.getpixel((80, 60)) for image in opened] == [(20,) * 3, (100,) * 3]
