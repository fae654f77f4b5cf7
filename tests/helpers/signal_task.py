"""A task whose causes are known: what decides each joint's goal is shown in one input.

A robot of four joints moves a fifth of the way to its goal in each step. The front camera's
brightness shows the first joint's goal, the wrist camera's that of the second, and the instruction
names that of the third. The fourth joint is a clock, by which the gripper closes.

The same scenes are an environment, ``test/Signals-v0``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Dict

from actionprior.batch import Observation, VLABatch
from actionprior.data import EmbodiedDataModule, Frames
from actionprior.data.frame_ranges import Spans
from actionprior.data.store import Recording, TrajectoryStore
from actionprior.embodiment import ActionGroup, Embodiment, StateGroup

STEPS, CHUNK, HISTORY, SIZE = 24, 8, 3, 16
FIRST_LATE = 5  # steps by which a late gripper label lags
TASKS = ("go left", "please go right now")
CAMERAS = ["front", "wrist"]
TINT = {"front": (1.0, 0.6, 0.2), "wrist": (0.3, 0.6, 1.0)}
FULL = {"front": 240, "wrist": 120}
JOINTS = ["j1", "j2", "j3", "clock"]


def signal_robot() -> Embodiment:
    return Embodiment(
        name="signals",
        control_hz=10.0,
        action=[
            ActionGroup("arm", "joints", JOINTS, "joint_position", "rad", relative_to="arm"),
            ActionGroup("gripper", "joints", ["gripper"], "gripper", "", offset=7),
        ],
        state=[
            StateGroup("arm", "joints", JOINTS, "position", "rad"),
            StateGroup("gripper", "joints", ["gripper"], "gripper", "", offset=7),
        ],
        cameras=list(CAMERAS),
    )


def goal_of(front: float, wrist: float, task: str) -> np.ndarray:
    """Goals of the first three joints."""
    return np.array([front, wrist, -0.8 if task == TASKS[0] else 0.8], np.float32)


def advance(place: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The joint targets of a step; the clock ticks."""
    return np.append(place[:3] + 0.2 * (goal - place[:3]), place[3] + 1 / STEPS)


