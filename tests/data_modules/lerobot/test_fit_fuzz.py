"""Datasets of any JSON and parquet values train or are refused in one sentence, in both stages.

So do ``describe`` and ``doctor``. ``ACTIONPRIOR_FUZZ_TRIES=2000`` makes 2,000 tries of each stage,
others with each ``--hypothesis-seed``.
"""

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from actionprior import cli
from actionprior.commands._trainer import TrainerCLI
from tests.helpers.datasets import CAMERAS, write_dataset, write_v2
from tests.helpers.recipes import ROBOT

MANY = int(os.environ.get("ACTIONPRIOR_FUZZ_TRIES", "0"))
TRIES = MANY or 15

PRIOR = {
    "class_path": "actionprior.MotionPriorModule",
    "init_args": {
        "architecture": {"width": 16, "latent_width": 8, "decoder_sees_state": True},
    },
}
TRUNK = {"image_size": 16, "grid": 1, "channels": 8, "text_width": 8, "width": 48}
POLICY = {
    "class_path": "actionprior.VLAModule",
    "init_args": {
        **PRIOR["init_args"],
        "use_prior": False,
        "fusion": {"width": 16, "depth": 1, "heads": 2},
        "trunk": {"class_path": "actionprior.networks.trunks.SmallTrunk", "init_args": TRUNK},
    },
}
TRAINER = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
TRAINER |= {"enable_model_summary": False, "enable_checkpointing": False}

WORDS = {
    "fit": ["--config", "recipe.yaml", "--trainer.fast_dev_run", "true"],
    "doctor": ["--config", "recipe.yaml", "--out", "report"],
    "describe": ["set"],
}

