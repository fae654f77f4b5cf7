"""Test that the tests mirror the source, so that a module's tests are found by its name."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
# Folders of ``tests/`` that mirror no package.
OTHER_FOLDERS = {"examples", "helpers", "made_before"}
# Test files of no one module, and what they test instead.
OTHER_FILES = {
    "benchmarks/test_environment_docs.py": "docs/environments.md",
    "benchmarks/test_registered.py": "the environment ids of all benchmarks",
    "checkup/test_checkup.py": "the whole check of a dataset",
    "commands/test_help.py": "the help of every verb",
    "commands/test_nodes.py": "training on several machines",
    "commands/test_slurm.py": "training under Slurm",
    "data_modules/images/test_hostile_images.py": "images and cameras of a stranger's dataset",
    "data_modules/images/test_image_faults.py": "the image cache, under faults",
    "data_modules/lerobot/test_bombs.py": "small files that claim much",
    "data_modules/lerobot/test_clocks.py": "gaps, other clocks and damaged videos",
    "data_modules/lerobot/test_fit_fuzz.py": "training in both stages, on any dataset",
    "data_modules/lerobot/test_metadata_fuzz.py": "all readers of metadata, on any JSON value",
    "data_modules/lerobot/test_odd_columns.py": "columns and metadata of unusual types",
    "data_modules/lerobot/test_streaming.py": "the store and remote datasets, together",
    "data_modules/test_shared_cache.py": "caches that cannot be written, and their permissions",
    "diagnosis/test_causes.py": "planted causes, and a healthy policy",
    "diagnosis/test_parts.py": "single measurements of the diagnosis",
    "embodiment/test_wrapped_angle.py": "one action representation",
    "lerobot/test_commands.py": "LeRobot's own commands",
    "lerobot/test_metaworld.py": "an exported policy in LeRobot's MetaWorld",
    "networks/trunks/test_every_trunk.py": "what holds for every trunk",
    "test_cuda.py": "training and export on a GPU",
    "test_docs.py": "docs/",
    "test_first_hour.py": "docs/add_your_robot.md, from an empty folder to LeRobot's rollout",
    "test_layout.py": "tests/",
    "test_made_before.py": "files of older versions",
    "test_own_trunk.py": "a user's trunk in every verb",
    "test_packaging.py": "pyproject.toml and the wheel",
    "test_readme.py": "README.md",
    "test_recipes.py": "recipes/",
}


def _mirrored(folder: Path) -> list[Path]:
    """List the source folders that a folder below ``tests/`` may mirror."""
    return [
        ROOT / "actionprior" / folder,  # tests/data/ → actionprior/data/
        ROOT / folder,  # tests/callbacks/ → callbacks/
        TESTS / folder,  # tests/faults.py, a command with a test beside it
    ]


def test_no_test_file_is_imported() -> None:
    found = []
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            found += [f"{path}: {n}" for n in names if n.startswith("tests.") and ".test_" in n]
    assert not found, "move what test files share to tests/helpers/ or to a conftest.py"


def test_folders_mirror_packages() -> None:
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    unknown = [
        str(folder)
        for folder in sorted(folders)
        if folder.parts[:1] and folder.parts[0] not in OTHER_FOLDERS
        if not any((source / "__init__.py").exists() for source in _mirrored(folder)[:2])
    ]
    assert not unknown, "these folders of tests have no package of the same name"


def test_files_mirror_modules() -> None:
    files = {path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    files = {file for file in files if file.parts[0] not in OTHER_FOLDERS}
    unknown = []
    for file in sorted(files):
        name = file.name.removeprefix("test_")
        modules = [source / n for source in _mirrored(file.parent) for n in (name, f"_{name}")]
        if str(file) not in OTHER_FILES and not any(module.exists() for module in modules):
            unknown.append(str(file))
    assert not unknown, "name them after the module they test, or say in OTHER_FILES what they test"
    assert {Path(file) for file in OTHER_FILES} <= files, "OTHER_FILES lists files that are gone"
