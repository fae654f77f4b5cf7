"""A multiprocessing context for tests that start several processes."""

import multiprocessing

# Processes are forked from a server that imports everything once, and start in milliseconds.
PROCESSES = multiprocessing.get_context("forkserver")
