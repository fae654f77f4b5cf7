"""File names made of any text stay in their folder and differ if the texts do."""

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from actionprior.files.names import file_name


@given(st.text())
@example("../../outside")
@example("/etc/passwd")
@example("..")
@example("")
@example("a\0b")
@example("\ud800")
@example("x" * 5000)
def test_any_text_gives_one_part_of_a_path(name: str) -> None:
    found = file_name(name)
    assert Path(found).name == found
    assert found not in ("", ".", "..")
    assert "\0" not in found
    assert len(found.encode()) < 200


@given(st.text(), st.text())
@example("a/b", "a_b")
@example("a/b", "a~b")
def test_different_texts_give_different_names(one: str, two: str) -> None:
    assert (file_name(one) == file_name(two)) == (one == two)


def test_names_of_cameras_stay_so_that_caches_stay_valid() -> None:
    for name in ("observation.images.front", "left-wrist_2"):
        assert file_name(name) == name
