"""Read LeRobot datasets of formats v3.0, v2.1 and v2.0, on disk, on the hub and by URL."""
