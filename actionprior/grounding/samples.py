"""Free grounding data: images, instructions and where the things named in them are.

No physics runs: bodies are put in place and drawn, so samples cost little more than their image.
They cover what happens during episodes: the arm anywhere over the table, objects moved, on pads,
or held in the air, and each stage of a long task. A small vision trunk is warmed up on them
before it sees demonstrations.
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
from actionprior.grounding.scene_stages import Stage, draw_stage, move

_HELD = 0.25
"""Share of samples with an object on the suction cup."""
_MOVED = 0.35
"""Share of samples in which the target stands elsewhere than scenes are drawn."""
_NEAR = 0.4
"""Share of samples with the tip close to an object."""
_MARGIN = (0.05, 0.06)
_LOW, _HIGH = 0.012, 0.32


class GroundingSamples(NamedTuple):
    """Samples, N of them.

    Attributes:
        images: (N, size, size, 3) uint8.
        instructions: N instructions.
        target_xyz: (N, 3) float32, centre of the object to be handled next, or the tab to be
            pulled, in the robot's base frame [m]; of one held in the air, the place on the table
            that the camera sees it in front of. One small image hardly tells the two apart, and
            the robot knows what its cup holds.
        goal_xyz: (N, 3) float32, where it is to go [m]: centre of its pad, of the cube below, and
            so on (see :func:`~actionprior.grounding.scene_stages.draw_stage`); the target's if the
            task asks for no place, and NaN if the image does not show it.
    """

    images: NDArray[np.uint8]
    instructions: list[str]
    target_xyz: NDArray[np.float32]
    goal_xyz: NDArray[np.float32]


class _Draft(NamedTuple):
    """A sample before it is drawn: stage, arm, the object on the cup, if any, and the next one."""

    number: int
    stage: Stage
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
    """Draw ``count`` samples, the environments taking turns.

    Args:
        env_ids: registered ids; different robots and tasks may be mixed.
        count: how many samples, at least 1.
        seed: the same seed gives the same samples.
        image_size: edge of the images [pixels].
        wordings: how instructions are worded: ``one``, or drawn for each sample: ``train``, or
            ``held_out``, which no demonstration uses. Images and places stay the same.

    Raises:
        UserError: no environment is named or one has two arms, ``count`` is below 1, the wordings
            are not known or a task has none of them, or PyBullet is not installed.
    """
    check_wordings(wordings)
    env_ids = [env_ids] if isinstance(env_ids, str) else list(env_ids)
    if not env_ids or count < 1:
        raise UserError(f"need an environment and a count of 1 or more; got {env_ids}, {count}")
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
        drafts = [_draft(body, rng, number) for number in range(turn, count, len(env_ids))]
        words = np.random.default_rng((seed, turn, 1))
        for draft in drafts:
            wording = body.task.draw_wording(wordings, words)
            samples.instructions[draft.number] = body.task.instruction(draft.stage.scene, wording)
        _draw(body, drafts, image_size, samples)
        env.close()
    return samples


def _draft(env: TabletopEnv, rng: np.random.Generator, number: int) -> _Draft:
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
            return _Draft(number, stage, solution.q, held, tip, target)


def _move_target(scene: Scene, rng: np.random.Generator) -> Scene:
    """Put the target near a pad, or anywhere that it can be pushed to."""
    others = [t for i, t in enumerate(scene.things) if i != scene.target]
    while True:
        if scene.pads and rng.random() < 0.6:
            pad = scene.pads[int(rng.integers(len(scene.pads)))]
            x, y = rng.normal((pad.x, pad.y), 0.03).tolist()
        else:
            x, y = _anywhere(rng)
        if all(math.hypot(x - t.x, y - t.y) > 0.075 for t in others):
            return move(scene, scene.target, x, y)


def _draw_tip(stage: Stage, held: int | None, rng: np.random.Generator) -> Array:
    """A place for the tip, not inside an object that it does not hold."""
    scene = stage.scene
    spots = [(thing.x, thing.y) for thing in scene.things]
    if scene.drawer is not None:
        spots.append((stage.tab or scene.drawer.middle(stage.opening))[:2])
    if rng.random() < _NEAR:
        x, y = rng.normal(spots[int(rng.integers(len(spots)))], 0.025).tolist()
    else:
        x, y = _anywhere(rng)
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


def _anywhere(rng: np.random.Generator) -> tuple[float, float]:
    x, y = (
        (half + margin) * rng.uniform(-1, 1)
        for half, margin in zip(WORKSPACE, _MARGIN, strict=True)
    )
    return x, y


def _draw(
    env: TabletopEnv, drafts: list[_Draft], image_size: int, samples: GroundingSamples
) -> None:
    """Render drafts; those with the same shapes share one world, repainted and rearranged."""
    to_base, jaws = env.arms[0].to_base, env.arms[0].robot.gripper == "jaws"
    alike: dict[tuple[str, ...], list[_Draft]] = defaultdict(list)
    for draft in drafts:
        alike[tuple(thing.shape for thing in draft.stage.scene.things)].append(draft)
    for group in alike.values():
        env.world.build(group[0].stage.scene, group[0].q)
        for draft in group:
            stage, scene = draft.stage, draft.stage.scene
            _arrange(env.world, stage, draft.q)
            centre = stage.tab or stage.centre(draft.target)
            if draft.held is not None:
                thing = scene.things[draft.held]
                depth = jaw_depth(thing) if jaws else 0.0
                held = _below(draft.tip + np.array([0.0, 0.0, depth]), thing)
                env.world.place(draft.held, held, thing.yaw)
                if draft.held == draft.target:
                    centre = _on_table(held, thing)
            goal = stage.goals[draft.target] or centre
            samples.images[draft.number] = env.world.render(image_size)
            samples.target_xyz[draft.number] = to_base(np.array(centre))
            samples.goal_xyz[draft.number] = to_base(np.array(goal))


def _arrange(world: World, stage: Stage, q: Array) -> None:
    """Let a world of the same shapes look as it does at that stage."""
    scene = stage.scene
    world.recolor(scene)
    world.arrange(scene, q)
    world.slide(stage.opening)
    world.light(stage.light)
    for index in stage.carried:
        world.place(index, stage.centre(index), scene.things[index].yaw)


def _on_table(seen: tuple[float, float, float], thing: Thing) -> tuple[float, float, float]:
    """Follow the line of sight through ``seen`` down to where the object would stand."""
    eye, centre = np.array(CAMERA_EYE), np.array(seen)
    height = thing.height / 2
    x, y, _ = eye + (centre - eye) * (eye[2] - height) / (eye[2] - centre[2])
    return float(x), float(y), height


def _below(top: Array, thing: Thing) -> tuple[float, float, float]:
    """Centre of an object whose top is there."""
    x, y, z = top.tolist()
    return x, y, max(z - thing.height / 2, thing.height / 2)
