"""Train LeRobot's policies and this project's on the same demonstrations for the same CPU time."""
