"""Hugging Face tokenizers as `core.tokens.Tokenizer`s."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from micrographia.core.errors import UserError
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
    def unk(self) -> int | None:
        """The token for unknown words, if there is one."""
        return self.inner.unk_token_id

    @property
    def mask(self) -> int | None:
        """The mask token, which a bidirectional model has to fill."""
        return self.inner.mask_token_id

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        return self.inner.decode(list(ids), clean_up_tokenization_spaces=False)

    def chat(self, text: str) -> str | None:
        """The text as the user's turn of a chat, up to the assistant's; None without a chat template."""
        if not getattr(self.inner, "chat_template", None):
            return None
        turns = [{"role": "user", "content": text}]
        return self.inner.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    @property
    def as_usual(self) -> "AsUsual":
        return AsUsual(self.inner)


class AsUsual(HubTokenizer):
    """The same, with its usual special tokens; one at the beginning never twice."""

    def encode(self, text: str) -> list[int]:
        ids = self.inner.encode(text, add_special_tokens=True)
        return ids[1:] if ids[:2] == [self.bos, self.bos] else ids


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
