"""The text around images and instruction, and a tokeniser that a checkpoint holds.

Axes: B batch, L tokens.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from actionprior.errors import UserError, shorten

_TASK = "actionprior-task"  # stands for the instruction while a template is taken apart
_MAX_CACHED = 65_536


@dataclass(frozen=True)
class Prompt:
    """Text around the images and the instruction of a chat.

    A sequence is: start, then for each camera before_image, image and after_image, then
    before_task, instruction and end.
    """

    start: str = ""
    before_image: str = ""
    after_image: str = ""
    before_task: str = ""
    end: str = ""


def prompt_from_template(template: str, image: str, special_tokens: dict[str, str]) -> Prompt:
    """Take a chat template apart.

    Args:
        template: Chat template in Jinja.
        image: Text that stands for an image in rendered chats.
        special_tokens: Further variables of the template, such as ``bos_token``.

    Raises:
        UserError: The template fails, or does not put the images before the instruction.
    """
    one, two = (_rendered(template, count, special_tokens) for count in (1, 2))
    parts = two.split(image)
    if len(parts) != 3 or parts[2].count(_TASK) != 1:
        raise UserError(
            f"the chat template does not show two images as {image!r} before the instruction; "
            "give a prompt"
        )
    first, between, rest = parts
    last, end = rest.split(_TASK)
    # `between` is what follows an image, then what precedes one, which also ends `first`.
    cut = next(i for i in range(len(between) + 1) if first.endswith(between[i:]))
    before, after = between[cut:], between[:cut]
    if not last.startswith(after):
        raise UserError("the chat template ends images in different ways; give a prompt")
    start = first.removesuffix(before)
    prompt = Prompt(start, before, after, last.removeprefix(after), end)
    if prompt_text(prompt, image, 1, _TASK) != one:
        raise UserError("the chat template depends on the number of images; give a prompt")
    return prompt


def prompt_text(prompt: Prompt, image: str, images: int, task: str) -> str:
    """Return the whole text, with ``image`` at the place of each image."""
    shown = f"{prompt.before_image}{image}{prompt.after_image}" * images
    return f"{prompt.start}{shown}{prompt.before_task}{task}{prompt.end}"


def _rendered(template: str, images: int, special_tokens: dict[str, str]) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    content: list[dict[str, str]] = [{"type": "image"}] * images
    chat = [{"role": "user", "content": [*content, {"type": "text", "text": _TASK}]}]
    try:
        (text,), _ = render_jinja_template(
            [chat], chat_template=template, add_generation_prompt=True, **special_tokens
        )
    except Exception as error:  # a template may raise anything
        raise UserError(f"the chat template cannot be rendered ({shorten(error)})") from None
    return str(text)


class Words(NamedTuple):
    """Token ids of texts, padded at the end."""

    ids_BL: Tensor
    mask_BL: Tensor  # bool


class Tokenizer(nn.Module):
    """A tokeniser of the library ``tokenizers``, kept as a buffer.

    So a checkpoint holds it, and a policy is loaded without another file.
    """

    content: Tensor  # uint8: ``tokenizer.json`` in UTF-8

    def __init__(self, content: bytes | int) -> None:
        """Create a tokeniser.

        Args:
            content: Content of ``tokenizer.json``, or its length if a checkpoint will fill it.
        """
        super().__init__()
        data = (
            torch.zeros(content, dtype=torch.uint8)
            if isinstance(content, int)
            else torch.frombuffer(bytearray(content), dtype=torch.uint8)
        )
        self.register_buffer("content", data)
        self._built: Any = None
        self._cached: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a text, without adding special ones."""
        if text not in self._cached:
            if self._built is None:
                self._built = _build(bytes(self.content.cpu().numpy()))
            if len(self._cached) >= _MAX_CACHED:
                self._cached.clear()
            self._cached[text] = self._built.encode(text, add_special_tokens=False).ids
        return self._cached[text]

    # Strings would be compiled again for each instruction.
    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no type for it
    def forward(self, texts: list[str]) -> Words:
        """Return the tokens of B texts."""
        rows = [self.ids(text) for text in texts]
        length = max((len(row) for row in rows), default=0)
        padded = [row + [0] * (length - len(row)) for row in rows]
        ids_BL = torch.tensor(padded, dtype=torch.int64)
        counts_B1 = torch.tensor([[len(row)] for row in rows])
        return Words(ids_BL.view(len(rows), length), torch.arange(length) < counts_B1)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tokenizer":
        copied = Tokenizer(0)
        copied.content = self.content.clone()
        return copied.train(self.training)

    def _load_from_state_dict(self, *args: Any) -> None:  # noqa: ANN401  torch's signature
        self._built, self._cached = None, {}
        super()._load_from_state_dict(*args)


def _build(content: bytes) -> Any:  # noqa: ANN401  the library has no types
    from tokenizers import Tokenizer as Built

    try:
        built = Built.from_str(content.decode())
    except Exception as error:  # the library raises a plain Exception
        raise UserError(f"the tokeniser cannot be read ({shorten(error)})") from None
    built.no_padding()
    built.no_truncation()
    return built
