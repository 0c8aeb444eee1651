"""Framing: what stands around each prompt: a beginning-of-sequence token, examples, or a chat with its template.

The same is put around the clean and the corrupt prompt, so that they line up as they did without it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from micrographia.core.errors import BadPrompt
from micrographia.core.tokens import Inputs, Tokenizer, ids_of, to_str_tokens

SHOWN = 60
"""Tokens around a prompt that are printed, half of them from either end."""


@runtime_checkable
class Tokenizes(Protocol):
    """A Model that tokenizes text as usual, with its own special tokens."""

    @property
    def tokenizer(self) -> Tokenizer | None: ...

    def to_tokens(self, texts: str | Sequence[str], *, prepend_bos: bool | None = None) -> Inputs: ...


class AroundTokens(NamedTuple):
    """The tokens before and after a prompt's own."""

    before: list[str]
    after: list[str]
    bos: bool
    """Whether the first is the tokenizer's beginning-of-sequence token."""

    def __str__(self) -> str:
        return f"BOS {self.before[0]!r}" if self.bos and self.before else "no BOS"

    def sentences(self) -> list[str]:
        """The tokens around each prompt, where there are more than a beginning-of-sequence token."""
        told = [f"before it {_listed(self.before)}"] if self.before[self.bos :] else []
        told += [f"after it {_listed(self.after)}"] if self.after else []
        return [f"Around each prompt stand these tokens: {'; '.join(told)}."] if told else []


def _listed(tokens: Sequence[str]) -> str:
    half, shown = SHOWN // 2, [repr(token) for token in tokens]
    return " ".join(shown if len(shown) <= SHOWN else [*shown[:half], "...", *shown[-half:]])


class Framing(NamedTuple):
    """What stands around a prompt. Shots are texts before it, a line each."""

    bos: bool | None = None
    """The beginning-of-sequence token first, or none; None: as the tokenizer does."""
    chat: bool = False
    """Shots and prompt are the user's turn in the tokenizer's own chat template, and the assistant is to answer."""
    chat_start: str = ""
    """How the assistant's answer begins."""
    shots: tuple[str, ...] = ()

    def text(self, tokenizer: Tokenizer | None, prompt: str) -> str:
        """The prompt with shots and chat. Raises BadPrompt for a tokenizer without a chat template."""
        parts = [*self.shots, prompt]
        if odd := [part for part in parts if not isinstance(part, str)]:
            raise BadPrompt(f"Found {odd[0]!r:.80} as a prompt, or as an example before it. Give a text.")
        whole = "\n".join(parts)
        if not self.chat:
            return whole
        template = getattr(tokenizer, "chat", None)
        text = None if template is None else template(whole)
        if text is None:
            raise BadPrompt(
                "A chat was asked for, but this model's tokenizer has no chat template. Leave chat out and write the "
                "turns as this model was trained on them, or take a model that was tuned for chats."
            )
        return text + self.chat_start

    def tokens(self, model: Tokenizes, prompts: Sequence[str]) -> Inputs:
        """Ids (batch, pos) of the framed prompts, padded on the left. A chat has the special tokens of its template."""
        texts = [self.text(model.tokenizer, prompt) for prompt in prompts]
        return model.to_tokens(texts, prepend_bos=bool(self.bos) if self.chat else self.bos)

    def around(self, model: Tokenizes, prompt: str) -> AroundTokens:
        """The tokens around one prompt."""
        ids = ids_of(self.tokens(model, [prompt]))[0].tolist()
        assert model.tokenizer is not None  # or there would be no ids
        tokenizer: Tokenizer = model.tokenizer
        whole = tokenizer.decode(ids)
        own = prompt if prompt in whole else prompt.strip()  # some templates leave out white space at the ends
        begin = whole.rfind(own)
        tokens = to_str_tokens(tokenizer, ids)
        if begin < 0:  # a tokenizer that does not give back what it read
            return AroundTokens([], [], ids[0] == tokenizer.bos)
        n_before, n_inside = (
            bisect_right(range(len(ids) + 1), end, key=lambda i: len(tokenizer.decode(ids[:i]))) - 1
            for end in (begin, begin + len(own))
        )
        return AroundTokens(tokens[:n_before], tokens[n_inside:], ids[0] == tokenizer.bos)


PLAIN = Framing()
