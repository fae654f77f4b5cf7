"""What ``lightning export`` writes beside the weights."""
