import math

import numpy as np
import pytest

from actionprior.envs.scene.drawer_body import FLOOR, TRAVEL
from actionprior.envs.tasks import make_task
from actionprior.grounding.scene_stages import draw_stage


def stages(task, count=60):
    rng = np.random.default_rng(0)
    return [draw_stage(make_task(task), rng) for _ in range(count)]


def plane(a, b):
    return math.dist(a[:2], b[:2])


def test_a_stack_grows_from_the_bottom_up():
    second = [stage for stage in stages("stack") if stage.carried]
    assert 15 < len(second) < 45
    for stage in stages("stack"):
        bottom, middle, top = stage.scene.order
        (target,) = stage.goals
        assert target == (top if stage.carried else middle)
        below = stage.centre(middle if stage.carried else bottom)
        assert stage.goals[target] == below
        assert below[2] == pytest.approx(0.075 if stage.carried else 0.025)
        if stage.carried:
            assert plane(stage.centre(middle), stage.centre(bottom)) < 0.012  # like experts


def test_only_objects_left_to_sort_are_off_their_pads():
    counts = set()
    for stage in stages("sort"):
        counts.add(len(stage.goals))
        for index, home in enumerate(stage.scene.homes):
            pad = stage.scene.pads[home]
            x, y, _ = stage.centre(index)
            at_home = max(abs(x - pad.x), abs(y - pad.y)) < pad.size / 2
            assert at_home == (index not in stage.goals)
            if index in stage.goals:
                assert stage.goals[index] == (pad.x, pad.y, 0.0)
    assert counts == {1, 2, 3, 4}


def test_the_object_nearest_to_the_tip_is_next():
    for stage in [*stages("sort", 10), *stages("once_each", 10)]:
        for index in stage.goals:
            x, y, z = stage.centre(index)
            assert stage.next(np.array([x + 0.01, y, z + 0.05])) == index


def test_each_twin_is_the_goal_of_the_other():
    for stage in stages("once_each", 10):
        first, second = stage.scene.order
        assert stage.goals == {first: stage.centre(second), second: stage.centre(first)}


def test_a_drawer_is_pulled_open_by_its_tab_and_then_filled():
    drawn = stages("drawer")
    assert 15 < sum(stage.tab is None for stage in drawn) < 45
    assert any(0.0 < stage.opening < 0.09 for stage in drawn)
    for stage in drawn:
        drawer = stage.scene.drawer
        (goal,) = stage.goals.values()
        if stage.tab is None:
            assert 0.1 < stage.opening <= TRAVEL
            assert goal == drawer.middle(stage.opening)
        else:
            assert stage.tab == drawer.handle(stage.opening)
            assert goal == drawer.handle(TRAVEL)
            assert not stage.holds


def test_the_goal_of_recall_is_known_while_the_lamp_is_lit():
    drawn = stages("recall")
    assert 10 < sum(stage.light is not None for stage in drawn) < 32
    for stage in drawn:
        goal, pad = stage.goals[stage.scene.target], stage.scene.goal_pad
        if stage.light is None:
            assert all(math.isnan(v) for v in goal)
        else:
            assert stage.light == pad.color
            assert goal == (pad.x, pad.y, 0.0)


def test_short_tasks_have_one_stage():
    for stage in stages("place", 5):
        pad = stage.scene.goal_pad
        assert stage.goals == {stage.scene.target: (pad.x, pad.y, 0.0)}
    for stage in stages("lift", 5):
        assert stage.goals == {stage.scene.target: None}


def test_the_height_of_a_drawer_at_a_place():
    for stage in stages("drawer", 6):
        drawer, opening = stage.scene.drawer, stage.opening
        x, y, top = drawer.handle(opening)
        assert drawer.height(x, y, opening, 0.022) == top
        assert drawer.height(x + 0.2, y, opening, 0.022) == 0.0
        assert drawer.height(*drawer.base[:2], 0.0, 0.022) > top  # inside the closed box
        assert drawer.height(*drawer.middle(TRAVEL)[:2], TRAVEL, 0.036) == FLOOR
