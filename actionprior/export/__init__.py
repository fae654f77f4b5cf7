"""Files that ``lightning export`` writes besides the weights."""
