"""The arms of the suite: kinematics, control and grippers."""
