"""The ONNX graphs say what the networks say."""

from pathlib import Path

import numpy as np
import pytest
import torch

from actionprior.chunk_planner import Planner
from actionprior.export.onnx import ACT, SEE, export_onnx
from actionprior.policy import Policy
from tests.helpers.policies import observation, tiny_network
from tests.helpers.robots import delta_arm, position_arm

runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("history", ["off", "encoder", "mlp"])
def test_the_graphs_say_what_the_networks_say(tmp_path: Path, history: str) -> None:
    network = tiny_network([position_arm(), delta_arm()], history=history, integration_steps=2)
    policy = Policy(network, "panda", execute_steps=1)
    task = "reach for thing 0"
    export_onnx(network, tmp_path, robot=1, task=task, image_size=(40, 48))
    see, act = (runtime.InferenceSession(tmp_path / name) for name in (SEE, ACT))
    for step in (0, 3, 9):
        sensed = policy.check_observation(observation(policy.robot, step))
        planner: Planner = policy.planner
        assert sensed.images is not None
        question = planner.request([policy.memory], sensed.state[None], sensed.images[None])
        seen, noise, _ = question
        past = seen.history
        (latent,) = see.run(
            None,
            {
                "images": seen.images_BCKYX.numpy(),
                "state": seen.state_BS.numpy(),
                "history_action": past.action_BHA.numpy(),
                "history_state": past.state_BHS.numpy(),
                "history_reference": past.reference_BA.numpy(),
                "history_mask": past.step_mask_BH.numpy(),
            },
        )
        seen = seen._replace(task=[task])
        np.testing.assert_allclose(latent, network.latent(seen).detach(), atol=1e-5)
        (action,) = act.run(
            None,
            {
                "z": latent,
                "state": seen.state_BS.numpy(),
                "reference": seen.reference_BA.numpy(),
                "noise": noise.numpy(),
            },
        )
        np.testing.assert_allclose(action, network.predict_chunk(seen, noise), atol=1e-4)
        policy.select_action(observation(policy.robot, step))
    assert torch.is_tensor(noise)
