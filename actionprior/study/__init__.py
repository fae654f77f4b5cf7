"""The study without Lightning: its grid, its results table, statistics, targets and figures."""
