import math

import numpy as np
import pytest

from actionprior.envs.env import TabletopEnv
from actionprior.envs.experts import TabletopExpert
from actionprior.envs.scene.drawer_body import INNER, TRAVEL, Drawer
from actionprior.envs.scene.scene import SHAPES, Scene, Thing
from actionprior.envs.tasks import DrawerTask, Snapshot

SCENE = Scene(
    things=(Thing("red", "cube", 0.0, -0.1, 0.0),),
    pads=(),
    target=0,
    goal=None,
    drawer=Drawer(0.02, 1),
)


def snapshot(place, opening, held=None):
    return Snapshot(
        np.zeros(3), np.array([place]), np.zeros(1), held, held is not None, opening=opening
    )


def test_success_follows_the_opening_of_the_drawer():
    for opening in (0.06, TRAVEL):
        x, y, floor = SCENE.drawer.middle(opening)
        inside = (x, y + 0.01, floor + 0.025)
        assert DrawerTask().succeeded(SCENE, snapshot(inside, opening))
        assert not DrawerTask().succeeded(SCENE, snapshot(inside, opening, held=0))
        assert not DrawerTask().succeeded(SCENE, snapshot((x, y, 0.095), opening))  # on the box
        assert not DrawerTask().succeeded(SCENE, snapshot((x, y - INNER, 0.025), opening))
    assert DrawerTask().instruction(SCENE) == "open the drawer and put the red cube in it"


def test_left_and_right_drawers_are_mirrored():
    left, right = Drawer(0.0, 1), Drawer(0.0, -1)
    for opening in (0.0, TRAVEL):
        for a, b in (
            (left.middle(opening), right.middle(opening)),
            (left.handle(opening), right.handle(opening)),
        ):
            np.testing.assert_allclose(a, (b[0], -b[1], b[2]))


def test_objects_do_not_overlap_the_open_drawer():
    rng, sides = np.random.default_rng(0), set()
    for _ in range(100):
        scene = DrawerTask().draw(rng)
        sides.add(scene.drawer.side)
        tab = scene.drawer.handle(TRAVEL)[1] - scene.drawer.side * 0.03
        for i, thing in enumerate(scene.things):
            radius = SHAPES[thing.shape].radius
            assert scene.drawer.side * (tab - thing.y) > radius
            for other in scene.things[:i]:
                assert math.dist((thing.x, thing.y), (other.x, other.y)) > 2 * radius
    assert sides == {-1, 1}


@pytest.mark.parametrize("robot", ["panda", "xarm6"])
def test_the_drawer_opens_when_pulled_and_stays_open(robot):
    env = TabletopEnv(robot, "drawer", images=False)
    expert = TabletopExpert(env)
    env.reset(seed=1)
    expert.reset(1)
    assert env.snapshot().opening == 0.0
    openings, done = [], False
    while not done and len(openings) < env.step_limit:
        done = env.step(expert())[2]
        openings.append(env.snapshot().opening)
    assert done
    assert 0.1 < openings[-1] <= TRAVEL + 0.002
    held = np.array(openings)
    assert (np.diff(held[held.argmax() :]) > -0.003).all()
    env.reset(seed=1)
    assert env.snapshot().opening == 0.0


def test_the_drawer_does_not_open_by_itself():
    env = TabletopEnv("panda", "drawer", images=False)
    env.reset(seed=2)
    for _ in range(20):
        env.step(np.zeros(env.action_space.shape))
    assert abs(env.snapshot().opening) < 1e-3
