"""Several processes at once."""

import multiprocessing

# A server that has imported everything once: a process forked from it starts in milliseconds.
PROCESSES = multiprocessing.get_context("forkserver")
