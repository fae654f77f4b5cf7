"""What a stranger sends, in numbers: names, links, bombs, descriptions, caches and worker errors.

Each trial ends in one of three ways: refused in one sentence, survived (the right result), or
lost (anything else).
"""

import copy
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actionprior.checkpoints.folder import CONFIG, WEIGHTS, _description_digest, write_folder
from actionprior.checkpoints.keys import CONFIG_DIGEST, CONFIG_PART
from actionprior.errors import UserError
from actionprior.files.names import file_name
from actionprior.files.plain_json import parse_json
from actionprior.policy import Policy
from data_modules.lerobot.named_files import file_below, fill_template, url_below
from data_modules.lerobot.source import fingerprint
from tests.helpers.datasets import CAMERAS, write_dataset
from tests.helpers.policies import observation, tiny_network
from tests.helpers.read_only import read_only
from tests.helpers.vla_data import everything, module

SECONDS = 20.0  # longest time of a trial
ODD = [None, "8", "", -1, 0, 1.5, True, [], {}, ["x"], 10**9, 10**30, 1e308, "../x", "hf-hub:a/b"]
PARTS = ["..", "/", "a", "\0", "etc", "passwd", "::", "://", "~", "{x}", "\n", ".", "é", " ", "%2e"]
TEMPLATES = ["{chunk_index:9999999999d}", "{a.__class__}", "{", "}", "{chunk_index!r}"]


@dataclass
class Count:
    """Trials of one kind of fault."""

    fault: str
    tried: int = 0
    survived: int = 0
    refused: int = 0

    @property
    def lost(self) -> int:
        """Trials that ended neither well nor in one sentence."""
        return self.tried - self.survived - self.refused

    def add(self, survived: bool, refused: bool = False) -> None:
        """Count a trial; one that was refused did not survive."""
        self.tried += 1
        self.survived += survived and not refused
        self.refused += refused

    def attempt(self, work: Callable[[], bool]) -> None:
        """Count a trial that must return True or raise a user error of one line, in time."""
        start = time.perf_counter()
        try:
            survived, refused = work(), False
        except UserError as error:
            survived, refused = False, "\n" not in str(error) and len(str(error)) < 2000
        except Exception:
            survived, refused = False, False
        in_time = time.perf_counter() - start < SECONDS
        self.add(survived and in_time, refused and in_time)


