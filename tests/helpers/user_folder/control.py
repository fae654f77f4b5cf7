"""A control loop as docs/policy.md shows it."""

import numpy as np

from actionprior import Policy

policy = Policy.load("policy.ckpt")
policy.reset(seed=0)
state = np.zeros(7, np.float32)
for _ in range(12):
    action = policy.select_action(
        {
            "observation.state": state,
            "observation.images.front": np.full((48, 64, 3), 100, np.uint8),
            "observation.images.wrist": np.full((40, 40, 3), 100, np.uint8),
            "task": "put the cube into the box",
        }
    )
    state = action
print("moved", np.abs(state).max() > 0)
