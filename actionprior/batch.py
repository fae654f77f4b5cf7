"""Batches that a data module gives to a model: one named tuple per stage.

Named tuples keep their type in torch's collation and pinning and in Lightning's device transfer.

Axes: B batch, H chunk or history steps, A = 37 action slots, S = 74 state slots,
C cameras, K = 3 colours, Y rows, X columns, F features.
"""

from typing import NamedTuple

from torch import Tensor


class TrajectoryBatch(NamedTuple):
    """Windows of state-action trajectories in the unified spaces, in the robots' own units.

    Slots that a robot does not use are zero. Steps outside the episode hold any finite value and
    are False in ``step_mask_BH``, so losses and metrics exclude them. Step h pairs the state
    s_{t+h} with the action a_{t+h} commanded from it.
    """

    action_BHA: Tensor  # float32 (B, H, 37), raw: absolute targets or per-step deltas
    state_BHS: Tensor  # float32 (B, H, 74)
    reference_BA: Tensor  # float32 (B, 37), the window's first state: position-like actions are
    #                       learnt relative to it; zero elsewhere
    step_mask_BH: Tensor  # bool (B, H), True inside the episode
    embodiment_B: Tensor  # int64 (B,), index into the DataModule's embodiments


class Observation(NamedTuple):
    """Input of a policy at one time step, the same in training and on the robot.

    In training, features that the trunk's frozen part computed earlier may stand for the images.
    """

    images_BCKYX: Tensor  # uint8 (B, C, 3, Y, X); without rows and columns if there are features
    camera_mask_BC: Tensor  # bool (B, C), False where the embodiment has fewer cameras
    task: list[str]  # B instructions
    state_BS: Tensor  # float32 (B, 74)
    reference_BA: Tensor  # float32 (B, 37), of the chunk to be predicted
    history: TrajectoryBatch  # the past H_h steps, oldest first from position 0, padding last
    embodiment_B: Tensor  # int64 (B,)
    features_BCF: Tensor | None = None  # float (B, C, F), see networks/trunks/frozen_part.py


class Committed(NamedTuple):
    """First actions of the next chunk, which the robots are already executing.

    Actions are as commanded, in the robots' own units and slots. Steps after the first ``steps_B``
    hold any finite value.
    """

    action_BHA: Tensor  # float32 (B, H, 37)
    steps_B: Tensor  # int64 (B,), 0 to H


class VLABatch(NamedTuple):
    """Batch of Stage 2: observations and the chunks that a demonstrator executed from them."""

    observation: Observation
    future: TrajectoryBatch  # starts at the observation's step; only the teacher may see it
    keyframe_BS: Tensor | None = None  # float32 (B, 74), state at the next keyframe of the episode


def batch_size(batch: TrajectoryBatch | VLABatch) -> int:
    """Return the number of rows of a batch, for Lightning's ``ThroughputMonitor``."""
    rows = batch.future if isinstance(batch, VLABatch) else batch
    return len(rows.embodiment_B)
