"""Gymnasium environment: one robot or two-arm station, one task, one camera."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from actionprior.envs.arms.arm import ControlledArm
from actionprior.envs.arms.control import Control
from actionprior.envs.arms.kinematics import Array, Chain
from actionprior.envs.arms.robots import (
    ControlMode,
    Robot,
    Station,
    check_control_mode,
    find_robot,
)
from actionprior.envs.arms.urdf import JAW_OPENING
from actionprior.envs.scene.scene import Scene
from actionprior.envs.scene.world import World
from actionprior.envs.tasks import (
    Hand,
    Snapshot,
    Task,
    Wordings,
    check_wordings,
    make_task,
)
from actionprior.errors import UserError

RENDER_SIZE = 256
"""Edge of the frames that ``render()`` returns [pixels]."""

type Observation = dict[str, NDArray[Any]]
type Info = dict[str, Any]


class TabletopEnv(gym.Env[Observation, NDArray[Any]]):
    """One or two robot arms at a table with a task that the instruction describes.

    - Observation: ``state`` (S,) float32 in physical units, named by :attr:`state_names`, and
      ``image`` (size, size, 3) uint8. The state holds the tip in the arm's base frame [m], the
      joints [rad] and the gripper (see :class:`Robot`). A station's second arm follows the first.
    - Action: (A,) float32 in physical units, named by :attr:`action_names`. Actions outside the
      space are clipped.
    - Time: observations and actions come at :attr:`control_hz`. An episode lasts at most the
      task's ``seconds``.
    - Info after reset and every step: ``instruction`` (str), ``is_success`` and ``success`` (bool).
    - Reward: 1 at success, which ends the episode, otherwise 0.

    Args:
        robot: A robot or station, or the name of one in the suite.
        task: A task, or the name of one in the suite.
        image_size: Edge of the observed image [pixels].
        images: True if observations contain ``image``. False renders nothing.
        control_mode: ``joint_delta``, ``joint_position`` or ``ee_delta``. None uses the robot's
            default.
        render_mode: None or ``rgb_array``.
        wordings: Wording of the instruction: ``one`` is always the same, ``train`` and
            ``held_out`` draw one in each episode. The scene depends only on the seed.

    Attributes:
        arms: The arms, each with its kinematics and control.
        chain: Kinematics of the first arm.
        home: (n,) joint angles of the first arm at which its tool points down [rad].
        control: Control of the first arm.
        look_every: Number of control steps between two renderings of ``image``, counted from
            reset. Steps in between repeat the last image. Rollouts set it to the number of steps
            between two plans, because the policy uses no other images.

    Raises:
        UserError: An argument has an unknown or too small value, the task needs another number of
            arms, or PyBullet is not installed.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  as in Gymnasium

    def __init__(
        self,
        robot: str | Robot | Station = "panda",
        task: str | Task = "reach",
        *,
        image_size: int = 64,
        images: bool = True,
        control_mode: ControlMode | None = None,
        render_mode: str | None = None,
        wordings: Wordings = "one",
    ) -> None:
        if image_size < 8:
            raise UserError(f"image_size is {image_size} pixels; the smallest is 8")
        if render_mode not in (None, "rgb_array"):
            raise UserError(f"render_mode {render_mode!r} is not known; use None or 'rgb_array'")
        self.robot = find_robot(robot)
        self.task = make_task(task)
        if self.task.arms != len(self.robot.arms):
            raise UserError(
                f"task {self.task.name!r} is for {self.task.arms} arm(s), but robot "
                f"{self.robot.name!r} has {len(self.robot.arms)}"
            )
        self.control_mode = check_control_mode(control_mode or self.robot.control_mode)
        self.metadata = {**self.metadata, "render_fps": self.robot.control_hz}
        self.arms = [ControlledArm(arm, self.control_mode) for arm in self.robot.arms]
        self.chain: Chain = self.arms[0].chain
        self.home: Array = self.arms[0].home
        self.control: Control = self.arms[0].control
        self.world = World(self.robot)
        self.render_mode = render_mode
        self._wordings = check_wordings(wordings)
        self._wording: str | None = None
        if self._wordings != "one":
            self.task.draw_wording(self._wordings, np.random.default_rng(0))  # raises if none
        self._steps = 0
        self._lamp_color: str | None = None
        self.scene: Scene | None = None
        self._image_size = image_size if images else None
        self._last_image: NDArray[np.uint8] | None = None
        self.look_every = 1
        self._success = False
        self._low = np.concatenate([arm.control.low for arm in self.arms])
        self._high = np.concatenate([arm.control.high for arm in self.arms])
        self._state_box = spaces.Box(*_state_bounds(self.arms))
        parts: dict[str, spaces.Space[Any]] = {"state": self._state_box}
        if self._image_size is not None:
            shape = (image_size, image_size, 3)
            parts["image"] = spaces.Box(0, 255, shape, dtype=np.uint8)
        # Narrower than Gymnasium's declaration, which mypy rejects.
        self.observation_space: spaces.Dict = spaces.Dict(parts)  # type: ignore[assignment]  # Gymnasium declares any space
        low, high = self._low.astype(np.float32), self._high.astype(np.float32)
        self.action_space: spaces.Box = spaces.Box(low, high)

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of ``observation["state"]``, in order."""
        return tuple(feature.name for feature in self.robot.state_features)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of an action's entries, in order."""
        return tuple(feature.name for feature in self.robot.action_features(self.control_mode))

    @property
    def control_hz(self) -> int:
        """Control rate [Hz]."""
        return self.robot.control_hz

    @property
    def step_limit(self) -> int:
        """Maximum number of steps of an episode, at which registered environments are truncated."""
        return round(self.task.seconds * self.robot.control_hz)

    @property
    def robot_name(self) -> str:
        """Name of the robot."""
        return self.robot.name

    @property
    def task_name(self) -> str:
        """Name of the task."""
        return self.task.name

    @property
    def instruction(self) -> str:
        """Instruction of the current episode, empty before the first reset."""
        if self.scene is None:
            return ""
        if self._wording is None:
            return self.task.instruction(self.scene)
        return self.task.instruction(self.scene, self._wording)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Draw a scene and the arms' start poses. The same seed gives the same episode.

        Args:
            seed: Seed of the episode, as in Gymnasium.
            options: ``{"scene": Scene}`` to use this scene instead of drawing one.
        """
        super().reset(seed=seed)
        drawn = self.task.draw(self.np_random)
        self.scene = (options or {}).get("scene", drawn)
        starts = [arm.random_start(self.np_random) for arm in self.arms]
        if self._wordings != "one":
            self._wording = self.task.draw_wording(self._wordings, self.np_random)
        self.task.reset()
        for arm, q in zip(self.arms, starts, strict=True):
            arm.control.reset(q)
        self._success = False
        self.world.build(self.scene, np.concatenate(starts))
        self._steps, self._lamp_color = 0, None
        self._update_lamp()
        return self._observe(), self._info()

    def step(
        self, action: NDArray[np.floating[Any]]
    ) -> tuple[Observation, float, bool, bool, Info]:
        """Advance by one control step.

        Raises:
            UserError: The action has the wrong shape or is not finite, or the environment was not
                reset.
        """
        if self.scene is None:
            raise UserError("call reset() before step()")
        command = np.asarray(action, dtype=np.float64)
        if command.shape != self._low.shape or not np.isfinite(command).all():
            raise UserError(
                f"the action must be {self._low.size} finite numbers "
                f"({', '.join(self.action_names)}); got shape {command.shape}: {command}"
            )
        command = np.clip(command, self._low, self._high)
        commands = np.split(command, np.cumsum([arm.control.low.size for arm in self.arms])[:-1])
        start = np.concatenate([arm.control.target_q for arm in self.arms])
        end = np.concatenate(
            [arm.control.advance(part[:-1]) for arm, part in zip(self.arms, commands, strict=True)]
        )
        grips = [float(part[-1]) for part in commands]
        for gripper, grip in zip(self.world.grippers, grips, strict=True):
            gripper.before_step(grip)
        self.world.step(start, end)
        for gripper, grip in zip(self.world.grippers, grips, strict=True):
            gripper.after_step(grip)
        self._steps += 1
        self._update_lamp()
        self._success = self.task.succeeded(self.scene, self.snapshot())
        return self._observe(), float(self._success), self._success, False, self._info()

    def snapshot(self) -> Snapshot:
        """Read the true state of the world in table coordinates, for tasks and scripted experts."""
        hands = tuple(
            Hand(*arm.tip(q), gripper.held, gripper.on, arm.robot.gripper == "jaws")
            for arm, q, gripper in zip(self.arms, self._joints(), self.world.grippers, strict=True)
        )
        return Snapshot(
            tip=hands[0].tip,
            positions=self.world.positions(),
            speeds=self.world.speeds(),
            held=hands[0].held,
            suction=hands[0].on,
            hands=hands,
            time=self._steps / self.control_hz,
            opening=self.world.opening(),
        )

    def render(self) -> NDArray[np.uint8] | None:
        """Render a frame (256, 256, 3). Return None unless ``render_mode`` is ``rgb_array``."""
        return self.world.render(RENDER_SIZE) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close the simulator. Calling this twice is safe."""
        self.world.close()

    def _update_lamp(self) -> None:
        if self.scene is not None:
            color = self.task.cue(self.scene, self._steps / self.control_hz)
            if color != self._lamp_color:
                self.world.set_lamp(color)
                self._lamp_color = color

    def _observe(self) -> Observation:
        parts = [
            np.concatenate([arm.chain.forward(q).position, q, [gripper.reading]])
            for arm, q, gripper in zip(self.arms, self._joints(), self.world.grippers, strict=True)
        ]
        state = np.concatenate(parts).astype(np.float32)
        # A joint pressed against its limit may overshoot it; real sensors would saturate.
        observation: Observation = {
            "state": np.clip(state, self._state_box.low, self._state_box.high)
        }
        if self._image_size is not None:
            if self._last_image is None or self._steps % self.look_every == 0:
                self._last_image = self.world.render(self._image_size)
            observation["image"] = self._last_image
        return observation

    def _joints(self) -> list[Array]:
        """Read the joint angles (n,) [rad] of each arm."""
        stops = np.cumsum([arm.chain.dof for arm in self.arms])
        return np.split(self.world.joints(), stops[:-1])

    def _info(self) -> Info:
        return {
            "instruction": self.instruction,
            "is_success": self._success,
            "success": self._success,
        }


def _state_bounds(arms: list[ControlledArm]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the lower and upper bounds (S,) of ``state``."""
    reach = np.full(3, 1.5)
    low: list[Array] = []
    high: list[Array] = []
    for arm in arms:
        widest = JAW_OPENING if arm.robot.gripper == "jaws" else 1.0
        low += [-reach, arm.chain.lower - 0.2, np.zeros(1)]
        high += [reach, arm.chain.upper + 0.2, np.full(1, widest)]
    return np.concatenate(low).astype(np.float32), np.concatenate(high).astype(np.float32)
