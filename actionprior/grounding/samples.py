"""Grounding data: images, instructions, and the positions of the objects that they name.

A small vision trunk learns from these samples before it sees demonstrations. They cover the
situations of episodes: the arm anywhere over the table, objects moved, on pads or held in the air,
and each stage of a long task. No physics is simulated: bodies are placed and rendered, so a sample
costs little more than its image.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from actionprior.envs.arms.kinematics import Array, Pose, rotation_matrix, solve_ik
from actionprior.envs.arms.urdf import TOOL_RADIUS
from actionprior.envs.env import TabletopEnv
from actionprior.envs.experts.plan import jaw_depth
from actionprior.envs.scene.scene import SHAPES, WORKSPACE, Scene, Thing
from actionprior.envs.scene.world import CAMERA_EYE, World
from actionprior.envs.tasks import Wordings, check_wordings
from actionprior.errors import UserError
from actionprior.grounding.scene_stages import SceneStage, draw_stage, move

_HELD = 0.25
"""Share of samples in which the gripper holds an object, if the stage allows it."""
_MOVED = 0.35
"""Share of samples in which the target is moved away from its drawn place, if it is loose."""
_NEAR = 0.4
"""Share of samples with the tip close to an object."""
_MARGIN = (0.05, 0.06)
"""Distance beyond the workspace that the tip may be drawn at, along x and y [m]."""
_LOW, _HIGH = 0.012, 0.32
"""Smallest and largest height of the tip [m]."""


class GroundingSamples(NamedTuple):
    """N grounding samples.

    Attributes:
        images: (N, size, size, 3) uint8.
        instructions: N instructions.
        target_xyz: (N, 3) float32, centre of the object to handle next, or of the tab to pull,
            in the robot's base frame [m]. For an object held in the air, it is the place on the
            table behind it, as seen from the camera: a small image hardly shows the difference.
        goal_xyz: (N, 3) float32, place that the object should go to, in the robot's base frame
            [m]: the centre of its pad, of the cube below, and so on (see
            :func:`~actionprior.grounding.scene_stages.draw_stage`). It equals ``target_xyz`` if
            the task has no goal, and is NaN if the image does not show the goal.
    """

    images: NDArray[np.uint8]
    instructions: list[str]
    target_xyz: NDArray[np.float32]
    goal_xyz: NDArray[np.float32]


class _SampleDraft(NamedTuple):
    """A sample before rendering.

    Attributes:
        number: Index of the sample.
        stage: Scene and stage of the task.
        q: (n,) joint angles [rad].
        held: Index of the held object, or None.
        tip: (3,) tip of the tool [m, table].
        target: Index of the object to handle next.
    """

    number: int
    stage: SceneStage
    q: Array
    held: int | None
    tip: Array
    target: int


def grounding_samples(
    env_ids: str | Sequence[str],
    count: int,
    seed: int = 0,
    image_size: int = 64,
    wordings: Wordings = "one",
) -> GroundingSamples:
    """Draw samples from environments in turn.

    Args:
        env_ids: Registered environment ids, possibly of different robots and tasks.
        count: Number of samples, at least 1.
        seed: Random seed. The same seed gives the same samples.
        image_size: Edge of the images [pixels].
        wordings: Wording of the instructions: ``one`` is always the same, ``train`` and
            ``held_out`` draw one for each sample. Images and places do not depend on it.

    Raises:
        UserError: ``env_ids`` is empty or names a robot with two arms, ``count`` is below 1, the
            wordings are unknown or a task has none of them, or PyBullet is not installed.
    """
    check_wordings(wordings)
    env_ids = [env_ids] if isinstance(env_ids, str) else list(env_ids)
    if not env_ids or count < 1:
        raise UserError(
            f"expected an environment and a count of 1 or more; got {env_ids} and {count}"
        )
    samples = GroundingSamples(
        images=np.empty((count, image_size, image_size, 3), np.uint8),
        instructions=[""] * count,
        target_xyz=np.empty((count, 3), np.float32),
        goal_xyz=np.empty((count, 3), np.float32),
    )
    for turn, env_id in enumerate(env_ids):
        rng = np.random.default_rng((seed, turn))
        env: gym.Env[Any, Any] = gym.make(env_id, images=False)
        body = env.unwrapped
        if not isinstance(body, TabletopEnv):
            raise UserError(f"{env_id} is not one of the actionprior/ environments")
        if len(body.arms) > 1:
            raise UserError(f"{env_id} has two arms; grounding samples are of one-arm robots")
        drafts = [_draw_sample(body, rng, number) for number in range(turn, count, len(env_ids))]
        words = np.random.default_rng((seed, turn, 1))
        for draft in drafts:
            wording = body.task.draw_wording(wordings, words)
            samples.instructions[draft.number] = body.task.instruction(draft.stage.scene, wording)
        _render_drafts(body, drafts, image_size, samples)
        env.close()
    return samples


def _draw_sample(env: TabletopEnv, rng: np.random.Generator, number: int) -> _SampleDraft:
    stage = draw_stage(env.task, rng)
    arm = env.arms[0]
    if stage.loose and rng.random() < _MOVED:
        stage = stage._replace(scene=_move_target(stage.scene, rng))
    held = None
    if stage.holds and rng.random() < _HELD:
        other = rng.random() >= 0.7
        held = stage.holds[int(rng.integers(len(stage.holds)))] if other else stage.scene.target
    while True:
        tip = _draw_tip(stage, held, rng)
        lean = rng.uniform(-1.0, 1.0, 3) * (0.08, 0.08, 0.3)
        goal = Pose(arm.to_base(tip), rotation_matrix(lean) @ arm.upright)
        solution = solve_ik(
            env.chain, env.home, goal, free_yaw=True, posture=env.home, tolerance=2e-3
        )
        if solution.error < 5e-3:
            tip = arm.tip(solution.q).position
            target = stage.next(tip) if held is None or held not in stage.goals else held
            return _SampleDraft(number, stage, solution.q, held, tip, target)


def _move_target(scene: Scene, rng: np.random.Generator) -> Scene:
    """Move the target near a pad, or to any place that a push can reach."""
    others = [t for i, t in enumerate(scene.things) if i != scene.target]
    while True:
        if scene.pads and rng.random() < 0.6:
            pad = scene.pads[int(rng.integers(len(scene.pads)))]
            x, y = rng.normal((pad.x, pad.y), 0.03).tolist()
        else:
            x, y = _random_place(rng)
        if all(math.hypot(x - t.x, y - t.y) > 0.075 for t in others):
            return move(scene, scene.target, x, y)


def _draw_tip(stage: SceneStage, held: int | None, rng: np.random.Generator) -> Array:
    """Draw a position of the tip that is not inside an object, except for the held one."""
    scene = stage.scene
    spots = [(thing.x, thing.y) for thing in scene.things]
    if scene.drawer is not None:
        spots.append((stage.tab or scene.drawer.middle(stage.opening))[:2])
    if rng.random() < _NEAR:
        x, y = rng.normal(spots[int(rng.integers(len(spots)))], 0.025).tolist()
    else:
        x, y = _random_place(rng)
    floor = _LOW if held is None else scene.things[held].height + 0.001
    buried = stage.carried.values()
    for i, thing in enumerate(scene.things):
        if i not in (held, *buried) and math.hypot(x - thing.x, y - thing.y) < 0.055:
            floor = max(floor, floor - _LOW + stage.top(i) + 0.002)
    if scene.drawer is not None:
        tool = (TOOL_RADIUS, 0.0)
        radius, hangs = tool if held is None else SHAPES[scene.things[held].shape][1:]
        floor = max(floor, scene.drawer.height(x, y, stage.opening, radius) + hangs + 0.002)
    return np.array([x, y, floor + (_HIGH - floor) * rng.random() ** 1.5])


def _random_place(rng: np.random.Generator) -> tuple[float, float]:
    x, y = (
        (half + margin) * rng.uniform(-1, 1)
        for half, margin in zip(WORKSPACE, _MARGIN, strict=True)
    )
    return x, y


def _render_drafts(
    env: TabletopEnv, drafts: list[_SampleDraft], image_size: int, samples: GroundingSamples
) -> None:
    """Render drafts into ``samples``.

    Drafts with the same shapes share one world, which is recoloured and rearranged.
    """
    to_base, jaws = env.arms[0].to_base, env.arms[0].robot.gripper == "jaws"
    by_shapes: dict[tuple[str, ...], list[_SampleDraft]] = defaultdict(list)
    for draft in drafts:
        by_shapes[tuple(thing.shape for thing in draft.stage.scene.things)].append(draft)
    for group in by_shapes.values():
        env.world.build(group[0].stage.scene, group[0].q)
        for draft in group:
            stage, scene = draft.stage, draft.stage.scene
            _arrange(env.world, stage, draft.q)
            centre = stage.tab or stage.centre(draft.target)
            if draft.held is not None:
                thing = scene.things[draft.held]
                depth = jaw_depth(thing) if jaws else 0.0
                held = _hanging_centre(draft.tip + np.array([0.0, 0.0, depth]), thing)
                env.world.place_object(draft.held, held, thing.yaw)
                if draft.held == draft.target:
                    centre = _shift_to_table(held, thing)
            goal = stage.goals[draft.target] or centre
            samples.images[draft.number] = env.world.render(image_size)
            samples.target_xyz[draft.number] = to_base(np.array(centre))
            samples.goal_xyz[draft.number] = to_base(np.array(goal))


def _arrange(world: World, stage: SceneStage, q: Array) -> None:
    """Arrange a world with the same shapes to look as at a stage."""
    scene = stage.scene
    world.recolor(scene)
    world.arrange(scene, q)
    world.open_drawer(stage.opening)
    world.set_lamp(stage.light)
    for index in stage.carried:
        world.place_object(index, stage.centre(index), scene.things[index].yaw)


def _shift_to_table(seen: tuple[float, float, float], thing: Thing) -> tuple[float, float, float]:
    """Follow the camera's ray through ``seen`` to where the object would stand on the table."""
    eye, centre = np.array(CAMERA_EYE), np.array(seen)
    height = thing.height / 2
    x, y, _ = eye + (centre - eye) * (eye[2] - height) / (eye[2] - centre[2])
    return float(x), float(y), height


def _hanging_centre(top: Array, thing: Thing) -> tuple[float, float, float]:
    """Compute the centre of an object whose top is at ``top``."""
    x, y, z = top.tolist()
    return x, y, max(z - thing.height / 2, thing.height / 2)
