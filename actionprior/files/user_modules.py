"""Modules in the folder that a command runs in: found only where a recipe names them.

The folder is not on ``sys.path``. Many libraries try imports that may fail, such as ``pynvml``, and
would run a file of that name in a folder that somebody else filled.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, override

from actionprior.errors import UserError

VARIABLE = "ACTIONPRIOR_USER_MODULES"
"""Environment variable by which processes that this one starts find the same modules."""
_CLASS = re.compile(r"[A-Za-z_]\w*(\.\w+)*\.[A-Z]\w*")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
# Keys whose values are always names to import: also functions and whole modules.
_KEYS = {"class_path", "expert", "import_modules", "trunk"}
# What our libraries try to import without declaring it. Names that they declare are in their
# metadata.
_UNDECLARED = """
    _jsonnet _typeshed _wmi accimage amdsmi apex backports bottleneck brotlicffi can duckdb
    envwrap fairscale faiss fbgemm_gpu flint fx2trt_oss gammatone gmpy gmpy2 h2
    habana_frameworks hebi hid horovod inplace_abn ipywidgets isal librosa lz4 lzmaffi magma mkl
    monkeytype mpi4py msamp nibabel numba onnx_tf opt_einsum pycocotools pydantic_core pydot
    pygame pygraphviz pynput pynvml pytorch pyzstd redis ruamel scservo_sdk serial simplejson
    sklearn snappy socks substrait tabulate tensorflow tensorrt torch2trt torch_directml
    torch_npu torch_xla torchao torchcomms torchdistx transformer_engine tree triton tvm
    unitree_sdk2py uvloop wandb xarray z3 zmq zstandard
"""


class UserModuleFinder(MetaPathFinder):
    """Find top-level modules in one folder by their names, after everything that is installed.

    Args:
        folder: Folder to look into.
        names: Top-level names that may be found there.
    """

    def __init__(self, folder: str, names: Iterable[str]) -> None:
        self.folder = folder
        self.names = frozenset(names)

    @override
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the module's specification, or None if the name may not be found here."""
        if path is not None or fullname not in self.names:
            return None
        return PathFinder.find_spec(fullname, [self.folder])


def allow(words: list[str], folder: Path) -> None:
    """Make what a command line and its recipes name importable from a folder.

    Processes that this one starts find the same modules, and nothing else in the folder.

    Args:
        words: Words of the command line.
        folder: Folder that the command runs in.

    Raises:
        UserError: The folder has a module of that name, and a library may mean another by it.
    """
    names = {
        name
        for name in named_modules(words, folder)
        if PathFinder.find_spec(name, [str(folder)]) and not PathFinder.find_spec(name)
    }
    for name in sorted(names & foreign_names() if names else ()):
        raise UserError(
            f"a class path names {name}, which {folder} has, but the Python libraries in use try "
            f"to import another {name}; rename the module"
        )
    os.environ[VARIABLE] = os.pathsep.join([str(folder), *sorted(names)])
    restore()


def restore() -> None:
    """Install the finder that the parent process passes on, in place of an earlier one."""
    folder, *names = os.environ.get(VARIABLE, "").split(os.pathsep)
    sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, UserModuleFinder)]
    if names:
        sys.meta_path.append(UserModuleFinder(folder, names))


def named_modules(words: list[str], folder: Path) -> set[str]:
    """Return the top-level names of class paths on a command line and in its YAML files.

    Args:
        words: Words of the command line, such as ``--data mylab.arm.Data`` or ``--config a.yaml``.
        folder: Folder that relative names of files start from.
    """
    found: set[str] = set()
    read: set[Path] = set()
    key = ""
    for word in words:
        value = word
        if word.startswith("--"):
            key, _, value = word.partition("=")
        for name, text in _texts(_parsed(value), key.strip("-+").rpartition(".")[2]):
            found |= _names_of(name, text, folder, read)
    return found


def foreign_names() -> set[str]:
    """Return the top-level names that libraries in use may import, installed or not."""
    from importlib.metadata import distributions, packages_distributions

    declared = {
        re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        for distribution in distributions()
        for requirement in distribution.requires or ()
    }
    normalised = {re.sub(r"[-.]", "_", name).lower() for name in declared}
    return (
        normalised
        | set(_UNDECLARED.split())
        | set(packages_distributions())
        | set(sys.stdlib_module_names)
    )


def _names_of(key: str, text: str, folder: Path, read: set[Path]) -> set[str]:
    """Return the top-level names that one value gives: its own, or those of the file it names."""
    if key == "config" or text.endswith((".yaml", ".yml")):
        path = folder / text
        if path in read or not path.is_file():
            return set()
        read.add(path)
        return {
            name
            for inner, value in _texts(_parsed(path.read_text("utf-8", errors="replace")), "")
            for name in _names_of(inner, value, folder, read)
        }
    form = _DOTTED if key in _KEYS else _CLASS
    return {text.partition(".")[0]} if form.fullmatch(text) else set()


def _parsed(text: str) -> Any:  # noqa: ANN401  whatever YAML holds
    """Return a text as YAML, or the text itself if it is none."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _texts(value: Any, key: str, depth: int = 0) -> Iterator[tuple[str, str]]:  # noqa: ANN401  plain data of a recipe
    """Yield each text in plain data with the key that it stands under."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping) and depth < 100:  # an alias of YAML may lead back to itself
        for name, inner in value.items():
            yield from _texts(inner, str(name), depth + 1)
    elif isinstance(value, list) and depth < 100:
        for inner in value:
            yield from _texts(inner, key, depth + 1)