def picture(camera: str, value: float) -> np.ndarray:
    """An image (Y, X, 3) whose brightness shows a value in -1 … 1; its lower half is darker."""
    level = FULL[camera] * (0.55 + 0.4 * value) * np.array(TINT[camera])
    image = np.broadcast_to(level, (SIZE, SIZE, 3)).copy()
    image[SIZE // 2 :] *= 0.7
    return image.astype(np.uint8)


class DrawnScene(NamedTuple):
    """What a reset seed draws: values shown by the cameras, instruction, first joints."""

    shown: np.ndarray
    task: str
    start: np.ndarray


def draw_scene(seed: int) -> DrawnScene:
    rng = np.random.default_rng(seed)
    task = TASKS[int(rng.integers(2))]
    return DrawnScene(rng.uniform(-1, 1, 2), task, np.append(rng.uniform(-1, 1, 3), 0.0))


class SignalData(EmbodiedDataModule):
    """Demonstrations of the task, in memory, with one cause of error planted.

    Args:
        episodes: Number of episodes, of which every sixth is held out.
        fault: ``frozen`` front camera, ``shuffled`` instructions, ``one_task_per_scene``, ``late``
            gripper labels, ``still``: actions that are the state; empty: none.
    """

    def __init__(self, episodes: int = 120, fault: str = "") -> None:
        super().__init__(CHUNK, HISTORY, batch_size=64)
        self.episodes, self.fault = episodes, fault
        self.robot = signal_robot()

    @property
    def embodiments(self) -> list[Embodiment]:
        return [self.robot]

    def read_frames(self) -> Frames:
        scenes, rng = [draw_scene(seed) for seed in range(self.episodes)], np.random.default_rng(0)
        self.shown_E2 = np.array([scene.shown for scene in scenes])
        self.task_E = [scene.task for scene in scenes]
        if self.fault == "one_task_per_scene":
            self.task_E = [TASKS[int(front > 0)] for front, _ in self.shown_E2]
        shown_E2 = self.shown_E2 * (0.0 if self.fault == "frozen" else 1.0, 1.0)
        images = [[picture(c, v) for c, v in zip(CAMERAS, e, strict=True)] for e in shown_E2]
        self.images_ECKYX = torch.from_numpy(np.array(images)).movedim(-1, 2).contiguous()
        actions, states = [], []
        for scene, task in zip(scenes, self.task_E, strict=True):
            action_Ta, state_Ts = demonstrate(scene.start, goal_of(*scene.shown, task))
            actions.append(state_Ts.copy() if self.fault == "still" else action_Ta)
            states.append(state_Ts)
            if self.fault == "late":
                late = np.roll(action_Ta[:, 4], FIRST_LATE)
                late[:FIRST_LATE] = 0.0
                actions[-1][:, 4] = late
        if self.fault == "shuffled":
            self.task_E = [self.task_E[i] for i in rng.permutation(self.episodes)]
        recording = Recording(
            np.concatenate(actions).astype(np.float32),
            np.concatenate(states).astype(np.float32),
            np.full(self.episodes, STEPS, np.int64),
        )
        store = TrajectoryStore([self.robot], [(0, recording)])
        held_out = (np.arange(len(store)) // STEPS) % 6 == 0
        return Frames(store, Spans.where(~held_out), Spans.where(held_out))

    def windows(self, training: bool) -> "SignalWindows":
        return SignalWindows(self)


def demonstrate(start: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Actions and states of an episode; the gripper's state follows its command by a step."""
    place = start
    gripper, actions, states = 0.0, [], []
    for _ in range(STEPS):
        states.append([*place, gripper])
        place = advance(place, goal)
        gripper = float(place[3] > 0.51)
        actions.append([*place, gripper])
    return np.array(actions, np.float32), np.array(states, np.float32)


class SignalWindows(torch.utils.data.Dataset):
    def __init__(self, data: SignalData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.frames.store)

    def __getitems__(self, frames: Sequence[int]) -> VLABatch:
        data, at = self.data, torch.as_tensor(frames)
        history, future = data.frames.store.around(at, HISTORY, CHUNK)
        episodes = (at // STEPS).tolist()
        observation = Observation(
            images_BCKYX=data.images_ECKYX[at // STEPS],
            camera_mask_BC=torch.ones(len(at), 2, dtype=torch.bool),
            task=[data.task_E[e] for e in episodes],
            state_BS=future.state_BHS[:, 0].clone(),
            reference_BA=future.reference_BA.clone(),
            history=history,
            embodiment_B=future.embodiment_B,
        )
        return VLABatch(observation, future)


class SignalEnv(gymnasium.Env[Any, Any]):
    """The same scenes, one per seed; success is to be near all goals.

    Args:
        fault: ``cameras``: exchanged; ``mirror``: the front picture is upside down; ``degrees``:
            states in degrees; ``offset``: actions are offset; empty: none.
    """

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012  as its base class has it

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.action_space = Box(-4, 4, (5,), np.float32)
        image = Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        state = Box(-np.inf, np.inf, (5,), np.float32)
        self.observation_space = Dict({"state": state, "front": image, "wrist": image})

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.shown, self.task, self.place = draw_scene(0 if seed is None else seed)
        self.goal, self.gripper = goal_of(*self.shown, self.task), 0.0
        return self._observe(), self._info()

    def step(self, action: Any) -> Any:
        offset = 0.3 if self.fault == "offset" else 0.0
        self.place, self.gripper = np.asarray(action[:4]) + offset, float(action[4] > 0.5)
        info = self._info()
        return self._observe(), 0.0, bool(info["success"]), False, info

    def places(self) -> dict[str, np.ndarray]:
        return {"object": np.append(self.shown, 0.0)}

    def _observe(self) -> Any:
        shown = dict(zip(CAMERAS, self.shown, strict=True))
        images = {camera: picture(camera, shown[camera]) for camera in CAMERAS}
        if self.fault == "cameras":
            images = {"front": images["wrist"], "wrist": images["front"]}
        if self.fault == "mirror":
            images["front"] = images["front"][::-1].copy()
        state = np.append(self.place, self.gripper).astype(np.float32)
        if self.fault == "degrees":
            state[:4] = np.degrees(state[:4])
        return {"state": state, **images}

    def _info(self) -> dict[str, Any]:
        near = bool(np.abs(self.place[:3] - self.goal).max() < 0.15)
        return {"success": near, "instruction": self.task}


gymnasium.register("test/Signals-v0", SignalEnv, max_episode_steps=STEPS)
