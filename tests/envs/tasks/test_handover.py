import numpy as np
import pytest

from actionprior.envs.tasks import Hand, HandoverTask
from tests.helpers.scenes import SCENE, snapshot


@pytest.mark.parametrize(("held", "expected"), [((None, None), True), ((None, 0), False)])
def test_a_handover_succeeds_when_both_hands_are_empty(held, expected):
    tip, down = np.full(3, 0.3), np.array([0.0, 0.0, -1.0])
    hands = tuple(Hand(tip, down, index, False, False) for index in held)
    now = snapshot((0.0, -0.2, 0.025))._replace(hands=hands)
    assert HandoverTask().succeeded(SCENE, now) is expected


def test_the_instruction_names_object_and_pad():
    instruction = HandoverTask().instruction(SCENE)
    assert instruction == "hand the red cube over and put it on the green pad"


def test_target_and_pad_of_a_handover_are_on_opposite_sides():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = HandoverTask().draw(rng)
        assert scene.target_thing.y <= -0.1
        assert scene.goal_pad.y >= 0.1
