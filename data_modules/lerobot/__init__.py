"""LeRobot datasets on disk, on the hub and by URL, formats v3.0 and v2.1."""
