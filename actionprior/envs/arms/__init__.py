"""Arms of the suite: kinematics, control and grippers."""
