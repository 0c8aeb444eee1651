"""How much a model has stored: bits of facts, and bits a parameter.

A fact among V options that is answered with probability p holds log2 V + log2 p bits, below 0 where the model is
confidently wrong. The uniform guess holds none; the base rate of a skewed relation holds some, so that with `base_rate`
-log2 of the answer's share takes the place of log2 V.
Sources: Allen-Zhu and Li, "Physics of Language Models: Part 3.3" (2024); Morris et al., "How much do language models
memorize?" (2025), whose definition differs.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.model import Model
from micrographia.core.small.transformer import Transformer
from micrographia.methods.lookup.facts import Facts, Relation, outcome

EMBEDDINGS = ("embed.", "pos_embed.", "unembed.")


class Capacity(NamedTuple):
    """`bits` (relation,) of all subjects together; parameters of the model, and those beside its embeddings."""

    bits: Float[Tensor, "relation"]
    parameters: int
    inner: int

    @property
    def per_parameter(self) -> float:
        return float(self.bits.sum()) / self.parameters

    @property
    def per_inner_parameter(self) -> float:
        """Embeddings, positions and the unembedding left out."""
        return float(self.bits.sum()) / self.inner


def bits_stored(model: Transformer, facts: Facts, *, base_rate: bool = False) -> Capacity:
    """What a small model holds of these facts. One pass a relation."""
    sizes = {name: weight.numel() for name, weight in model.state.items()}
    inner = sum(size for name, size in sizes.items() if not name.startswith(EMBEDDINGS))
    return Capacity(bits_of(model, facts, base_rate=base_rate), sum(sizes.values()), inner)


def bits_of(model: Model, facts: Facts, *, base_rate: bool = False) -> Float[Tensor, "relation"]:
    """Bits of each relation, all subjects together, under any model."""
    found = outcome(model, facts).logits
    return torch.stack([_bits(relation, x, base_rate) for relation, x in zip(facts.relations, found)])


def _bits(relation: Relation, logits: Tensor, base_rate: bool) -> Tensor:
    own = relation.nats(logits.double()) / math.log(2)
    if not base_rate:
        return (own + math.log2(len(relation.options))).sum()
    rate = relation.answer.bincount(minlength=len(relation.options)).double() / len(relation.answer)
    return (own - rate[relation.answer].log2()).sum()