numbers = st.one_of(
    st.integers(-3, 40),
    st.integers(),
    st.floats(),
    st.sampled_from([1e300, -1e300, 1e-300, 2**31, 2**63, 1.75e9]),
)
scalars = st.one_of(
    st.none(), st.booleans(), numbers, st.text(max_size=12), st.sampled_from(["action", "video"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def cells(draw: st.DrawFn) -> Any:
    """Draw a function of a number of rows that gives a parquet column."""
    kind = draw(st.sampled_from(["numbers", "texts", "vectors", "structs", "nested", "same"]))
    value, bad = draw(numbers), draw(st.one_of(st.none(), numbers))
    width = draw(st.integers(0, 5))

    def column(old: pa.ChunkedArray) -> pa.Array:
        count = len(old)
        if kind == "same":  # one row of the recorded ones is another
            rows: list[Any] = old.to_pylist()
            at = width % max(1, count)
            rows[at] = [bad] * len(rows[at]) if isinstance(rows[at], list) else bad
            return _array(rows, old.type)
        made = {
            "numbers": [value] * (count - 1) + [bad],
            "texts": [str(value)] * count,
            "vectors": [[value] * width] * (count - 1) + [[bad] * (width + 1)],
            "structs": [{"x": value, "bytes": b"no image", "path": "a.png"}] * count,
            "nested": [[[value]] * width] * count,
        }[kind]
        return _array(made, None)

    return column


def _array(rows: list[Any], kind: pa.DataType | None) -> pa.Array:
    for wanted in (kind, None, pa.float64(), pa.list_(pa.float64())):
        try:
            return pa.array(rows, wanted)
        except (pa.ArrowException, OverflowError, TypeError):
            continue
    return pa.array([str(row) for row in rows])


@st.composite
def changes(draw: st.DrawFn) -> Any:
    """Draw a function that changes some files of a dataset."""
    file = draw(st.sampled_from(["info", "meta/tasks", "meta/episodes", "data", "data"]))
    choice, value, column = draw(st.integers(0, 10_000)), draw(values), draw(cells())
    gone = draw(st.integers(0, 5)) == 0

    def change(root: Path) -> None:
        if file == "info":
            path = root / "meta/info.json"
            path.write_text(json.dumps(_changed(json.loads(path.read_text()), choice, value, gone)))
            return
        lines = root / f"{file}.jsonl"
        if lines.exists():
            rows = [json.loads(line) for line in lines.read_text().splitlines()]
            rows = _changed(rows, choice, value, gone)
            lines.write_text("\n".join(map(json.dumps, rows)))
            return
        folder = root / file if (root / file).is_dir() else root / "meta"
        for path in (
            folder.rglob("*.parquet") if folder.name != "meta" else [root / "meta/tasks.parquet"]
        ):
            if not path.exists():
                continue
            table = pq.read_table(path)
            place = choice % len(table.column_names)
            name = table.column_names[place]
            table = (
                table.remove_column(place)
                if gone
                else table.set_column(place, name, column(table[name]))
            )
            pq.write_table(table, path)

    return change


def _changed(content: Any, choice: int, value: Any, gone: bool) -> Any:
    """Replace or remove one of the values inside of plain data."""
    ways: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        for key in list(inner) if isinstance(inner, dict) else range(len(inner)):
            ways.append((inner, key))
            if isinstance(inner[key], dict | list):
                walk(inner[key])

    walk(content)
    inner, key = ways[choice % len(ways)]
    if gone:
        del inner[key]
    else:
        inner[key] = value
    return content


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sets")
    kinds = {CAMERAS[0]: "image", CAMERAS[1]: "video"}
    tasks = ("push the cube", "lift the cube")
    new = write_dataset(folder / "new", (9, 8), cameras=kinds, tasks=tasks, split_videos=True)
    return [new, write_v2(new, folder / "old")]


def recipe(root: Path, stage: int, resample: bool) -> dict[str, Any]:
    robot = {**ROBOT, "roots": [str(root)], "resample": resample, "control_hz": 10}
    data: dict[str, Any] = {"embodiments": [robot], "batch_size": 4, "chunk_length": 15}
    name = "LeRobotTrajectories"
    if stage == 2:
        name, robot["cameras"] = "LeRobotVLA", list(CAMERAS)
        data["images"] = {"image_size": 16, "cache_images": False, "video_backend": "pyav"}
    return {
        "model": PRIOR if stage == 1 else POLICY,
        "data": {"class_path": f"data_modules.{name}", "init_args": data},
        "trainer": TRAINER,
    }


@pytest.fixture
def parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse each recipe once. The recipes of the tries are the same, and parsing takes a second."""
    known: dict[str, dict[str, Any]] = {}
    set_up, parse = TrainerCLI.setup_parser, TrainerCLI.parse_arguments

    def setup_parser(self: TrainerCLI, *args: Any) -> None:
        text = Path("recipe.yaml").read_text()
        if text not in known:
            set_up(self, *args)
            known[text] = {
                name: getattr(self, name)
                for name in ("parser", "_subcommand_parsers", "_subcommand_method_arguments")
            }
        vars(self).update(known[text])

    def parse_arguments(self: TrainerCLI, parser: Any, args: Any) -> None:
        about = known[Path("recipe.yaml").read_text()]
        if "parsed" not in about:
            parse(self, parser, args)
            about["parsed"] = self.config.clone()
        self.config = about["parsed"].clone()
        if "dumped" not in about:
            self._dump_config()  # the module's hyper-parameters
            about["dumped"] = self.config_dump
        self.config_dump = about["dumped"]

    monkeypatch.setattr(TrainerCLI, "setup_parser", setup_parser)
    monkeypatch.setattr(TrainerCLI, "parse_arguments", parse_arguments)


@pytest.mark.slow
@pytest.mark.timeout(300 + 5 * TRIES)
@pytest.mark.usefixtures("parsed_once")
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.filterwarnings("ignore")
def test_any_dataset_trains_or_is_refused(
    stage: int,
    sets: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACTIONPRIOR_CACHE", str(tmp_path / "cache"))
    outcomes = Counter[str]()

    @hypothesis.settings(
        max_examples=TRIES,
        suppress_health_check=list(hypothesis.HealthCheck),
        derandomize=not MANY,
        database=None,
    )
    @given(
        st.sampled_from(sets),
        st.lists(changes(), min_size=1, max_size=2),
        st.booleans(),
        st.sampled_from(["fit"] * 4 + ["doctor", "describe"]),
    )
    def tried(source: Path, changing: list[Any], resample: bool, verb: str) -> None:
        for left in tmp_path.iterdir():
            shutil.rmtree(left, ignore_errors=True)
        root = Path(shutil.copytree(source, tmp_path / "set"))
        for change in changing:
            change(root)
        Path("recipe.yaml").write_text(yaml.safe_dump(recipe(root, stage, resample)))
        capsys.readouterr()
        code: Any = 0
        try:
            cli.main([verb, *WORDS[verb]])
        except SystemExit as stop:
            code = stop.code
        errors = capsys.readouterr().err
        assert code in ((0, 1, 2) if verb == "doctor" else (0, 2)), errors
        assert "Traceback" not in errors
        if code == 2:
            assert "error: " in errors.splitlines()[-1]
        outcomes[f"{verb}: {'refused' if code == 2 else 'done'}"] += 1

    tried()
    print(f"stage {stage}: {dict(sorted(outcomes.items()))}")
    assert outcomes["fit: done"] > 0
    assert outcomes["fit: refused"] > 0
