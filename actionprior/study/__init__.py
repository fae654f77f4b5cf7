"""Studies of the motion prior: grid, results table, statistics, targets and figures."""
