"""Parts of recipes."""

ROBOT = {
    "name": "arm",
    "control_hz": 10,
    "action": [
        {
            "name": "arm",
            "slot": "joints",
            "features": ["j1", "j2"],
            "unit": "rad",
            "relative_to": "arm",
        },
        {
            "name": "gripper",
            "slot": "joints",
            "features": ["grip"],
            "representation": "gripper",
            "offset": 7,
        },
    ],
    "state": [
        {"name": "arm", "slot": "joints", "features": ["j1", "j2"], "unit": "rad"},
        {
            "name": "gripper",
            "slot": "joints",
            "features": ["grip"],
            "representation": "gripper",
            "offset": 7,
        },
    ],
}
