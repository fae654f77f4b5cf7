"""Chat templates taken apart, and a tokeniser that a state dict holds."""

import copy
from pathlib import Path

import pytest
import torch

from actionprior.errors import UserError
from actionprior.networks.trunks.vlm.prompt import (
    Prompt,
    Tokenizer,
    prompt_from_template,
    prompt_text,
)
from tests.helpers.vlm_models import CHAT, SMOLVLM_CHAT, write_tokenizer


def test_templates_taken_apart() -> None:
    assert prompt_from_template(CHAT, "<image>", {}) == Prompt(
        "<|im_start|>user\n",
        "<|vision_start|>",
        "<|vision_end|>",
        "",
        "<|im_end|>\n<|im_start|>assistant\n",
    )
    smolvlm = prompt_from_template(SMOLVLM_CHAT, "<image>", {})
    assert smolvlm == Prompt("<|im_start|>User:", end="<end_of_utterance>\nAssistant:")
    assert prompt_text(smolvlm, "<image>", 2, "lift") == (
        "<|im_start|>User:<image><image>lift<end_of_utterance>\nAssistant:"
    )


def test_special_tokens_are_variables_of_a_template() -> None:
    template = "{{ bos_token }}" + SMOLVLM_CHAT
    assert prompt_from_template(template, "<image>", {"bos_token": "<s>"}).start.startswith("<s>")


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{ raise_exception('no images') }}", "cannot be rendered (no images)"),
        ("{% for", "cannot be rendered"),
        ("{{ messages[0].content[-1].text }}", "does not show two images"),
        (
            "{% for p in messages[0].content %}{% if p.type == 'image' %}{{ loop.index }}<image>"
            "{% else %}{{ p.text }}{% endif %}{% endfor %}",
            "in different ways",
        ),
    ],
)
def test_templates_that_cannot_be_used(template: str, sentence: str) -> None:
    with pytest.raises(UserError) as found:
        prompt_from_template(template, "<image>", {})
    assert sentence.split(" (")[0] in str(found.value)
    assert "\n" not in str(found.value)


def test_a_tokeniser_comes_back_from_its_buffer(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "")
    own = Tokenizer((tmp_path / "tokenizer.json").read_bytes())
    texts = ["push the red cube<|im_end|>", "lift", ""]
    words = own(texts)
    assert words.mask_BL.sum(1).tolist() == [len(own.ids(text)) for text in texts]
    assert own.ids(texts[0])[-1] == 5
    empty = Tokenizer(len(own.content))
    empty.load_state_dict(own.state_dict())
    for again in (empty, copy.deepcopy(own)):
        assert torch.equal(again(texts).ids_BL, words.ids_BL)
    with pytest.raises(UserError, match="the tokeniser cannot be read"):
        Tokenizer(b"{}").ids("lift")
