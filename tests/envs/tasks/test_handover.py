import numpy as np
import pytest

from actionprior.envs.tasks import Hand, Handover
from tests.helpers.scenes import SCENE, snapshot


@pytest.mark.parametrize(("held", "expected"), [((None, None), True), ((None, 0), False)])
def test_a_handover_ends_when_both_hands_have_let_go(held, expected):
    tip, down = np.full(3, 0.3), np.array([0.0, 0.0, -1.0])
    hands = tuple(Hand(tip, down, index, False, False) for index in held)
    now = snapshot((0.0, -0.2, 0.025))._replace(hands=hands)
    assert Handover().succeeded(SCENE, now) is expected


def test_the_instruction_names_object_and_pad():
    said = Handover().instruction(SCENE)
    assert said == "hand the red cube over and put it on the green pad"


def test_a_handovers_target_and_pad_lie_on_two_sides():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = Handover().draw(rng)
        assert scene.target_thing.y <= -0.1
        assert scene.goal_pad.y >= 0.1
