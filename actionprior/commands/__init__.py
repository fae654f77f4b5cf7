"""The verbs beside ``fit``, ``validate``, ``test`` and ``predict``.

A module here is a verb: its name is what one types, its docstring's first line stands in
``lightning --help``, and its ``main(args: list[str]) -> None`` runs it. Heavy libraries are
imported inside ``main``. Names that begin with an underscore are no verbs.
"""