def hostile_inputs(folder: Path, trials: int, rng: random.Random) -> list[Count]:
    """Try every kind of hostile input.

    Args:
        folder: Empty folder for files.
        trials: Trials of each cheap kind.
        rng: Source of the trials.
    """
    return [
        _names(folder / "names", trials, rng),
        _links(folder / "links", max(1, trials // 20), rng),
        _bombs(folder / "bombs", rng),
        _descriptions(folder / "descriptions", trials, rng),
        _read_only_caches(folder / "caches"),
        _worker_errors(folder / "workers"),
    ]


def _names(root: Path, trials: int, rng: random.Random) -> Count:
    count = Count("hostile names")
    root.mkdir(parents=True)
    (root / "out").symlink_to("/etc")
    for _ in range(trials):
        name = "".join(rng.choices(PARTS, k=rng.randrange(1, 7)))

        def below(name: str = name) -> bool:
            real = os.path.realpath(file_below(root, name))
            return real == str(root) or real.startswith(f"{os.path.realpath(root)}/")

        count.attempt(below)
        count.attempt(lambda name=name: ".." not in url_below("s3://a/b", name).split("/"))
        count.attempt(lambda name=name: Path(file_name(name)).name == file_name(name) != "..")
    for template in TEMPLATES:
        count.attempt(lambda t=template: len(fill_template(root, t, {"chunk_index": 1})) < 200)
    return count


def _links(folder: Path, trials: int, rng: random.Random) -> Count:
    count = Count("link loops")
    for trial in range(trials):
        root = folder / str(trial)
        (root / "meta").mkdir(parents=True)
        (root / "meta/info.json").write_text("{}")
        places = [root / "data"]
        for i in range(8):
            places.append(rng.choice(places) / f"d{i}")
        places[-1].mkdir(parents=True)
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
        for i in range(20):
            target = rng.choice([*places, root, Path("/"), Path(".."), Path(f"l{i}")])
            (rng.choice(places) / f"l{i}").symlink_to(target)
        count.attempt(lambda root=root: len(fingerprint(root)) == 64)
    return count


def _bombs(folder: Path, rng: random.Random) -> Count:
    count = Count("bombs")
    exported, description = _exported(folder / "exported")
    numbers = [p for p in _places(description) if type(_at(description, p)) is int]
    for place in rng.sample(numbers, min(8, len(numbers))):
        for value in (100_000, 1_000_000, 10**12):
            changed = _changed(description, place, value)
            count.attempt(lambda changed=changed: _acts(exported, changed, folder / "bomb"))
    for depth in (100, 10_000, 1_000_000):
        count.attempt(lambda depth=depth: parse_json("[" * depth + "]" * depth, "x") is None)
    return count


def _descriptions(folder: Path, trials: int, rng: random.Random) -> Count:
    count = Count("damaged descriptions")
    exported, description = _exported(folder / "exported")
    places = _places(description)
    for _ in range(trials):
        changed = _changed(description, rng.choice(places), rng.choice(ODD))
        count.attempt(lambda changed=changed: _acts(exported, changed, folder / "damaged"))
    return count


def _read_only_caches(folder: Path) -> Count:
    count = Count("read-only caches")
    root = write_dataset(folder / "set", (6,), cameras={CAMERAS[0]: "image"})
    cache = folder / "cache"
    before = os.environ.get("ACTIONPRIOR_CACHE")
    os.environ["ACTIONPRIOR_CACHE"] = str(cache)
    cache.mkdir()
    try:
        with read_only(cache):
            count.attempt(lambda: len(everything(module(root, val_fraction=0)).future) < 0)
        expected = everything(module(root, val_fraction=0)).observation.images_BCKYX

        def again() -> bool:
            found = everything(module(root, val_fraction=0)).observation.images_BCKYX
            return torch.equal(found, expected)

        with read_only(cache):
            count.attempt(again)
    finally:
        del os.environ["ACTIONPRIOR_CACHE"]
        if before is not None:
            os.environ["ACTIONPRIOR_CACHE"] = before
    return count


def _worker_errors(folder: Path) -> Count:
    count = Count("errors in worker processes")
    root = write_dataset(folder / "set", (6,), cameras={CAMERAS[0]: "video"})
    data = [
        module(
            root,
            val_fraction=0,
            cache_images=False,
            num_workers=workers,
            video_backend="pyav",
            cache_dir=str(folder / "cache"),
        )
        for workers in (0, 1, 1)
    ]
    (path,) = root.rglob("*.mp4")
    whole = path.read_bytes()
    for part, content in zip(data, (b"no video", b"no video", whole[:300]), strict=True):
        path.write_bytes(content)
        count.attempt(lambda part=part: next(iter(part.train_dataloader())) is None)
    return count


def _exported(folder: Path) -> tuple[Path, dict[str, Any]]:
    write_folder(tiny_network(), {CONFIG_PART: {"execute_steps": 5}}, folder)
    description = json.loads((folder / CONFIG).read_text())[CONFIG_PART]
    del description[CONFIG_DIGEST]
    return folder, description


def _acts(exported: Path, description: dict[str, Any], folder: Path) -> bool:
    """Load a policy with another description, whose digest is right, and act if it loads."""
    folder.mkdir(exist_ok=True)
    config = {CONFIG_PART: description | {CONFIG_DIGEST: _description_digest(description)}}
    (folder / CONFIG).write_text(json.dumps(config))
    if not (folder / WEIGHTS).exists():
        (folder / WEIGHTS).symlink_to(exported / WEIGHTS)
    policy = Policy.load(folder)
    if len(policy.robot.state_features) != 8:  # another robot, for which there is no observation
        return True
    return bool(np.isfinite(policy.predict_chunk(observation(policy.robot))).all())


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [place] if place else []
    entries: Any = value.items() if isinstance(value, dict) else ()
    entries = enumerate(value) if isinstance(value, list) else entries
    return found + [p for key, inner in entries for p in _places(inner, (*place, key))]


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def _changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    copied = copy.deepcopy(value)
    _at(copied, place[:-1])[place[-1]] = new
    return copied
