"""Read LeRobot datasets of formats v3.0 and v2.1, on disk, on the hub and by URL."""
