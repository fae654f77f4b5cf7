"""Test that the documentation site builds strictly, and that its pages name what exists."""

import ast
import importlib
import importlib.util
import inspect
import logging
import os
import re
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import yaml
from lightning import Trainer
from mkdocs.config import load_config
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import actionprior
import callbacks
import data_modules
from actionprior.data import EmbodiedDataModule
from actionprior.networks.motion_prior import PriorArchitecture

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CLASSES = {
    "ActionGroup": actionprior.ActionGroup,
    "LeRobotTrajectories": data_modules.LeRobotTrajectories,
    "LeRobotVLA": data_modules.LeRobotVLA,
    "MotionPriorModule": actionprior.MotionPriorModule,
    "PriorArchitecture": PriorArchitecture,
    "RolloutEvaluation": callbacks.RolloutEvaluation,
    "StateGroup": actionprior.StateGroup,
    "Trainer": Trainer,
    "VLAModule": actionprior.VLAModule,
}
RECIPE_SECTIONS = {
    "LeRobotTrajectories": ("pretrain", "data"),
    "LeRobotVLA": ("finetune", "data"),
    "MotionPriorModule": ("pretrain", "model"),
    "PriorArchitecture": ("pretrain", "model", "architecture"),
    "VLAModule": ("finetune", "model"),
}


def hand_written() -> list[Path]:
    """List the pages that are written by hand."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
    return [
        page for page in pages if "\nWritten by `lightning study" not in page.read_text("utf-8")
    ]


# ---- the site ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_site_builds_and_has_the_api_of_the_main_classes(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", "site"]
    run = subprocess.run(
        [*build[:-1], str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    main = [actionprior.VLAModule, actionprior.MotionPriorModule, actionprior.Policy]
    for cls in [*main, EmbodiedDataModule]:
        page = tmp_path / "api" / f"{cls.__module__}.html"
        assert f'id="{cls.__module__}.{cls.__name__}"' in page.read_text("utf-8")
    assert (tmp_path / "index.html").is_file()


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("link", "url", "expected"),
    [
        ("[g](glossary.md#studies)", "", "[g](glossary.md#studies)"),
        ("[w](https://example.org)", "", "[w](https://example.org)"),
        ("![i](two_stages.svg)", "", "![i](two_stages.svg)"),
        ("[v](../actionprior/vla.py)", "", "[v](api/actionprior.vla.md)"),
        ("[c](../CONTRIBUTING.md#set-up)", "", "[c](contributing.md#set-up)"),
        ("[r](../recipes/pretrain.yaml)", "", "r"),
        (
            "[r](../recipes/pretrain.yaml)",
            "https://forge/us/it/",
            "[r](https://forge/us/it/blob/main/recipes/pretrain.yaml)",
        ),
        ("[e](../examples)", "https://forge/us/it", "[e](https://forge/us/it/tree/main/examples)"),
    ],
)
def test_links_lead_to_pages_or_into_the_repository(
    hooks: ModuleType, caplog: pytest.LogCaptureFixture, link: str, url: str, expected: str
) -> None:
    with caplog.at_level(logging.WARNING):
        assert rewritten(hooks, link, url) == expected
    assert not caplog.records


@pytest.mark.parametrize("target", ["../recipes/none.yaml", "../../outside", "../actionprior/x.py"])
def test_a_link_to_no_file_is_a_warning(
    hooks: ModuleType, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    with caplog.at_level(logging.WARNING):
        rewritten(hooks, f"[x]({target})", "")
    assert [r.getMessage() for r in caplog.records] == [
        f"docs/index.md: the link to {target} leads to no file"
    ]


def rewritten(hooks: ModuleType, markdown: str, url: str) -> str:
    """Return what a link becomes on the site's first page."""
    config = load_config(str(ROOT / "mkdocs.yml"), repo_url=url)
    file = File("index.md", str(DOCS), str(ROOT / "build"), use_directory_urls=False)
    page = Page(None, file, config)
    text: str = hooks.on_page_markdown(markdown, page, config, Files([file]))
    return text


# ---- what pages name --------------------------------------------------------------------------


class Row(NamedTuple):
    """Row of a table in docs/paper.md."""

    name: str  # Class.argument
    default: str
    recipe: str  # "" if the table has no such column
    papers_recipe: str
    stage: int  # of the section; 0 for others


