"""Test what LeRobot's training loop gets of a dataset."""

import json
from pathlib import Path

import pytest
import torch

from actionprior.errors import UserError
from actionprior.lerobot.training import chosen_episodes, new_network
from tests.helpers.datasets import write_dataset


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], None),
        (["--dataset.episodes=[0, 2]"], [0, 2]),
        (["--steps=3", "--dataset.episodes", "[1]", "--batch_size=4"], [1]),
        (["--dataset.episodes=null"], None),
    ],
)
def test_the_chosen_episodes_are_read_off_the_command_line(
    words: list[str], expected: list[int] | None
) -> None:
    assert chosen_episodes(words) == expected


def test_the_chosen_episodes_are_read_from_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "train_config.json"
    path.write_text(json.dumps({"dataset": {"episodes": [1, 2]}}))
    assert chosen_episodes([f"--config_path={path}"]) == [1, 2]
    assert chosen_episodes([f"--config_path={path}", "--dataset.episodes=[0]"]) == [0]
    path.write_text(json.dumps({"dataset": {"episodes": None}}))
    assert chosen_episodes([f"--config_path={path}"]) is None


@pytest.mark.parametrize("text", ["all", "[0.5]", "[-1]", "{}", "[true]"])
def test_what_is_no_list_of_episodes_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"dataset\.episodes is"):
        chosen_episodes([f"--dataset.episodes={text}"])


def test_statistics_are_those_of_the_chosen_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    first = write_dataset(tmp_path / "first", (30,))
    both = write_dataset(tmp_path / "both", (30, 40))

    def statistics(root: Path, episodes: list[int] | None) -> dict[str, torch.Tensor]:
        state = new_network(str(root), 6, episodes).prior.normalizer.state_dict()
        return {key: value for key, value in state.items() if "scale" in key or "center" in key}

    single, chosen = statistics(first, [0]), statistics(both, [0])
    torch.testing.assert_close(chosen, single, rtol=0, atol=0)
    assert not torch.equal(chosen["action_scale"], statistics(both, [1])["action_scale"])
    with pytest.raises(UserError, match=r"has 2 episodes, dataset\.episodes names 2"):
        new_network(str(both), 6, [0, 2])
