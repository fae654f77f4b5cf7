"""Benchmarks and generated pages of this repository; not part of the installed package.

``python -m bench.NAME --help`` lists the options of a benchmark. Each prints ``RESULT`` and JSON as
its last line. ``command_line``, ``timing``, ``short_runs``, ``bare_loop``, ``gpu``,
``lerobot_policies``, ``scaling_check`` and ``step_costs`` are parts of them and have no command.
"""
