"""Only modules that a recipe names are found in the working folder, and no library's name."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from actionprior.errors import UserError
from actionprior.files import user_modules
from tests.helpers.command_line import LIGHTNING, refused

RUN = "open('proof', 'a').write(__name__)"
# Each is imported by a library if it is found, most of them by torch and lightning.
OPTIONAL = [
    "pynvml",
    "opt_einsum",
    "pydot",
    "horovod",
    "apex",
    "faiss",
    "omegaconf",
    "multiprocessing",
]


@pytest.fixture
def hostile(folder: Path) -> Path:
    """Make modules in a user's folder that libraries would import if they could."""
    for name in OPTIONAL:
        (folder / f"{name}.py").write_text(RUN)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["serve", "--ckpt_path", "."],
        ["export", "--ckpt_path", ".", "--out", "out"],
        ["fit", "--config", "recipe.yaml", "--trainer.fast_dev_run", "true"],
    ],
)
def test_no_verb_runs_what_lies_in_the_working_folder(hostile: Path, words: list[str]) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    (hostile / "config.json").write_text('{"class_path": "pydot.Model", "trunk": "faiss.Trunk"}')
    done = subprocess.run([LIGHTNING, *words], cwd=hostile, env=environment, capture_output=True)
    assert done.returncode == (0 if words[0] == "fit" else 2), done.stderr
    assert not (hostile / "proof").exists()


def test_a_class_path_may_not_name_what_a_library_means(
    hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pydot", "opt_einsum"):
        words = ["fit", "--config", "recipe.yaml", "--model", f"{name}.Model"]
        sentence = refused(words, capsys)
        assert f"a class path names {name}, which {hostile} has" in sentence
        assert "rename the module" in sentence
    assert not (hostile / "proof").exists()


def test_a_named_module_is_found_and_its_neighbours_are_not(folder: Path) -> None:
    (folder / "mylab" / "parts.py").write_text("size = 3")
    (folder / "other.py").write_text(RUN)
    user_modules.allow(["--config", "recipe.yaml"], folder)
    assert import_module("mylab.parts").size == 3
    with pytest.raises(ModuleNotFoundError):
        import_module("other")
    user_modules.allow([], folder)
    del sys.modules["mylab.parts"], sys.modules["mylab"]
    with pytest.raises(ModuleNotFoundError):
        import_module("mylab.parts")


@pytest.mark.slow
def test_a_started_process_finds_the_same_modules(folder: Path) -> None:
    (folder / "mylab" / "parts.py").write_text("def size(_): return 3")
    (folder / "other.py").write_text(RUN)
    user_modules.allow(["--model=mylab.parts.Model"], folder)
    code = (
        "import actionprior, importlib.util as u;"
        "print(u.find_spec('mylab') is not None, u.find_spec('other') is not None)"
    )
    words = [sys.executable, "-P", "-c", code]
    found = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    assert found.stdout == "True False\n"


def test_names_come_from_class_paths_and_from_nothing_else(tmp_path: Path) -> None:
    recipe = {
        "model": {"class_path": "one.two.make_model", "init_args": {"trunk": "three.Trunk"}},
        "data": "four.Data",
        "trainer": {
            "callbacks": [{"class_path": "five.Callback", "init_args": {"import_modules": ["six"]}}]
        },
        "name": "seven",
        "cameras": ["observation.images.eight"],
        "again": "a.yaml",
    }
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(recipe))
    names = {"one", "three", "four", "five", "six"}
    assert user_modules.named_modules(["--config", "a.yaml"], tmp_path) == names
    words = ["--ckpt_path", "nine.ckpt", "--ckpt_path=ten.py", "--expert=eleven.expert", "--x", "1"]
    words += ["--import_modules=[twelve, 'thir.teen']", "--trainer.callbacks+={class_path: aa.B}"]
    words += ["--model", "bb.C", "--config=missing.yaml", "--config", "{[", "--", "cc"]
    expected = {"eleven", "twelve", "thir", "aa", "bb"}
    assert user_modules.named_modules(words, tmp_path) == expected


def test_a_file_that_names_itself_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("x: &x {again: a.yaml, inner: *x, class_path: one.Model}")
    assert user_modules.named_modules(["--config=a.yaml"], tmp_path) == {"one"}


@pytest.mark.parametrize("name", [*OPTIONAL, "torch", "wandb", "transformers"])
def test_names_of_libraries_are_known(name: str) -> None:
    assert name in user_modules.foreign_names()


def test_an_installed_module_wins(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text(RUN)
    user_modules.allow(["--model=yaml.Model"], tmp_path)
    (tmp_path / "pynvml.py").write_text(RUN)
    with pytest.raises(UserError, match="names pynvml"):
        user_modules.allow(["--model=pynvml.Model"], tmp_path)
