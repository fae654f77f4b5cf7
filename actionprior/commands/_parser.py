"""Command-line parser of all verbs: make options from a function's arguments and docstring.

Options have names (``--option value``). A switch is on when it is given (``--overwrite``), and
``--overwrite false`` turns it off. A YAML file may hold options (``--config``). Verbs that read
a recipe's data have an argument ``data``; for them ``--config`` is the recipe. Arguments
``model`` and ``trainer`` are these sections of the recipe as plain data.
"""

import inspect
import re
import sys
from argparse import SUPPRESS, Action
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, NoReturn, get_args, get_type_hints, override

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from actionprior.errors import UserError

RECIPE_KEYS = {"model": dict, "trainer": dict, "seed_everything": int}
"""Sections of a recipe of ``fit`` besides its data, with their types."""


class OneSentenceErrors(ArgumentParser):
    """Parser that reports a wrong command line in one sentence, with the most similar option."""

    @override
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        cause: BaseException | None = ex
        while cause is not None:
            if isinstance(cause, UserError):  # the user's value was refused by our own check
                raise cause
            cause = cause.__cause__ or cause.__context__
        if not self.exit_on_error:  # jsonargparse catches this error and tries another type
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        options = [name for action in parser._actions for name in action.option_strings]
        if unknown := re.search(r"unrecognized arguments: (-\S*?)(?:[=\s]|$)", message):
            message = f"unknown option {unknown[1]!r}{nearest(unknown[1], options)}"
        elif unknown := re.search(r"does not accept option '([\w.]+)'", message):
            keys = [name.removeprefix("--") for name in options]
            message = f"unknown key {unknown[1]!r}{nearest(unknown[1], keys)}"
        prog = parser.prog.replace(" [options]", "")
        raise UserError(f"{in_short(message)}; `{prog} --help` lists the options") from ex


class _HelpFormatter(DefaultHelpFormatter):
    """Keep the paragraphs of a description, and leave out empty defaults."""

    @override
    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n\n".join(fill(paragraph, width, indent) for paragraph in text.split("\n\n"))

    @override
    def _expand_help(self, action: Action) -> str:
        text = super()._expand_help(action)
        text = re.sub(r"<class '(\w+)'>", lambda found: found[1].lower(), text)
        text = re.sub(r"type: Optional\[(.*)\](?=, default|\))", r"type: \1", text)
        text = re.sub(r" \| null(?=, default|\))", "", text)
        return re.sub(r", default: (null|\[\])?(?=[,)])|, known subclasses: [^)]*", "", text)


_OPTIONAL = re.compile(
    r"Does not validate against any of the Union subtypes Subtypes: "
    r"\[<class '[^']+'>, <class 'NoneType'>\] Errors: - "
    r"(.*?)(?: - Expected a <class 'NoneType'>.*)?"
)
_KEY = re.compile(r'Parser key "([^"]+)": (.*)')
_CLASS = re.compile(r"Problem with given class_path '([^']+)': (.*)")


def in_short(message: str) -> str:
    """Reduce what jsonargparse says of a wrong value in a recipe to one short sentence.

    It repeats the whole section of the recipe, and says that it is not None either.
    """
    rest, keys, owner = " ".join(message.split()), list[str](), ""
    while found := _OPTIONAL.fullmatch(rest) or _KEY.fullmatch(rest) or _CLASS.fullmatch(rest):
        rest = found[found.re.groups]
        if found.re is _KEY:
            keys.append(found[1])
        elif found.re is _CLASS:
            owner = found[1]
    if not keys:
        return rest
    if unknown := re.fullmatch(r"Option '([^']+)' is not accepted", rest):
        rest = f"unknown key {unknown[1]!r}{nearest(unknown[1], _arguments(owner))}"
    elif missing := re.fullmatch(r"the following arguments are required: (.*)", rest):
        rest = f"{missing[1]} is missing"
    elif wrong := re.fullmatch(r"Expected a <class '(\w+)'>\. Got value: (.*)", rest):
        rest = f"expected a {wrong[1]}, found {wrong[2]}"
    kind = owner.rpartition(".")[2]
    return f"{'.'.join(keys)}{f' ({kind})' if kind else ''}: {rest}"


