"""A tokenizer of letters, rows of random tokens, and models that read them, for tests of the stream."""

import torch
from torch import Tensor

from micrographia.core.small.transformer import Transformer
from micrographia.core.stream.rows import TokenRows, as_rows
from small import A_FEW, small_model

BOS, EOS = 0, 1


class Letters:
    """A token a letter, as its place in the alphabet and two."""

    def __init__(self, *, bos: int | None = BOS, eos: int | None = EOS) -> None:
        self.bos, self.eos, self.pad = bos, eos, None

    def encode(self, text: str) -> list[int]:
        return [2 + (ord(letter) - ord("a")) % 26 for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(ord("a") + i - 2) for i in ids)


def random_rows(
    n: int, n_ctx: int = 4, *, d_vocab: int = 7, special: tuple[int, ...] = (0,), seed: int = 0
) -> TokenRows:
    ids = torch.randint(0, d_vocab, (n, n_ctx), generator=torch.Generator().manual_seed(seed))
    return as_rows(ids, special=special)


def reader(dtype: torch.dtype = torch.float32) -> Transformer:
    """A transformer of two layers over seven tokens, four at a time."""
    return small_model(A_FEW["normed"], dtype=dtype)


def spell(ids: Tensor) -> str:
    """Tokens as letters, with . for BOS and | for EOS."""
    return "".join({BOS: ".", EOS: "|"}.get(int(i), chr(ord("a") + int(i) - 2)) for i in ids)
