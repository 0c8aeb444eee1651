"""Text to rows of tokens: what the language model is trained on, and what is held out of all training.

Whole documents are held out, drawn at random. Rows are of one length: the beginning-of-text token, then documents end to
end, each begun by the same token. Axes: row pos.
"""

import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from micrographia.core.byte_pairs import FILE, BytePairs, read_byte_pairs, train_byte_pairs
from micrographia.core.errors import UserError
from micrographia.core.events import Progress, Watch
from micrographia.core.runtime import generator
from micrographia.core.store import RunFolder
from micrographia.labs.dictionary.config import Config

LEAST_ROWS = 32


class Rows(NamedTuple):
    """The tokens of a Run."""

    tokenizer: BytePairs
    train: Int[Tensor, "row pos"]
    held_out: Int[Tensor, "row pos"]


def rows_of(config: Config, folder: RunFolder, watch: Watch) -> Rows:
    """Read the text, train the tokenizer, unless this Run has one, and tokenise. Raises UserError for too little text."""
    texts = standard_library() if not config.text else [Path(config.text).read_text(encoding="utf-8")]
    watch(Progress("read the text", 0, 2, "pass"))
    place = folder.path / FILE
    tokenizer = read_byte_pairs(place) if place.is_file() else train_byte_pairs(texts, config.n_vocab)
    folder.add_file(FILE, tokenizer.to_bytes())
    watch(Progress("read the text", 1, 2, "pass"))
    documents = [[tokenizer.bos, *ids] for ids in tokenizer.encode_many(texts)]
    watch(Progress("read the text", 2, 2, "pass"))
    return _split(config, tokenizer, documents)


def _split(config: Config, tokenizer: BytePairs, documents: Sequence[Sequence[int]]) -> Rows:
    """Documents at random to the held-out side until it has its tokens; the others are trained on."""
    order = torch.randperm(len(documents), generator=generator(config.seed)).tolist()
    sides: tuple[list[int], list[int]] = ([], [])
    for i in order:
        sides[len(sides[1]) < config.held_out].extend(documents[i])
    train, held_out = (_packed(side, config.n_ctx, tokenizer.bos) for side in sides)
    if len(train) < LEAST_ROWS or held_out.numel() < config.held_out:
        raise UserError(
            f"Asked to hold {config.held_out:,} tokens out and to train on others. Found {sum(map(len, documents)):,} "
            f"in {len(documents)} documents of {config.text or 'the standard library'}. Give more text, or a smaller held_out."
        )
    return Rows(tokenizer, train, held_out[: -(-config.held_out // config.n_ctx)])


def _packed(ids: Sequence[int], n_ctx: int, bos: int) -> Int[Tensor, "row pos"]:
    wide = n_ctx - 1
    whole = torch.tensor(ids[: len(ids) // wide * wide]).view(-1, wide)
    return torch.cat([torch.full((len(whole), 1), bos), whole], 1)


def standard_library() -> list[str]:
    """The sources of the Python standard library, docstrings and all, less its tests."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "test", "tests", "__pycache__", "idle_test"}
    files = [path for path in sorted(root.rglob("*.py")) if not skipped & set(path.relative_to(root).parts)]
    return [path.read_text(encoding="utf-8", errors="replace") for path in files]
