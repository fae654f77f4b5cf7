"""Illustrations are drawn for one arm and two, and shown on the page where they lie beside it."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from PIL import Image

from actionprior.study.illustrations import PlayedScene, draw_trajectories, illustrations_in
from actionprior.study.page import write_page
from actionprior.study.results import Results
from actionprior.study.targets import measure_targets
from tests.helpers import synthetic_results as made_up


def test_the_page_shows_the_illustrations_that_there_are(tmp_path: Path) -> None:
    study, rows, page = made_up.plan(tmp_path), made_up.table(), tmp_path / "page.md"

    def written() -> str:
        write_page(Results(study, rows), measure_targets(study, rows), [], page, "study.yaml", 60)
        return page.read_text()

    assert "illustrate" not in written()
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "z_map.svg").touch()
    text = written()
    assert "(page/z_map.svg)" in text
    assert "`lightning illustrate` draws these" in text
    assert "trajectories.svg" not in text
    (tmp_path / "page" / "trajectories.svg").touch()
    assert "(page/trajectories.svg)" in written()


@pytest.mark.parametrize("env_id", ["actionprior/DuoHandover-v0", "actionprior/PandaDrawer-v0"])
def test_two_arms_and_scenes_without_pads_are_drawn(tmp_path: Path, env_id: str) -> None:
    pytest.importorskip("pybullet")
    from actionprior.study.tip_paths import expert_path

    env = gymnasium.make(env_id, images=False).unwrapped
    expert = expert_path(env, 0)
    failed = expert._replace(tip_GT3=expert.tip_GT3[:, :20] + 0.01, success=False)
    played = PlayedScene(0, env.scene, expert, {"prior": expert, "no_prior": failed})
    env.close()
    assert illustrations_in(tmp_path) == []
    draw_trajectories(env_id, [played, played], tmp_path)
    assert [figure.name for figure in illustrations_in(tmp_path)] == ["trajectories"]
    with Image.open(tmp_path / "trajectories.png") as picture:
        drawn = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):  # both arms are seen
        assert (drawn == colour).all(1).sum() > 100
