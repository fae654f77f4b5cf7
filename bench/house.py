"""Count what makes the code hard to read: long files, wide signatures, words to avoid.

``python -m bench.house`` prints the counts; ``--words`` lists each line that uses a word or phrase
that the style guide (CONTRIBUTING.md) advises against.
"""

import argparse
import ast
import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("actionprior", "data_modules", "callbacks")
CODE = (*PACKAGES, "bench", "examples", "tests")
TEXT_SUFFIXES = {".py", ".md", ".yaml", ".toml"}
# This file lists the words; the changelog and the old fixtures stay as they were written.
EXEMPT = ("bench/house.py", "CHANGELOG.md", "tests/made_before/")
EXEMPT_LINES = ('_PRIOR_COST = "told"',)  # the name of a file of version 0.1.0
BANNED = {
    "tell, told": r"(?<![a-z])(tells?|told|telling)(?![a-z])",
    "go on": r"\b(go|goes|going|went|gone) on\b",
    "alike": r"\balike\b",
    "anew": r"\banew\b",
    "alone for only": r"(?<!stand )(?<!stands )(?<!stood )\balone\b",
    "where there is none": r"\bwhere there (is|are|was|were) (none|no)\b",
    "of which none": r"\bof which (none|no|all)\b",
    "as it is": r"\bas (it|they) (is|are)\b(?! (written|read|used|called|in|on))",
    "likewise": r"\blikewise\b",
    "a … a …, for per": (
        r"\ban? (file|line|row|run|core|robot|column|panel|process|thread|worker) an? \w+"
    ),
    "one's, nobody's": r"\b(one's|nobody's|ours|theirs)\b",
}


class Function(NamedTuple):
    """Place, lines and number of arguments of a function."""

    place: str
    lines: int
    arguments: int


def tracked(*folders: str) -> list[Path]:
    """List the files under version control below some folders, if they exist on disk."""
    words = ["git", "ls-files", *folders]
    listed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return [path for path in map(Path, listed.splitlines()) if path.is_file()]


def functions(paths: list[Path]) -> Iterator[Function]:
    """Yield every function and method; docstrings do not count as lines."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
                doc = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
                a = node.args
                count = len([*a.posonlyargs, *a.args, *a.kwonlyargs])
                yield Function(
                    f"{path}:{node.lineno} {node.name}",
                    (node.end_lineno or 0) - node.lineno + 1 - doc,
                    count - (bool(a.args) and a.args[0].arg in ("self", "cls")),
                )


def undocumented(paths: list[Path]) -> list[str]:
    """List public modules, classes, functions and methods without a docstring."""
    found = []
    for path in paths:
        tree = ast.parse(path.read_text("utf-8"))
        scopes: list[tuple[str, ast.AST]] = [(str(path), tree)]
        while scopes:
            name, scope = scopes.pop()
            public = isinstance(scope, ast.Module) or not name.rpartition(".")[2].startswith("_")
            overrides = any(
                "override" in ast.unparse(d) or "overload" in ast.unparse(d)
                for d in getattr(scope, "decorator_list", [])
            )
            if public and not overrides and ast.get_docstring(scope) is None:  # type: ignore[arg-type]  # all scopes may have one
                empty = isinstance(scope, ast.Module) and not scope.body
                found += [] if empty else [name]
            if isinstance(scope, ast.Module | ast.ClassDef) and public:
                scopes += [
                    (f"{name}.{child.name}", child)
                    for child in scope.body
                    if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                ]
    return found


def repeated_classes(paths: list[Path]) -> dict[str, list[str]]:
    """List public class names that occur in more than one file."""
    places: dict[str, list[str]] = {}
    for path in paths:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path))
    return {name: files for name, files in places.items() if len(files) > 1}


def banned_words() -> list[tuple[str, str]]:
    """List every use of a word to avoid, as its kind and its place with the line."""
    found = []
    for path in tracked():
        if path.suffix not in TEXT_SUFFIXES or str(path).startswith(EXEMPT):
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if line.startswith(EXEMPT_LINES):
                continue
            for kind, pattern in BANNED.items():
                for _ in re.finditer(pattern, line, re.IGNORECASE):
                    found.append((kind, f"{path}:{number}: {line.strip()}"))
    return found


def counts() -> dict[str, object]:
    """Count everything that the report prints."""
    sources = [path for path in tracked(*PACKAGES) if path.suffix == ".py"]
    every = list(functions(sources))
    longest = max(every, key=lambda f: f.lines)
    constructor = max((f for f in every if "__init__" in f.place), key=lambda f: f.arguments)
    commands = [p.name for p in sources if p.parent.name == "commands"]
    words = banned_words()
    return {
        "root_modules": len([p for p in sources if p.parent == Path("actionprior")]),
        "lines_in_the_wheel": sum(len(p.read_text("utf-8").splitlines()) for p in sources),
        "files_over_400_lines": [
            str(p) for p in sources if len(p.read_text("utf-8").splitlines()) > 400
        ],
        "longest_function": longest._asdict(),
        "longest_constructor": constructor._asdict(),
        "verbs": len([name for name in commands if not name.startswith("_")]),
        "helpers_in_commands": len(
            [n for n in commands if n.startswith("_") and n != "__init__.py"]
        ),
        "repeated_class_names": repeated_classes(sources),
        "public_symbols_without_docstring": undocumented(sources),
        "banned_words": len(words),
        "banned_words_by_kind": dict(Counter(kind for kind, _ in words).most_common()),
        "banned_words_by_folder": dict(
            Counter(
                "/".join(place.split(":")[0].split("/")[:2]) for _, place in words
            ).most_common()
        ),
    }


def main() -> None:
    """Print the counts; the last line is ``RESULT {json}``.

    This module uses the standard library only, so that it runs without the environment.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--words", action="store_true", help="list each line with a banned word")
    parser.add_argument("--below", default="", help="list only files whose path starts with this")
    options = parser.parse_args()
    if options.words:
        for kind, place in banned_words():
            if place.startswith(options.below):
                print(f"{kind:20} {place}")
        return
    found = counts()
    for name, value in found.items():
        print(f"{name:34} {value}")
    print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    main()
