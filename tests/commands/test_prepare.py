"""Data are fetched or recorded from a recipe, without a model."""

from pathlib import Path

import pytest

from actionprior.cli import main

RECIPE = Path(__file__).parents[2] / "recipes" / "pretrain.yaml"


def test_a_recipes_data_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(["prepare", f"--config={RECIPE}", "--data.episodes_per_task=1", "--data.robots=[panda]"])
    (made,) = (tmp_path / "outputs" / "data").iterdir()
    assert "panda" in made.name
    assert (made / "meta" / "info.json").is_file()


def test_a_recipe_without_data_is_refused_in_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["prepare"])
    assert stop.value.code == 2
    assert "needs a recipe whose `data` is a LightningDataModule" in capsys.readouterr().err
