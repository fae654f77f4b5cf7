"""z′ of several queries in one sequence, and what each token may attend to."""

from typing import Any

import pytest
import torch
from torch import Tensor

from actionprior.batch import Observation
from actionprior.networks.trunks.base import TrunkTokens
from actionprior.networks.trunks.vlm.fusion import attention_mask
from tests.helpers.policies import tiny_network
from tests.helpers.robots import delta_arm, windows

TASKS = ["push the red cube to the blue pad", "lift it"]
BOTH = torch.ones(2, 2, dtype=torch.bool)
KNOWN = torch.tensor([True, True])


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Soft tokens, states and history tokens of two rows."""
    generator = torch.Generator().manual_seed(4)
    sizes = ((2, 3, 16), (2, 74), (2, 8))
    dataset, state, history = (torch.randn(*size, generator=generator) for size in sizes)
    return dataset, state, torch.nn.functional.normalize(history, dim=-1)


def test_one_pass_gives_what_a_pass_for_each_query_gives(build: Any, images: Tensor) -> None:
    trunk = build().eval()
    fusion = trunk.own_fusion(16, 8, 0.0)
    tokens = trunk(images, BOTH, TASKS)
    together = fusion(tokens, *inputs(), None, torch.cat([KNOWN, ~KNOWN]))
    singly = torch.cat([fusion(tokens, *inputs(), None, known) for known in (KNOWN, ~KNOWN)])
    torch.testing.assert_close(together, singly, atol=1e-5, rtol=1e-4)
    with_history, without = together.chunk(2)
    assert (with_history - without).abs().max() > 1e-3
    dataset, state, history = inputs()
    other = fusion(tokens, dataset, state, -history, None, torch.cat([KNOWN, ~KNOWN])).chunk(2)
    torch.testing.assert_close(other[1], without)
    assert (other[0] - with_history).abs().max() > 1e-3


def test_a_policy_sees_each_image_once_in_training_and_in_a_plan(build: Any) -> None:
    """z′ with and without history share one pass of the image tower."""
    trunk = build()
    network = tiny_network([delta_arm()], trunk=trunk, history="encoder")
    seen: list[int] = []
    see = trunk._see
    trunk._see = lambda images: seen.append(len(images)) or see(images)
    robot = delta_arm()
    now, past = windows([robot], 4, 12, seed=5), windows([robot], 4, 4, seed=6)
    pixels = torch.randint(256, (4, len(robot.cameras), 3, 32, 32), dtype=torch.uint8)
    shown = torch.ones(pixels.shape[:2], dtype=torch.bool)
    first = now.state_BHS[:, 0]
    texts = ["push the cube"] * 4
    observed = Observation(pixels, shown, texts, first, now.reference_BA, past, now.embodiment_B)
    network.latents(observed)
    assert seen == [4 * len(robot.cameras)]
    calls: list[int] = []
    trunk.model.get_decoder().register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        network.predict_chunk(observed, torch.randn(4, network.chunk_length, 37))
    assert seen == 2 * [4 * len(robot.cameras)]
    assert calls == [1], "the integration steps share one pass of the language model"


def test_the_side_of_the_padding_has_no_effect(build: Any, images: Tensor) -> None:
    trunk = build().eval()
    fusion = trunk.own_fusion(16, 8, 0.0)
    tokens = trunk(images, BOTH, TASKS)
    assert not tokens.mask_BN[1].all()
    right = fusion(tokens, *inputs(), None, KNOWN)
    # The short row's padding before its first token.
    moved = [t.clone() for t in (tokens.tokens_BNW, tokens.mask_BN, tokens.place_BNA)]
    missing = int((~tokens.mask_BN[1]).sum())
    for tensor in moved:
        tensor[1] = tensor[1].roll(missing, dims=0)
    left = TrunkTokens(moved[0], moved[1], place_BNA=moved[2])
    torch.testing.assert_close(fusion(left, *inputs(), None, KNOWN), right, atol=1e-5, rtol=1e-4)


def test_a_row_depends_on_nothing_but_what_it_has(build: Any, images: Tensor) -> None:
    trunk = build().eval()
    fusion = trunk.own_fusion(16, 8, 0.0)
    mask = torch.tensor([[True, True], [True, False]])
    both = fusion(trunk(images, mask, TASKS), *inputs(), None, KNOWN)
    single = trunk(images[1:, :1], mask[1:, :1], TASKS[1:])
    separate = fusion(single, *(t[1:] for t in inputs()), None, KNOWN[1:])
    torch.testing.assert_close(both[1:], separate, atol=1e-5, rtol=1e-4)
    none = trunk(images[:, :0], mask[:, :0], TASKS)
    assert fusion(none, *inputs(), None, KNOWN).shape == (2, 8)


@pytest.mark.parametrize("part", ["dataset", "state", "image", "second image", "task"])
def test_every_input_changes_the_latent(build: Any, images: Tensor, part: str) -> None:
    trunk = build().eval()
    fusion = trunk.own_fusion(16, 8, 0.0)
    dataset, state, history = inputs()
    before = fusion(trunk(images, BOTH, TASKS), dataset, state, history, None, KNOWN)
    changed, tasks = images.clone(), list(TASKS)
    if part == "dataset":
        dataset = -dataset
    elif part == "state":
        state = -state
    elif part == "task":
        tasks[0] = "push the blue cube to the red pad"
    else:
        changed[0, int(part != "image")] = 255 - changed[0, int(part != "image")]
    after = fusion(trunk(changed, BOTH, tasks), dataset, state, history, None, KNOWN)
    assert (after[0] - before[0]).abs().max() > 1e-4


def test_hidden_states_do_not_count(build: Any, images: Tensor) -> None:
    trunk = build().eval()
    fusion = trunk.own_fusion(16, 8, 0.5).train()
    tokens = trunk(images, BOTH, TASKS)
    dataset, state, history = inputs()
    torch.manual_seed(0)
    seen = {
        float(fusion(tokens, dataset, state, history, None, KNOWN)[0, 0].detach())
        for _ in range(12)
    }
    assert len({round(value, 5) for value in seen}) == 2


@pytest.mark.parametrize("two_way", [False, True])
def test_who_attends_to_whom(two_way: bool) -> None:
    known = torch.tensor([[True, False, True]])
    found = attention_mask(known, torch.tensor([[True, False]]), two_way)[0].int()
    expected = torch.tensor(
        [
            [1, 0, int(two_way), 0, 0, 0],
            [1, 1, int(two_way), 0, 0, 0],  # nobody reads what a token that is missing attends to
            [1, 0, 1, 0, 0, 0],
            [1, 0, 1, 1, 0, 0],  # z_hist
            [1, 0, 1, 1, 1, 0],  # the query with it
            [1, 0, 1, 0, 0, 1],  # the query without it
        ]
    )
    assert torch.equal(found, expected.to(found))
