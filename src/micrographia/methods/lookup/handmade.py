"""Three networks built by hand that store the same facts in known ways, to hold every measure against.

Each reads a first name, a last name and a token that it does not use, and answers two relations or more:
- `conjunctions`: one neuron a subject (or a fact) is the AND of its two names and writes the answers (the study's H1);
- `hashed`: a first MLP writes a code of its own for each subject, which a second one looks up (H2);
- `additive`: each name adds to the answers by itself, so that nothing depends on the pair; its neurons are linear.
Answers of the first two are drawn at random. Names of the hypotheses: Nanda et al., "Fact Finding" (2023), post 3.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.methods.lookup.facts import Facts, Relation, facts_of

SURE = 10.0
"""The logit of the right answer above the others: its loss is 1e-4, and an ablation of its neuron is felt alone."""


class Handmade(NamedTuple):
    """A network and the facts that it knows: every pair of names."""

    model: Transformer
    facts: Facts


class _Plan(NamedTuple):
    """The residual stream: a dimension for each name, each subject's code, and each option of all relations."""

    n_first: int
    n_last: int
    sizes: Sequence[int]

    @property
    def n(self) -> int:
        return self.n_first * self.n_last

    @property
    def names(self) -> int:
        return self.n_first + self.n_last

    @property
    def answers_from(self) -> int:
        return self.names + self.n

    @property
    def width(self) -> int:
        return self.answers_from + sum(self.sizes)

    def grid(self) -> Int[Tensor, "subject part"]:
        return torch.cartesian_prod(torch.arange(self.n_first), torch.arange(self.n_last))

    def architecture(self, n_layers: int, d_mlp: int) -> Architecture:
        return Architecture(
            d_vocab=self.names + 1,
            d_vocab_out=sum(self.sizes),
            n_ctx=3,
            n_layers=n_layers,
            d_model=self.width,
            d_mlp=d_mlp,
            n_heads=1,
            d_head=1,
            act="relu",
            attention=False,
            joined="summed",
        )

    def network(self, mlps: Sequence[tuple[Tensor, Tensor, Tensor]], embed: Tensor | None = None) -> Transformer:
        """From W_in, b_in and W_out of each layer."""
        arch = self.architecture(len(mlps), len(mlps[0][1]))
        state = {name: torch.zeros(shape) for name, shape in arch.weight_shapes().items()}
        state["embed.W_E"][: self.names, : self.names] = torch.eye(self.names)
        if embed is not None:
            state["embed.W_E"][: self.names, self.answers_from :] = embed
        for i, (W_in, b_in, W_out) in enumerate(mlps):
            state |= {f"blocks.{i}.mlp.W_in": W_in, f"blocks.{i}.mlp.b_in": b_in, f"blocks.{i}.mlp.W_out": W_out}
        state["unembed.W_U"][self.answers_from :] = torch.eye(sum(self.sizes))
        return Transformer(arch, state)

    def facts(self, answers: Int[Tensor, "subject relation"]) -> Facts:
        parts = self.grid()
        inputs = torch.stack([parts[:, 0], self.n_first + parts[:, 1], torch.full((self.n,), self.names)], 1)
        starts = torch.tensor([0, *self.sizes]).cumsum(0)
        relations = [
            Relation(
                f"relation {k}", inputs, torch.zeros(self.n, dtype=torch.int64), start + torch.arange(size), answer
            )
            for k, (size, start, answer) in enumerate(zip(self.sizes, starts, answers.unbind(1)))
        ]
        return facts_of(parts, relations)

    def drawn(self, generator: Generator) -> Int[Tensor, "subject relation"]:
        return torch.stack([torch.randint(size, (self.n,), generator=generator) for size in self.sizes], 1)

    def writes(self, answers: Int[Tensor, "subject relation"]) -> Float[Tensor, "relation subject d_model"]:
        """A one for the right option of each relation."""
        starts = self.answers_from + torch.tensor([0, *self.sizes[:-1]]).cumsum(0)
        return torch.nn.functional.one_hot((answers + starts).T, self.width).float()

    def both_names(self, times: int) -> tuple[Tensor, Tensor]:
        """W_in and b_in of neurons that are 1 at their subject and 0 elsewhere, each `times` over."""
        parts = self.grid().repeat(times, 1)
        W_in = torch.zeros(self.width, len(parts))
        for column in (parts[:, 0], self.n_first + parts[:, 1]):
            W_in[column, torch.arange(len(parts))] = 2.0
        return W_in, torch.full((len(parts),), -3.0)


def conjunctions(
    n_first: int, n_last: int, sizes: Sequence[int], generator: Generator, *, a_fact_each: bool = False
) -> Handmade:
    """One MLP. `a_fact_each`: a neuron for every fact; else one for every subject, which writes all its facts."""
    plan = _Plan(n_first, n_last, sizes)
    answers = plan.drawn(generator)
    writes = SURE * plan.writes(answers)
    W_in, b_in = plan.both_names(len(sizes) if a_fact_each else 1)
    W_out = writes.flatten(0, 1) if a_fact_each else writes.sum(0)
    return Handmade(plan.network([(W_in, b_in, W_out)]), plan.facts(answers))


def hashed(n_first: int, n_last: int, sizes: Sequence[int], generator: Generator) -> Handmade:
    """Two MLPs: a code for every subject, then its answers."""
    plan = _Plan(n_first, n_last, sizes)
    answers = plan.drawn(generator)
    codes = torch.eye(plan.width)[plan.names : plan.answers_from]
    first = (*plan.both_names(1), codes)
    second = codes.T.contiguous(), torch.zeros(plan.n), SURE * plan.writes(answers).sum(0)
    return Handmade(plan.network([first, second]), plan.facts(answers))


def additive(n_first: int, n_last: int, sizes: Sequence[int], generator: Generator) -> Handmade:
    """One MLP whose neurons never stop: the answers are those with the largest sum of what the two names say."""
    plan = _Plan(n_first, n_last, sizes)
    said = torch.randn(plan.names, sum(sizes), generator=generator)
    W_in, W_out = (torch.randn(plan.width, plan.n, generator=generator) / 10 for _ in range(2))
    W_out = W_out.T.contiguous()
    W_out[:, : plan.answers_from] = 0
    model = plan.network([(W_in, torch.full((plan.n,), 10.0), W_out)], said)
    inputs = plan.facts(torch.zeros(plan.n, len(sizes), dtype=torch.int64)).first.inputs
    blocks = model.run(inputs).logits[:, -1].split(list(sizes), -1)
    return Handmade(model, plan.facts(torch.stack([block.argmax(-1) for block in blocks], 1)))
