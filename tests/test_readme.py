"""Test that the README is short, its links and verbs exist, and its five commands run."""

import re
import shlex
from pathlib import Path

import pytest

from actionprior import cli
from tests.helpers.datasets import write_dataset

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    *(f"docs/{name}.md" for name in (
        "features", "how_it_is_built", "peers_features", "study_guide", "suite_guide",
        "what_the_prior_gives",
    )),
]  # fmt: skip
README = (ROOT / "README.md").read_text("utf-8")
FIVE = re.search(r"## Your robot in five commands.*?```bash\n(.*?)```", README, re.DOTALL)
MOST_WORDS = 1200


def test_it_is_short() -> None:
    assert len(README.split()) <= MOST_WORDS


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_exists(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8"))
    relative = [link for link in links if "://" not in link]
    missing = [link for link in relative if not (path.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_installed_from_an_index(page: str) -> None:
    """No index has the package."""
    text = (ROOT / page).read_text("utf-8")
    assert not re.search(r"pip install ['\"]?actionprior\b", text)


def test_every_verb_exists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    known = set(re.findall(r"^  ([a-z][a-z-]*)\s", capsys.readouterr().out, re.MULTILINE))
    for page in PAGES:
        # In code only: prose may say "the lightning package".
        text = (ROOT / page).read_text("utf-8")
        code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
        named = set(re.findall(r"\blightning ([a-z][a-z-]*)", code))
        assert named <= known, page


def test_every_peer_cell_has_its_source() -> None:
    """Each cell of the README's table is the cell of the page with the sources."""
    lines = [line for line in README.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    start = next(k for k, row in enumerate(rows) if row[1:2] == ["actionprior"])
    table = rows[start : start + 12]
    peers = [re.sub(r"\[(.*?)\].*", r"\1", cell) for cell in table[0][1:]]
    page = (ROOT / "docs/peers_features.md").read_text("utf-8")
    for row in table[2:]:
        section = page.split(f"## {row[0]}\n")[1].split("\n## ")[0]
        for peer, cell in zip(peers, row[1:], strict=True):
            name = "Isaac-GR00T" if peer == "GR00T" else peer
            word = re.sub(r"\[(.*?)\].*", r"\1", cell)
            assert f"\n| {name} | {word} | " in section, (row[0], peer)


def test_the_five_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert FIVE
    commands = [shlex.split(line, comments=True) for line in FIVE[1].splitlines()]
    assert [words[:2] for words in commands] == [
        ["lightning", verb] for verb in ("describe", "doctor", "fit", "fit", "serve")
    ]
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    write_dataset(Path("mine"), (40, 30), cameras={"observation.images.front": "image"})
    short = ["--trainer.max_steps=1", "--data.batch_size=4", "--trainer.limit_val_batches=1",
             "--trainer.val_check_interval=1", "--trainer.accelerator=cpu"]  # fmt: skip
    describe, doctor, first, second, serve = (words[1:] for words in commands)
    cli.main([word.replace("path/to/dataset", "mine") for word in describe])
    cli.main(doctor)
    assert "0 errors" in capsys.readouterr().out
    cli.main([*first, *short])
    (prior,) = tmp_path.glob("outputs/**/prior.ckpt")
    cli.main([*(word.replace("PRIOR.ckpt", str(prior)) for word in second), *short])
    assert list(tmp_path.glob("outputs/**/policy.ckpt"))
    with pytest.raises(SystemExit) as stop:  # its options are read; a server would not end
        cli.main(serve)
    assert stop.value.code == 2
    assert "POLICY.ckpt" in capsys.readouterr().err
