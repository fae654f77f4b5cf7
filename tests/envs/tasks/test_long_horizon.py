import numpy as np
import pytest

from actionprior.envs.scene.scene import SHAPES, Pad, Scene, Thing
from actionprior.envs.tasks import Snapshot, SortTask, StackTask

CUBES = Scene(
    things=tuple(
        Thing(color, "cube", 0.0, y, 0.0)
        for color, y in (("red", 0.0), ("blue", 0.15), ("green", -0.15))
    ),
    pads=(),
    target=0,
    goal=None,
    order=(2, 1, 0),
)
STACKED = [(0.0, -0.15, 0.125), (0.005, -0.155, 0.075), (0.0, -0.15, 0.025)]


def snapshot(positions, time=0.0, held=None, suction=False, speed=0.0):
    count = len(positions)
    return Snapshot(
        np.zeros(3), np.array(positions), np.full(count, speed), held, suction, time=time
    )


def test_stack_names_the_order():
    expected = "stack the red cube on the blue cube on the green cube"
    assert StackTask().instruction(CUBES) == expected


def test_a_stack_has_to_stand_for_0_3_seconds():
    task = StackTask()
    assert [task.succeeded(CUBES, snapshot(STACKED, t / 10)) for t in range(5)] == [0, 0, 0, 1, 1]
    task.reset()
    assert not task.succeeded(CUBES, snapshot(STACKED, 0.5))


@pytest.mark.parametrize(
    "now",
    [
        snapshot(STACKED, 9.0, held=0),
        snapshot(STACKED, 9.0, suction=True),
        snapshot(STACKED, 9.0, speed=0.1),
        snapshot(STACKED[::-1], 9.0),  # in reverse order
        snapshot([(0.03, -0.15, 0.125), *STACKED[1:]], 9.0),
        snapshot([(0.0, -0.15, 0.14), *STACKED[1:]], 9.0),
        snapshot([(0.0, -0.1, 0.025), *STACKED[1:]], 9.0),
    ],
)
def test_incomplete_stacks_do_not_succeed(now):
    task = StackTask()
    task.succeeded(CUBES, snapshot(STACKED, 8.0))
    assert not task.succeeded(CUBES, now)


def test_stacks_have_three_cubes_of_different_colors_in_any_order():
    rng, orders = np.random.default_rng(0), set()
    for _ in range(100):
        scene = StackTask().draw(rng)
        assert {thing.shape for thing in scene.things} == {"cube"}
        assert len({thing.color for thing in scene.things}) == 3
        assert scene.target == scene.order[-1]
        orders.add(scene.order)
    assert len(orders) == 6


SORTED = Scene(
    things=(
        Thing("red", "cube", 0.0, 0.0, 0.0),
        Thing("blue", "disc", 0.1, 0.2, 0.0),
        Thing("red", "disc", -0.1, 0.2, 0.0),
        Thing("blue", "cube", 0.1, 0.0, 0.0),
    ),
    pads=(Pad("green", 0.0, -0.15, 0.15), Pad("yellow", 0.0, 0.15, 0.15)),
    target=0,
    goal=0,
    homes=(0, 1, 0, 1),
)


def test_sort_names_what_the_objects_of_a_pad_share():
    by_color = "put the red things on the green pad and the blue things on the yellow pad"
    assert SortTask().instruction(SORTED) == by_color
    by_shape = SORTED._replace(homes=(0, 1, 1, 0))
    expected = "put the cubes on the green pad and the discs on the yellow pad"
    assert SortTask().instruction(by_shape) == expected


def test_sort_succeeds_with_each_object_on_its_pad_and_an_empty_cup():
    places = [(0.0, -0.1, 0.025), (0.0, 0.1, 0.013), (0.03, -0.2, 0.013), (0.0, 0.2, 0.025)]
    assert SortTask().succeeded(SORTED, snapshot(places))
    assert not SortTask().succeeded(SORTED, snapshot(places, held=1))
    assert not SortTask().succeeded(SORTED, snapshot(places, speed=0.1))
    assert not SortTask().succeeded(SORTED, snapshot([places[1], places[0], *places[2:]]))
    assert not SortTask().succeeded(SORTED, snapshot([(0.08, -0.1, 0.025), *places[1:]]))
    assert not SortTask().succeeded(SORTED, snapshot([(0.0, -0.1, 0.06), *places[1:]]))


def test_objects_to_sort_are_distinct_and_off_the_pads():
    rng, instructions = np.random.default_rng(0), set()
    for _ in range(100):
        scene = SortTask().draw(rng)
        assert sorted(scene.homes) == [0, 0, 1, 1]
        assert len({thing.label for thing in scene.things}) == 4
        assert not {t.color for t in scene.things} & {p.color for p in scene.pads}
        for thing in scene.things:
            for pad in scene.pads:
                away = max(abs(thing.x - pad.x), abs(thing.y - pad.y))
                assert away > pad.size / 2 + SHAPES[thing.shape].radius
        instructions.add(SortTask().instruction(scene))
    assert {text.split()[2] for text in instructions} >= {
        "cubes",
        "discs",
        "cylinders",
        "red",
        "blue",
    }