def paper_rows() -> Iterator[Row]:
    """Read the rows of all tables by the names of their columns."""
    columns: list[str] = []
    stage = 0
    for line in (DOCS / "paper.md").read_text("utf-8").splitlines():
        if line.startswith("## "):
            stage = next((s for s in (1, 2) if f"Stage {s}" in line), 0)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            columns = []
        elif not columns:
            columns = cells
        elif not set(line) <= set("|-: "):
            row = dict(zip(columns, cells, strict=True))
            recipes = row.get("recipe", ""), row.get("paper's recipe", "")
            yield Row(row["argument"].strip("`"), row["default"], *recipes, stage)


def argument(name: str) -> inspect.Parameter:
    """Return the parameter that a dotted name such as ``VLAModule.width`` names."""
    cls_name, *path = name.split(".")
    cls: Any = CLASSES[cls_name]
    for step in path[:-1]:  # through dataclass arguments
        hint = typing.get_type_hints(cls.__init__)[step]
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        [cls] = [option for option in options if option is not type(None)]
    # A constructor may pass further arguments on to that of its base class.
    known = [inspect.signature(kind).parameters for kind in cls.__mro__[:-1]]
    return next(parameters[path[-1]] for parameters in known if path[-1] in parameters)


@pytest.mark.parametrize("row", paper_rows(), ids=lambda row: row.name)
def test_the_papers_table_names_arguments_with_their_defaults(row: Row) -> None:
    default = argument(row.name).default
    if row.default == "required":
        assert default is inspect.Parameter.empty
        return
    assert ast.literal_eval(row.default.strip("`")) == default


def in_recipe(row: Row, folder: str) -> object:
    """Return an argument's value in the recipe of its stage; None if it has none."""
    cls_name, *path = row.name.split(".")
    trainers = {1: ("pretrain", "trainer"), 2: ("finetune", "trainer")}
    recipe, *section = {"Trainer": trainers[row.stage or 1], **RECIPE_SECTIONS}[cls_name]
    file = ROOT / "recipes" / folder / f"{recipe}.yaml"
    node: Any = yaml.safe_load(file.read_text("utf-8"))
    for step in [*section, *path]:
        node = node.get("init_args", node) if step not in node else node
        node = node.get(step) if isinstance(node, dict) else None
        if node is None:
            return None
    return node.get("class_path", node) if isinstance(node, dict) else node


@pytest.mark.parametrize("folder", ["", "paper"])
@pytest.mark.parametrize(
    "row",
    [
        r
        for r in paper_rows()
        if r.recipe and r.name.partition(".")[0] in {"Trainer", *RECIPE_SECTIONS}
    ],
    ids=lambda row: row.name,
)
def test_the_papers_table_has_the_recipes_values(row: Row, folder: str) -> None:
    found = in_recipe(row, folder)
    shown = row.papers_recipe if folder else row.recipe
    if shown == "–":
        assert found is None
    elif shown[1].isupper():  # a class
        assert str(found).rpartition(".")[2] == shown.strip("`")
    else:
        assert ast.literal_eval(shown.strip("`")) == found


def test_the_page_of_recipes_names_each_of_them() -> None:
    recipes = {p.relative_to(ROOT).as_posix() for p in (ROOT / "recipes").rglob("*.yaml")}
    assert recipes == set(named_recipes(DOCS / "recipes.md"))


def test_pages_name_recipes_that_exist() -> None:
    missing = [
        f"{page.name}: {name}"
        for page in hand_written()
        for name in named_recipes(page)
        if not (ROOT / name).is_file()
    ]
    assert not missing


def named_recipes(page: Path) -> list[str]:
    """List paths such as ``recipes/trunks/dfn.yaml`` that a page names."""
    return re.findall(r"\brecipes/[\w/]+\.yaml", page.read_text("utf-8"))


def test_the_glossary_is_in_order() -> None:
    _, method, studies = (DOCS / "glossary.md").read_text("utf-8").split("\n## ")
    for section in (method, studies):
        terms = [line.split("|")[1].strip() for line in section.splitlines() if line[:1] == "|"]
        assert terms[2:] == sorted(terms[2:], key=str.casefold)


def test_the_contributors_page_names_paths_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    folders = "actionprior|bench|callbacks|data_modules|docs|examples|recipes|tests"
    named = re.findall(rf"[`(]((?:{folders})/[\w/.]*)", text)
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]


def test_no_page_installs_from_an_index_that_has_no_such_package() -> None:
    pages = [
        page.name for page in hand_written() if "install 'actionprior" in page.read_text("utf-8")
    ]
    assert not pages
