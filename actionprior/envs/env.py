"""The gymnasium environment: one robot, one task, one camera."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from actionprior.envs.control import Control, make_control
from actionprior.envs.kinematics import Array, Chain, Pose, rotation_matrix, solve_ik
from actionprior.envs.robots import CONTROL_HZ, ControlMode, Robot, check_control_mode, find_robot
from actionprior.envs.scene import Scene
from actionprior.envs.tasks import Snapshot, Task, Wordings, check_wordings, make_task
from actionprior.envs.urdf import load_chain
from actionprior.envs.world import World
from actionprior.errors import UserError

RENDER_SIZE = 256
"""Edge of the frames that ``render()`` gives [pixels]."""

type Observation = dict[str, NDArray[Any]]
type Info = dict[str, Any]


_START_LOW, _START_HIGH = (-0.10, -0.14, 0.19), (0.06, 0.14, 0.29)
"""Corners of the box that the tip starts in, in table coordinates [m]."""
_START_LEAN = (0.12, 0.12, 0.4)
"""How far the tool starts from upright: two tilts and the yaw [rad]."""


class TabletopEnv(gym.Env[Observation, NDArray[Any]]):
    """A robot arm with a vacuum tool at a table; the instruction names what to do.

    Observation: ``state`` (S,) float32 in physical units, named by :attr:`state_names` (the tip in
    the robot's base frame [m], joints [rad], gripper: 0 off, 0.5 suction on, 1 object held), and
    ``image`` (size, size, 3) uint8. Action (A,) float32 in physical units, named by
    :attr:`action_names`; actions outside the space are clipped. ``info`` holds ``instruction``
    (str), ``is_success`` and ``success`` (bool) after reset and after every step. The reward is 1
    at success, which ends the episode, else 0.

    Args:
        robot: a robot, or the name of one of the suite's.
        task: a task, or the name of one of the suite's.
        image_size: edge of the observed image [pixels].
        images: False leaves ``image`` out and renders nothing.
        control_mode: ``joint_delta``, ``joint_position`` or ``ee_delta``; None is the robot's own.
        render_mode: None or ``rgb_array``.
        wordings: how the instruction is worded: ``one`` (always the same), or drawn in each
            episode: ``train`` or ``held_out``. The scene that a seed draws is the same in all.

    Raises:
        UserError: an argument is not one of those named above, or PyBullet is not installed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012  as gymnasium has it

    def __init__(
        self,
        robot: str | Robot = "panda",
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
        self.control_mode = check_control_mode(control_mode or self.robot.control_mode)
        self.chain: Chain = load_chain(self.robot)
        self.home: Array = np.array(self.robot.home)
        self.control: Control = make_control(self.control_mode, self.chain, self.home)
        self.world = World(self.robot)
        self.render_mode = render_mode
        self._wordings = check_wordings(wordings)
        self._wording: str | None = None
        if self._wordings != "one":
            self.task.draw_wording(self._wordings, np.random.default_rng(0))  # or say why not
        self._steps = 0
        self._shown: str | None = None
        self.scene: Scene | None = None
        self._base = np.array(self.robot.base)
        self._image_size = image_size if images else None
        self._suction = 0.0
        self._success = False
        reach = np.full(3, 1.5)
        state_low = np.concatenate([-reach, self.chain.lower - 0.2, [0.0]]).astype(np.float32)
        state_high = np.concatenate([reach, self.chain.upper + 0.2, [1.0]]).astype(np.float32)
        self._state_box = spaces.Box(state_low, state_high)
        parts: dict[str, spaces.Space[Any]] = {"state": self._state_box}
        if self._image_size is not None:
            shape = (image_size, image_size, 3)
            parts["image"] = spaces.Box(0, 255, shape, dtype=np.uint8)
        # Narrower than gymnasium's own, which mypy takes for a different type.
        self.observation_space: spaces.Dict = spaces.Dict(parts)  # type: ignore[assignment]
        low, high = self.control.low.astype(np.float32), self.control.high.astype(np.float32)
        self.action_space: spaces.Box = spaces.Box(low, high)

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of ``observation["state"]``, in order."""
        return tuple(feature.name for feature in self.robot.state_features)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of an action's numbers, in order."""
        return tuple(feature.name for feature in self.robot.action_features(self.control_mode))

    @property
    def control_hz(self) -> int:
        """Control rate [Hz]."""
        return CONTROL_HZ

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
        """What the current episode asks for; empty before the first reset."""
        if self.scene is None:
            return ""
        if self._wording is None:
            return self.task.instruction(self.scene)
        return self.task.instruction(self.scene, self._wording)

    @property
    def step_limit(self) -> int:
        """Steps that an episode of the task may take, as the registered ids limit it."""
        return round(self.task.seconds * self.control_hz)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Draw a scene and a start pose of the arm; the same seed gives the same episode.

        Args:
            seed: see gymnasium.
            options: ``{"scene": Scene}`` uses that scene instead of drawing one.
        """
        super().reset(seed=seed)
        drawn = self.task.draw(self.np_random)
        self.scene = (options or {}).get("scene", drawn)
        q = random_start(self.np_random, self.chain, self.home, self._base)
        if self._wordings != "one":
            self._wording = self.task.draw_wording(self._wordings, self.np_random)
        self.task.reset()
        self.control.reset(q)
        self._suction = 0.0
        self._success = False
        self.world.build(self.scene, q)
        self._steps, self._shown = 0, None
        self._show_cue()
        return self._observe(), self._info()

    def step(
        self, action: NDArray[np.floating[Any]]
    ) -> tuple[Observation, float, bool, bool, Info]:
        """Advance by one control step.

        Raises:
            UserError: the action has the wrong shape or is not finite.
            UserError: the environment was not reset.
        """
        if self.scene is None:
            raise UserError("call reset() before step()")
        command = np.asarray(action, dtype=np.float64)
        if command.shape != self.control.low.shape or not np.isfinite(command).all():
            raise UserError(
                f"the action must be {self.control.low.size} finite numbers "
                f"({', '.join(self.action_names)}); got shape {command.shape}: {command}"
            )
        command = np.clip(command, self.control.low, self.control.high)
        start = self.control.target_q
        end = self.control.advance(command[:-1])
        self._suction = float(command[-1])
        on = self._suction > 0.5
        if not on:
            self.world.suck(False)
        self.world.step(start, end)
        if on:
            self.world.suck(True)
        self._steps += 1
        self._show_cue()
        self._success = self.task.succeeded(self.scene, self.snapshot())
        return self._observe(), float(self._success), self._success, False, self._info()

    def snapshot(self) -> Snapshot:
        """The true state of the world, for tasks and scripted experts, in table coordinates."""
        tip = self.chain.forward(self.world.joints()).position + self._base
        return Snapshot(
            tip=tip,
            positions=self.world.positions(),
            speeds=self.world.speeds(),
            held=self.world.held,
            suction=self._suction > 0.5,
            time=self._steps / self.control_hz,
            opening=self.world.opening(),
        )

    def render(self) -> NDArray[np.uint8] | None:
        """A frame (256, 256, 3) under ``render_mode="rgb_array"``, else None."""
        return self.world.render(RENDER_SIZE) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free the simulator; closing twice does no harm."""
        self.world.close()

    def _show_cue(self) -> None:
        if self.scene is not None:
            color = self.task.cue(self.scene, self._steps / self.control_hz)
            if color != self._shown:
                self.world.light(color)
                self._shown = color

    def _observe(self) -> Observation:
        q = self.world.joints()
        gripper = 1.0 if self.world.held is not None else 0.5 * (self._suction > 0.5)
        state = np.concatenate([self.chain.forward(q).position, q, [gripper]]).astype(np.float32)
        # A joint pressed against its limit may overshoot; sensors saturate.
        observation: Observation = {
            "state": np.clip(state, self._state_box.low, self._state_box.high)
        }
        if self._image_size is not None:
            observation["image"] = self.world.render(self._image_size)
        return observation

    def _info(self) -> Info:
        return {
            "instruction": self.instruction,
            "is_success": self._success,
            "success": self._success,
        }


def random_start(rng: np.random.Generator, chain: Chain, home: Array, base: Array) -> Array:
    """Joint angles (n,) [rad] with the tip in a box above the table, the tool leaning a little.

    Args:
        rng: the only source of randomness.
        chain: the arm.
        home: (n,) angles to start the search from; the tool points down there.
        base: (3,) where the robot stands in table coordinates [m].

    Raises:
        UserError: the arm hardly reaches that box from there.
    """
    upright = chain.forward(home).rotation
    for _ in range(100):
        lean = rng.uniform(-1.0, 1.0, 3) * _START_LEAN
        tip = rng.uniform(_START_LOW, _START_HIGH)
        goal = Pose(tip - base, rotation_matrix(lean) @ upright)
        posture = home + rng.uniform(-0.1, 0.1, chain.dof)
        solution = solve_ik(chain, home, goal, posture=posture, iterations=30, tolerance=1e-3)
        if solution.error < 3e-3:
            return solution.q
    raise UserError(
        f"a robot at {base.tolist()} m with home {home.tolist()} rad cannot bring its tool above "
        "the table; choose another base or home"
    )
