"""Hugging Face tokenizers as `core.tokens.Tokenizer`s."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from micrographia.core.errors import BadPrompt, UserError
from micrographia.core.tokens import Tokenizer


class HubTokenizer:
    """A Hugging Face tokenizer. `bos` is its first special token ([CLS] in BERT), whether added by default or not."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    @property
    def bos(self) -> int | None:
        return self.inner.cls_token_id if self.inner.bos_token_id is None else self.inner.bos_token_id

    @property
    def pad(self) -> int | None:
        return self.inner.pad_token_id

    @property
    def eos(self) -> int | None:
        """The token that ends a text."""
        return self.inner.sep_token_id if self.inner.eos_token_id is None else self.inner.eos_token_id

    @property
    def special(self) -> frozenset[int]:
        """The tokens that stand for no text, named ones and all that are declared special.

        That for unknown words stands for some, unless it has another name as well or, as in byte-level BPE, the rules
        never give it.
        """
        inner, rules = self.inner, getattr(getattr(self.inner, "backend_tokenizer", None), "model", None)
        named = {self.bos, self.eos, self.pad, self.mask, inner.cls_token_id, inner.sep_token_id}
        declared = {i for i, token in inner.added_tokens_decoder.items() if token.special}
        never = type(rules).__name__ == "BPE" and getattr(rules, "unk_token", None) is None
        unknown = set() if never else {self.unk}
        return frozenset(i for i in named | (declared - unknown) if i is not None)

    @property
    def puts_bos(self) -> bool:
        """Whether it begins a text with `bos` unasked, as Llama's does and GPT-2's does not."""
        return self.bos is not None and self.inner.encode("a", add_special_tokens=True)[:1] == [self.bos]

    @property
    def unk(self) -> int | None:
        """The token for unknown words, if there is one: as declared, else as the rules have it."""
        rules = getattr(getattr(self.inner, "backend_tokenizer", None), "model", None)
        word = None if self.inner.unk_token_id is not None else getattr(rules, "unk_token", None)
        return self.inner.unk_token_id if word is None else self.inner.convert_tokens_to_ids(word)

    @property
    def mask(self) -> int | None:
        """The mask token, which a bidirectional model has to fill."""
        return self.inner.mask_token_id

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text, add_special_tokens=False, verbose=False)  # of long ones too

    def decode(self, ids: Sequence[int]) -> str:
        return self.inner.decode(list(ids), clean_up_tokenization_spaces=False)

    def spans(self, text: str, ids: Sequence[int]) -> list[tuple[int, int]] | None:
        """Which letters of a text each of its ids holds (`core.tokens.spans_of`); None where nothing tells."""
        if not self.inner.is_fast:
            return None
        read = self.inner(text, add_special_tokens=True, return_offsets_mapping=True)
        first = _place_in(read["input_ids"], ids)
        return None if first is None else read["offset_mapping"][first : first + len(ids)]

    def chat(self, text: str) -> str | None:
        """The text as the user's turn of a chat, up to the assistant's; None without a chat template."""
        if not getattr(self.inner, "chat_template", None):
            return None
        turns = [{"role": "user", "content": text}]
        try:
            return self.inner.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is a program of its own, which may raise anything
            raise BadPrompt(
                f"The chat template of this model's tokenizer fails on a single turn of the user: {error}. Leave chat "
                "out and write the turns as this model was trained on them."
            ) from error


class AsUsual(HubTokenizer):
    """The same, with its usual special tokens; one at the beginning never twice, those at the end only with `ends`."""

    def __init__(self, inner: Any, *, ends: bool) -> None:
        super().__init__(inner)
        self._ends = ends

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.inner.encode(text, add_special_tokens=True)
        if not self._ends:
            own = super().encode(text)
            first = _place_in(ids, own) if own else None
            ids = ids if first is None else ids[: first + len(own)]
        return ids[1:] if ids[:2] == [self.bos, self.bos] else ids


def _place_in(ids: Sequence[int], part: Sequence[int]) -> int | None:
    """Where this part of the ids begins, if it is one."""
    wanted = list(part)
    starts = range(len(ids) - len(wanted) + 1)
    return next((first for first in starts if list(ids[first : first + len(wanted)]) == wanted), None)


def as_tokenizer(given: Any) -> Tokenizer | None:
    """A tokenizer from what a user may pass: ours, one of Hugging Face, its Hub id or folder, or None."""
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    if given is None:
        return None
    if isinstance(given, PreTrainedTokenizerBase):
        return HubTokenizer(given)
    if isinstance(given, str | Path):
        return HubTokenizer(AutoTokenizer.from_pretrained(str(given), trust_remote_code=False))
    if isinstance(given, Tokenizer):
        return given
    raise UserError(
        f"A tokenizer was expected, of Hugging Face or with encode, decode, bos and pad. Found {type(given).__name__}."
    )