def _arguments(class_path: str) -> list[str]:
    """Return the names of a class's arguments, if its module is imported."""
    module, _, name = class_path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return list(inspect.signature(found).parameters) if callable(found) else []


def nearest(word: str, words: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the most similar of ``words``, or an empty string."""
    found = get_close_matches(word, list(words), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def make_parser(
    function: Callable[..., Any], prog: str, *, as_positional: bool = False
) -> OneSentenceErrors:
    """Make the parser of a function's arguments, with the texts of its docstring.

    Args:
        function: Function whose arguments become options.
        prog: Command that a user types.
        as_positional: Take required arguments by position instead of by name.
    """
    parameters = inspect.signature(function).parameters
    description = re.split(r"\n\n(?:Args|Returns|Raises):\n", inspect.getdoc(function) or "")[0]
    parser = OneSentenceErrors(
        prog=prog, description=description.replace("``", "`"), formatter_class=_HelpFormatter
    )
    if "data" in parameters:
        _add_recipe(parser)
    elif "config" not in parameters:
        parser.add_argument("--config", action="config", help="YAML file of these options.")
    skip: set[str | int] = {name for name in parameters if name in ("data", *RECIPE_KEYS)}
    parser.add_function_arguments(function, as_group=False, as_positional=as_positional, skip=skip)
    hints = get_type_hints(function)
    for action in parser._actions:
        if hints.get(action.dest) in (bool, bool | None) and action.option_strings:
            action.nargs, action.const = "?", True
        if isinstance(action.help, str):
            action.help = action.help.replace("``", "`")
    return parser


def call[T](
    function: Callable[..., T], args: list[str] | None, prog: str, *, as_positional: bool = False
) -> T:
    """Call a function with the options of a command line.

    Args:
        function: Function to call; each argument is an option, and ``data`` comes from a recipe.
        args: Words of the command line; None reads ``sys.argv``.
        prog: Command that a user types.
        as_positional: Take required arguments by position instead of by name.

    Raises:
        UserError: An option is unknown or wrong, or the recipe's data are not of the expected
            class.
    """
    parser = make_parser(function, prog, as_positional=as_positional)
    values = parser.instantiate(parser.parse_args(args))
    parameters = inspect.signature(function).parameters
    if "data" in parameters:
        require_data(values["data"], get_type_hints(function)["data"], prog)
    return function(**{name: values[name] for name in parameters})


def require_data(data: object, kind: Any, prog: str) -> None:  # noqa: ANN401  a class or a union
    """Check that a recipe's data module is of the expected class.

    Args:
        data: Data module of the recipe, or None without a recipe.
        kind: Expected class, or its union with None.
        prog: Command that a user types.

    Raises:
        UserError: The data module is of another class, or no recipe is given.
    """
    if not isinstance(data, kind):
        name = (get_args(kind) or (kind,))[0].__name__
        article = "an" if name[0] in "AEIOU" else "a"
        raise UserError(
            f"{prog} needs a recipe whose `data` is {article} {name}, found "
            f"{type(data).__name__} (--config)"
        )


def _add_recipe(parser: ArgumentParser) -> None:
    """Add the options of a recipe of ``fit``, of which only ``data`` is read."""
    from lightning.pytorch import LightningDataModule

    parser.add_argument("--config", action="config", help="Recipe of `lightning fit` (YAML).")
    parser.add_subclass_arguments(
        LightningDataModule,
        "data",
        as_group=False,
        help="Options of the recipe's data module, such as --data.batch_size 8.",
    )
    for name, kind in RECIPE_KEYS.items():
        parser.add_argument(f"--{name}", type=kind, help=SUPPRESS)
