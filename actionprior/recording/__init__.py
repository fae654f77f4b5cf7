"""Record demonstrations of scripted experts as LeRobot datasets."""
