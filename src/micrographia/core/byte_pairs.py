"""A byte-pair tokenizer trained on the user's own text, by the `tokenizers` library.

Byte-level, so that every text can be written and read back; one special token, at the beginning of every document. The
same texts in the same order give the same tokenizer. Its file is Hugging Face's `tokenizer.json`.
Source: Sennrich et al., "Neural machine translation of rare words with subword units" (2016), algorithm 1.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from micrographia.core.errors import BadConfig, Corrupt

BOS = "<|endoftext|>"
BYTES = 256
FILE = "tokenizer.json"


class BytePairs:
    """A tokenizer of `train_byte_pairs`, as `core.tokens.Tokenizer`; it pads nothing."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    @property
    def bos(self) -> int:
        return self.inner.token_to_id(BOS)

    @property
    def pad(self) -> None:
        return None

    @property
    def size(self) -> int:
        """Tokens, the special one among them."""
        return self.inner.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text, add_special_tokens=False).ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of several texts, on as many threads as the library takes."""
        return [each.ids for each in self.inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return self.inner.decode(list(ids), skip_special_tokens=False)

    def to_bytes(self) -> bytes:
        """What `tokenizer.json` holds."""
        return self.inner.to_str().encode()


def train_byte_pairs(texts: Iterable[str], n_tokens: int) -> BytePairs:
    """A tokenizer of at most `n_tokens`, the 256 bytes and the special token among them; fewer where the text has no
    more pairs to join. A few seconds for ten million letters. Raises BadConfig where not even the bytes fit."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if n_tokens <= BYTES:
        raise BadConfig(f"Asked for a vocabulary of {n_tokens}. It holds {BYTES} bytes and {BOS}: take more.")
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=n_tokens, special_tokens=[BOS], initial_alphabet=sorted(alphabet), show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return BytePairs(inner)


def read_byte_pairs(path: Path) -> BytePairs:
    """The tokenizer in a `tokenizer.json`. Raises Corrupt."""
    from tokenizers import Tokenizer

    try:
        return BytePairs(Tokenizer.from_str(path.read_text(encoding="utf-8")))
    except Exception as error:  # the library raises no narrower kind
        raise Corrupt(f"Asked for the tokenizer in {path}. It cannot be read: {error}. Restore the file.") from error
