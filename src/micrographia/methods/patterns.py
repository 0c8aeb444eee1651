"""Attention patterns: what each query position of a head takes from each key position, in one prompt or in two.

Of a model with grouped heads each head is shown with the key and value head that it shares. Nothing is interpreted.
Suffixes: Q query, K key.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core import figures
from micrographia.core.errors import UserError
from micrographia.core.figures import Figure
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.tokens import Inputs, ids_of, mask_of, to_str_tokens

Head = tuple[int, int]
"""Layer and head."""
GROUP, STEPS = "Attention patterns", 255
NAMED = re.compile(r"L(\d+)(?:H|\.(?:z|result|q|pattern)\[)(\d+)")
MOST_HEADS = 12
"""Of a question, whose patterns its report shows."""
MOST_CELLS = 12_000_000
"""Of a picture: what a page can still carry, about 3 MB once packed."""


@dataclass(frozen=True, eq=False, slots=True)
class AttentionPatterns:
    """Patterns of some heads on each prompt: `patterns[side]` is (head, query, key), rows sum to 1."""

    heads: tuple[Head, ...]
    sides: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]
    patterns: tuple[Float[Tensor, "head query key"], ...]
    sharing: int = 1
    """How many query heads share one key and value head."""

    def __repr__(self) -> str:
        lengths = " and ".join(str(len(each)) for each in self.tokens)
        return f"AttentionPatterns({len(self.heads)} heads, {lengths} tokens)"

    def figures(self) -> list[Figure]:
        """A viewer a prompt. Values are kept in steps of 1/255."""
        return [self._figure(i, side) for i, side in enumerate(self.sides)]

    def _figure(self, i: int, side: str) -> Figure:
        alone = len({layer for layer, _ in self.heads}) == len(self.heads)
        return figures.attention(
            f"patterns-{side}" if len(self.sides) > 1 else "patterns",
            f"Attention patterns, {side} prompt" if len(self.sides) > 1 else "Attention patterns",
            (self.patterns[i].float().cpu().numpy() * STEPS).round().astype(np.uint8),
            panels=[self._name(*head) for head in self.heads],
            groups=[""] * len(self.heads) if alone else [f"layer {layer}" for layer, _ in self.heads],
            tokens=list(self.tokens[i]),
            value="attention",
            group=GROUP,
            essential=False,
        )

    def _name(self, layer: int, head: int) -> str:
        """L23H4; of grouped heads with the key and value head: L23H4 (kv 1)."""
        return f"L{layer}H{head}" + (f" (kv {head // self.sharing})" if self.sharing > 1 else "")


def attention_patterns(
    model: Model, inputs: Sequence[Inputs], heads: Sequence[Head] | None = None, *, sides: Sequence[str] = ("",)
) -> AttentionPatterns:
    """The patterns of these heads, by default of all, on each of these inputs, of one row each; padding is left out.

    Cost: one forward pass an input, with the patterns of the layers asked for in memory. Raises UserError for a model
    without patterns, for heads that it does not have, and for more cells than can be shown.
    """
    shape, offered = model.shape, {site.layer or 0 for site in model.sites if site.kind == "pattern"}
    if heads is None:
        heads = [(layer, head) for layer in sorted(offered) for head in range(shape.n_heads)]
    missing = [f"L{layer}H{head}" for layer, head in heads if layer not in offered or not 0 <= head < shape.n_heads]
    if missing or not heads:
        raise UserError(
            f"Asked for the attention patterns of {', '.join(missing) or 'no head'}. This model has patterns in "
            f"{len(offered)} layers of {shape.n_heads} heads."
        )
    rows = [_unpadded(each) for each in inputs]
    cells = max(len(row) ** 2 for row in rows) * len(heads)
    if cells > MOST_CELLS:
        raise UserError(
            f"Asked for the patterns of {len(heads)} heads over {max(map(len, rows))} tokens: {cells:,} cells, and "
            f"{MOST_CELLS:,} can be shown. Choose layers, or a shorter prompt."
        )
    sites = {layer: Site("pattern", layer) for layer, _ in heads}
    found = []
    for row in rows:
        cache = model.run(row[None], keep=[*sites.values()], logits="last").cache
        found.append(torch.stack([cache[sites[layer]][0, head] for layer, head in heads]))
    texts = tuple(tuple(_texts(model, row)) for row in rows)
    return AttentionPatterns(tuple(heads), tuple(sides), texts, tuple(found), shape.group)


def pattern_figures(model: Model, pairs: Pairs, parts: Sequence[str | None]) -> list[Figure]:
    """The patterns of the first heads among these parts ("L9.z[6]"), on both prompts of the first pair.

    Nothing where no head is named, where the model has no patterns, or where the prompt is too long for a page.
    """
    offered = {site.layer for site in model.sites if site.kind == "pattern"}
    named = (NAMED.match(part or "") for part in parts)
    heads = dict.fromkeys((int(match[1]), int(match[2])) for match in named if match and int(match[1]) in offered)
    chosen, first = sorted([*heads][:MOST_HEADS]), pairs.rows(slice(0, 1))
    if not chosen or ids_of(first.clean).shape[1] ** 2 * len(chosen) > MOST_CELLS:
        return []
    inputs = {"clean": first.clean, "corrupt": first.corrupt}
    if torch.equal(ids_of(first.clean), ids_of(first.corrupt)):
        inputs = {"": first.clean}
    return attention_patterns(model, [*inputs.values()], chosen, sides=[*inputs]).figures()


def _unpadded(inputs: Inputs) -> Tensor:
    """The tokens of the one row, without padding."""
    ids, mask = ids_of(inputs), mask_of(inputs)
    assert len(ids) == 1, "one prompt a side"
    return ids[0] if mask is None else ids[0][mask[0].bool()]


def _texts(model: Model, row: Tensor) -> list[str]:
    """The tokens as text; without a tokenizer their ids."""
    return [str(each) for each in row.tolist()] if model.tokenizer is None else to_str_tokens(model.tokenizer, row)
