"""Compare our policy with LeRobot's at equal CPU time: ``python -m bench.peers``."""

from bench.command_line import run
from bench.peers.compare import compare

if __name__ == "__main__":
    run(compare, "peers")
