"""Run the grid of a study: data, trunk, priors and cells, each only once."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

import actionprior
from actionprior.errors import UserError
from actionprior.files.atomic import write_json
from actionprior.study.finished_cells import FinishedCell, finished_file
from actionprior.study.grid import Cell, Grid, Prior
from actionprior.study.identity import identity
from actionprior.study.jobs import Jobs
from actionprior.study.plan import Study
from actionprior.study.recipe import Recipe, with_changes
from actionprior.study.run_outputs import measure, stage1_seconds

_PRIOR_COST = "told"  # file of a prior's training time; the name is that of version 0.1.0
QUIET = {"trainer.enable_progress_bar": False, "trainer.enable_model_summary": False}


class Runs:
    """Runs of a grid in one folder, on which several processes may work at once.

    Each run has a lock, and a file that appears when it is finished. A killed run starts again in a
    new folder.

    Args:
        study: The study.
        grid: Runs of the study.
        folder: Folder of ``cells/``, ``priors/``, ``trunks/`` and ``logs/``.
        known: Identities of cells that are finished elsewhere.
    """

    def __init__(self, study: Study, grid: Grid, folder: Path, known: set[str]) -> None:
        self.study = study
        self.grid = grid
        self.folder = folder
        self.known = known
        self.failures: list[str] = []

    def finished(self, cell: Cell) -> bool:
        """Return True if the cell is finished."""
        return cell.id in self.known or finished_file(self.folder, cell).is_file()

    def run(self, cells: Sequence[Cell], at_once: int, only_prepare: bool = False) -> None:
        """Run the cells that are not finished. A failed run does not stop the others.

        Raises:
            UserError: Runs failed; the message is that of the first.
        """
        waiting = list({c.id: c for c in cells if not self.finished(c)}.values())
        if not waiting:
            return
        with Jobs(self.folder / "logs", at_once) as jobs:
            # Jobs without dependencies come first; recordings wait for each other.
            trunk = [self._submit(jobs, partial(self._ground, jobs))] if self.grid.trunk else []
            data = [
                self._submit(jobs, partial(self._prepare, jobs, key, recipe))
                for key, recipe in self._data(waiting).items()
            ]
            priors = {
                prior.id: self._submit(jobs, partial(self._pretrain, jobs, prior), after=data)
                for prior in {c.prior.id: c.prior for c in waiting}.values()
            }
            for cell in [] if only_prepare else waiting:
                needed = [*trunk, priors[cell.prior.id]]
                self._submit(jobs, partial(self._cell, jobs, cell), after=needed)
            jobs.wait()
        if self.failures:
            raise UserError(f"{len(self.failures)} run(s) failed; the first: {self.failures[0]}")

    # ---- kinds of runs ------------------------------------------------------------------------

    def _data(self, cells: list[Cell]) -> dict[str, Recipe]:
        """Return one recipe per set of recordings, for any seed and share that runs use."""
        seedless: dict[str, object] = {"data.seed": None}
        fewer = seedless | {self.study.demonstrations_key: None}
        changes = [(c.prior.recipe, seedless) for c in cells] + [(c.recipe, fewer) for c in cells]
        by_data: dict[str, Recipe] = {}
        for recipe, names in changes:
            by_data.setdefault(identity(with_changes(recipe, names)["data"]), recipe)
        return by_data

    def _prepare(self, jobs: Jobs, key: str, recipe: Recipe) -> None:
        name = f"prepare-{key}"
        done = self.folder / "prepared" / name
        with self._lock(jobs, name):
            if not done.is_file():
                done.parent.mkdir(exist_ok=True)
                config = self._write({"data": recipe["data"]}, done.with_suffix(".yaml"))
                if jobs.run(name, ["prepare", f"--config={config}"]):
                    write_json(recipe["data"], done)

    def _ground(self, jobs: Jobs) -> None:
        path = self._trunk()
        with self._lock(jobs, f"trunk-{self.grid.trunk}"):
            if not path.is_file():
                path.parent.mkdir(exist_ok=True)
                beside = path.with_suffix(".partial.safetensors")
                words = [
                    f"--{key}={value if isinstance(value, str) else json.dumps(value)}"
                    for key, value in (self.study.ground or {}).items()
                ]
                if jobs.run(f"trunk-{self.grid.trunk}", ["ground", f"--out={beside}", *words]):
                    beside.replace(path)

    def _pretrain(self, jobs: Jobs, prior: Prior) -> None:
        path, name = self._prior(prior), f"prior-{prior.name}-{prior.id}"
        with self._lock(jobs, f"prior-{prior.id}"):
            if path.is_file():
                return
            revision, attempt = git_revision(), self._attempt(path.parent)
            changes = {
                "trainer.default_root_dir": str(attempt),
                "trainer.callbacks.ModelCheckpoint.dirpath": str(attempt),
                "trainer.callbacks.ModelCheckpoint.filename": "prior",
            }
            recipe = with_changes(prior.recipe, QUIET | changes)
            if jobs.run(name, ["fit", f"--config={self._write(recipe, attempt / 'recipe.yaml')}"]):
                seconds = stage1_seconds(attempt, int(recipe["trainer"]["max_steps"]))
                write_json({"seconds": seconds, "revision": revision}, path.parent / _PRIOR_COST)
                (attempt / "prior.ckpt").replace(path)

    def _cell(self, jobs: Jobs, cell: Cell) -> None:
        file = finished_file(self.folder, cell)
        arm = f"{cell.arm}-{cell.part}" if cell.part else cell.arm
        name = f"cell-{arm}-{cell.seed}-{cell.id}"
        if not self._prior(cell.prior).is_file():
            return  # its failure has been reported
        with self._lock(jobs, f"cell-{cell.id}"):
            if self.finished(cell):
                return
            revision, attempt = git_revision(), self._attempt(file.parent)
            changes = {
                "trainer.default_root_dir": str(attempt),
                "model.prior_checkpoint": str(self._prior(cell.prior)),
            }
            if self.grid.trunk:
                changes["model.trunk.weights"] = str(self._trunk())
            recipe = with_changes(cell.recipe, changes)
            config = self._write(recipe, attempt / "recipe.yaml")
            if jobs.run(name, ["fit", f"--config={config}"]):
                cost = self._prior(cell.prior).with_name(_PRIOR_COST)
                seconds = float(json.loads(cost.read_text())["seconds"])
                FinishedCell(measure(attempt, recipe), seconds, revision).write(file)

    # ---- parts --------------------------------------------------------------------------------

    def _submit(
        self, jobs: Jobs, task: Callable[[], None], after: Sequence[Future[object]] = ()
    ) -> Future[object]:
        def guarded() -> None:
            try:
                task()
            except UserError as error:
                self.failures.append(str(error))
                print(f"failed: {error}", flush=True)

        return jobs.submit(guarded, after)

    def _prior(self, prior: Prior) -> Path:
        return self.folder / "priors" / prior.id / "prior.ckpt"

    def _trunk(self) -> Path:
        return self.folder / "trunks" / f"{self.grid.trunk}.safetensors"

    def _attempt(self, folder: Path) -> Path:
        """Create an empty attempt folder, deleting what killed attempts left."""
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("attempt-*"):
            shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix="attempt-", dir=folder))

    @contextmanager
    def _lock(self, jobs: Jobs, name: str) -> Iterator[None]:
        """Lock a run by its identity, since arms and studies may share runs."""
        folder = self.folder / "locks"
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / f"{name}.lock")
        while True:
            if jobs.stopped():
                raise CancelledError
            try:
                lock.acquire(timeout=1)
                break
            except Timeout:
                continue
        try:
            yield
        finally:
            lock.release()

    def _write(self, recipe: Recipe, path: Path) -> Path:
        path.write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
        return path


def git_revision() -> str:
    """Return the git revision of this package, with ``-dirty`` if it is changed, or its version."""
    folder = Path(actionprior.__file__).parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # fails in a repository around .venv
        changes = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return f"version {actionprior.__version__}"
