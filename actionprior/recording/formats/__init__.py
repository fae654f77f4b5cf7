"""Readers of recordings that are no LeRobot dataset: CSV, npz, HDF5 and ROS bags."""
