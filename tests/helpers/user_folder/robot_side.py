"""The robot's side of a server, with openpi's client if it is installed: ``robot_side.py PORT``."""

import sys
from importlib.util import find_spec

import numpy as np

if find_spec("openpi_client"):
    from openpi_client.websocket_client_policy import WebsocketClientPolicy as Client
else:
    from tests.helpers.serving_client import Client

client = Client("127.0.0.1", int(sys.argv[1]))
observation = {
    "observation.state": np.zeros(7, np.float32),
    "observation.images.front": np.full((48, 64, 3), 100, np.uint8),
    "observation.images.wrist": np.full((40, 40, 3), 100, np.uint8),
    "prompt": "put the cube into the box",
}
print("chunk", client.infer(observation)["actions"].shape)
