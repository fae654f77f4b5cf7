"""Demonstrations of scripted experts, written as LeRobot datasets."""
