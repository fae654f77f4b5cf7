"""A recipe that trains and plays a policy in seconds, and options of an equally small ACT."""

from pathlib import Path
from typing import Any

import yaml

REACH = "actionprior/PandaReach-v0"
SMALL = {
    "policy.dim_model": "32",
    "policy.n_heads": "2",
    "policy.dim_feedforward": "32",
    "policy.chunk_size": "8",
    "policy.n_action_steps": "8",
    "batch_size": "2",
}


def recipe_of(robot: dict[str, Any], observation_map: dict[str, Any], recipe: Path) -> Path:
    """Write a recipe of Stage 2 that trains a robot's policy and plays `PandaReach`."""
    rollouts = {
        "env_ids": [REACH],
        "embodiment": robot["name"],
        "observation_map": observation_map,
        "env_kwargs": {"image_size": 32},
        "num_envs": 2,
        "max_steps": 12,
    }
    content = {
        "model": {
            "class_path": "actionprior.VLAModule",
            "init_args": {
                "trunk": {"class_path": "actionprior.networks.trunks.SmallTrunk"},
            },
        },
        "data": {
            "class_path": "data_modules.LeRobotVLA",
            "init_args": {
                "batch_size": 2,
                "images": {"image_size": 32},
                "embodiments": [robot],
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "callbacks": [{"class_path": "callbacks.RolloutEvaluation", "init_args": rollouts}],
        },
    }
    recipe.write_text(yaml.safe_dump(content))
    return recipe
