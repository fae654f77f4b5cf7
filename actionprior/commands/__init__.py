"""The verbs besides ``fit``, ``validate``, ``test`` and ``predict``.

Each module is a verb. Its name is what a user types, and the first line of its docstring is its
line in ``lightning --help``. ``main(args: list[str]) -> None`` runs it: a function whose arguments
are the verb's options and whose docstring is the text of ``--help`` (see ``_parser``). Modules with
a leading underscore are helpers.
"""
