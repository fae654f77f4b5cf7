"""Test what the wheel contains, and what is under version control."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import actionprior

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """List files under version control, and new files that are not ignored."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if found.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in found.stdout.splitlines() if (ROOT / line).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_three_packages_only(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    info = f"actionprior-{actionprior.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {
        "actionprior",
        "data_modules",
        "callbacks",
        info,
    }
    assert f"{info}/licenses/LICENSE" in names
    for package in ("actionprior", "data_modules", "callbacks"):
        assert f"{package}/py.typed" in names


def test_the_wheel_has_every_source_file(wheel: zipfile.ZipFile, tracked: list[Path]) -> None:
    packages = [ROOT / name for name in ("actionprior", "data_modules", "callbacks")]
    sources = {p for p in tracked if p.suffix == ".py" and set(p.parents) & set(packages)}
    missing = {str(p.relative_to(ROOT)) for p in sources} - set(wheel.namelist())
    assert not missing
    without_init = {str(p.parent) for p in sources if not (p.parent / "__init__.py").exists()}
    assert not without_init, "folders of sources without __init__.py escape mypy and the layers"


def test_the_wheel_has_both_commands(wheel: zipfile.ZipFile) -> None:
    [points] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    text = wheel.read(points).decode()
    assert "lightning = actionprior.cli:main" in text
    assert "actionprior = actionprior.cli:main" in text


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == actionprior.__version__
    assert f"## [{actionprior.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_constraints_are_names_and_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    odd = [
        line for line in lines if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[A-Za-z0-9.+]+", line)
    ]
    assert not odd
    pins = dict(line.split("==") for line in lines)
    assert "actionprior" not in pins
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    needed = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
    ]
    names = {re.match(r"[\w-]+", need)[0].lower().replace("_", "-") for need in needed}
    assert names - {"actionprior"} <= pins.keys()
    beside_pybullet = project["tool"]["uv"]["extra-build-dependencies"]["pybullet"]
    assert beside_pybullet == [f"numpy=={pins['numpy']}"]


def test_no_machine_and_no_registry_is_named(tracked: list[Path]) -> None:
    host = r"([a-z]+\.)?(py" + r"pi|python" + r"hosted)\.(org|net)"
    option = r"(index|extra-index|find-links)" + r"[-_ =]*url"
    place = r"(^|[^A-Za-z0-9_.])/(work|root|home/[a-z]+|Users/[a-z]+)/"
    pattern = re.compile("|".join([host, option, place]), re.MULTILINE)
    found = []
    for path in tracked:
        data = path.read_bytes()
        if b"\0" in data[:8000]:
            continue
        found += [f"{path}: {match[0]!r}" for match in pattern.finditer(data.decode("utf-8"))]
    assert not found


def test_lock_files_are_not_tracked(tracked: list[Path]) -> None:
    assert "uv.lock" not in {path.name for path in tracked}
