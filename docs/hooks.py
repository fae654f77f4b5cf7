"""Hooks that mkdocs.yml names: API pages from the source tree, and links that leave ``docs/``."""

import ast
import logging
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGES = ("actionprior", "data_modules", "callbacks")
COPIED = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
ROLE = re.compile(r":(?:attr|class|func|meth|mod):(`[^`]+`)")
log = logging.getLogger("mkdocs.hooks.links")


# ---- the API reference ------------------------------------------------------------------------


@cache
def public_modules() -> list[str]:
    """Dotted names of the modules that have a page: none is private or empty."""
    names = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            private = any(part.startswith("_") for part in parts)
            if not private and ast.parse(path.read_text("utf-8")).body:
                names.append(".".join(parts))
    return sorted(names)


def api_page(module: str) -> str:
    """Path of a module's page in the site's sources."""
    return f"api/{module}.md"


def source_file(module: str) -> Path:
    """File of a module or package."""
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def reexports(module: str) -> dict[str, str]:
    """What a package lists in ``__all__`` and imports from our modules: name to dotted name."""
    path = source_file(module)
    if path.name != "__init__.py":
        return {}
    found: dict[str, str] = {}
    listed: set[Any] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed = {n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)}
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PACKAGES:
            found |= {
                alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names
            }
    return {name: origin for name, origin in found.items() if name in listed}


def definition(name: str) -> str:
    """Dotted name of a class or function where it is defined, not where it is re-exported."""
    module, _, last = name.rpartition(".")
    origin = reexports(module).get(last)
    return definition(origin) if origin else name


def parts(package: str) -> list[str]:
    """Names of the modules directly inside a package that have a page or hold one that has."""
    inside = [m[len(package) + 1 :] for m in public_modules() if m.startswith(f"{package}.")]
    return sorted({name.partition(".")[0] for name in inside})


def api_section(module: str) -> dict[str, Any]:
    """Navigation of a module: its page, or a package's page and those of its parts."""
    name = module.rpartition(".")[2]
    own = api_page(module) if module in public_modules() else None
    inside = [api_section(f"{module}.{part}") for part in parts(module)]
    if not inside:
        return {name: own}
    return {name: [{"Overview": own}, *inside] if own else inside}


def module_text(module: str) -> str:
    """A module's page: its docstrings, then links to what it re-exports and to its parts."""
    lines = [f"# `{module}`", "", f"::: {module}"]
    if reexported := reexports(module):
        # Documented where it is defined; a package's page shows only what is its own.
        own = [
            node.name
            for node in ast.parse(source_file(module).read_text("utf-8")).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        ]
        lines += ["    options:", f"      members: {own}", "", "## Imported from its modules", ""]
        for name in sorted(reexported):
            target = definition(f"{module}.{name}")
            lines.append(f'- <autoref identifier="{target}" optional>`{name}`</autoref>')
    if listed := [part for part in parts(module) if f"{module}.{part}" in public_modules()]:
        lines += ["", "## Modules", ""]
        for part in listed:
            page = f"{module}.{part}"
            tree = ast.parse(source_file(page).read_text("utf-8"))
            first = (ast.get_docstring(tree) or "").partition("\n")[0].replace("``", "`")
            lines.append(f"- [`{part}`]({page}.md): {first}")
    return "\n".join(lines) + "\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add to the navigation the pages that mkdocs.yml does not name, and those of the API."""
    nav: list[Any] = list(config.nav or [])
    named = str(nav)
    others = [
        p.name for p in sorted(Path(config.docs_dir).glob("*.md")) if f"'{p.name}'" not in named
    ]
    if others:
        nav.append({"More": others})
    nav.append({"API reference": [api_section(package) for package in PACKAGES]})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that have no file in ``docs/``."""
    for module in public_modules():
        files.append(File.generated(config, api_page(module), content=module_text(module)))
    for page, source in COPIED.items():
        text = (ROOT / source).read_text("utf-8")
        files.append(File.generated(config, page, content=text))
    return files


class PlainRoles(Extension):
    """Show Sphinx roles of docstrings, such as ``:class:`Trunk```, as plain code."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:  # noqa: ANN401  griffe's own
        """Rewrite one docstring."""
        if obj.docstring:
            obj.docstring.value = ROLE.sub(r"\1", obj.docstring.value)


# ---- links ------------------------------------------------------------------------------------


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links between the site and the repository's other files.

    Pages link to files outside ``docs/`` by relative paths, which the forge follows. Here a link
    to a module leads to its API page. Any other one leads into ``repo_url``, or becomes plain
    text if that is not set. A missing file is a warning, which fails the strict build.
    """
    docs = Path(config.docs_dir)
    here = page.file.src_uri
    source = ROOT / COPIED[here] if here in COPIED else docs / here

    def rewrite(link: re.Match[str]) -> str:
        target, anchor = link["target"], link["anchor"] or ""
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        path = Path(os.path.normpath(source.parent / target))
        generated = {ROOT / name: docs / to for to, name in COPIED.items()}
        generated |= {source_file(m): docs / api_page(m) for m in public_modules()}
        inside = generated.get(path / "__init__.py" if path.is_dir() else path, path)
        if inside.is_relative_to(docs):  # mkdocs checks that it exists
            relative = os.path.relpath(inside, (docs / here).parent)
            return f"[{link['text']}]({Path(relative).as_posix()}{anchor})"
        if not path.exists() or not path.is_relative_to(ROOT):
            log.warning("%s: the link to %s leads to no file", source.relative_to(ROOT), target)
        if not config.repo_url:
            return link["text"]
        kind = "tree" if path.is_dir() else "blob"
        url = f"{config.repo_url.rstrip('/')}/{kind}/main/{path.relative_to(ROOT).as_posix()}"
        return f"[{link['text']}]({url}{anchor})"

    return LINK.sub(rewrite, markdown)
