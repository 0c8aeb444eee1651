"""Planted: a hand-built model, prompt pairs, and the parts of its circuit by the role they play; and distractors.

Every free head and neuron is a distractor, so that a circuit is found only by a method that separates it from those:
inert   they read the letters that clean and corrupt prompts differ in, with five times the circuit's activation, and
        write where nothing reads; their effect is exactly zero
weak    they do move the metric, directly and linearly, by about a hundredth of what the circuit does. A part of the
        circuit whose score is not above the largest of theirs is missed, however small a number it got
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.core.graph import INPUT, Edge, Node
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.small.transformer import Transformer
from micrographia.core.tokens import ids_of
from micrographia.labs.planted.draft import ANSWERS, N_LAYERS, ON, VOCABULARY, WORDS, YES, Draft, N

GAIN = 2.0
"""Logits that a circuit's answer is worth."""
WASTE = 5.0
WEAK = {"head": 0.02, "neuron": 0.01}


class PlantedPart(NamedTuple):
    """One place of one activation: `index` is a head or a neuron."""

    site: Site
    pos: int
    index: int  # pyright: ignore[reportIncompatibleMethodOverride] (a tuple has a method of that name)


class Planted(NamedTuple):
    """`roles`: what each part of the circuit does, and where it is. `edges`: those that carry the answer."""

    name: str
    model: Transformer
    pairs: Pairs
    roles: Mapping[str, tuple[PlantedPart, ...]]
    edges: tuple[Edge, ...]

    @property
    def sites(self) -> tuple[Site, ...]:
        """Heads' outputs and neurons of every layer, and queries, keys or values where the circuit names some."""
        named = {part.site.kind for parts in self.roles.values() for part in parts}
        kinds = [kind for kind in ("q", "k", "v", "z", "neurons") if kind in named | {"z", "neurons"}]
        return tuple(site for kind in kinds for site in self.model.sites if site.kind == kind)

    def lengths(self, site: Site) -> tuple[int, int]:
        """How many positions, and heads or neurons, a score of this Site has."""
        shape = self.model.shape
        return ids_of(self.pairs.clean).shape[1], shape.d_mlp if site.kind == "neurons" else shape.n_heads

    @property
    def circuit(self) -> frozenset[PlantedPart]:
        return frozenset(part for parts in self.roles.values() for part in parts)


def heads(kind: str, layer: int, head: int, *places: int) -> tuple[PlantedPart, ...]:
    return tuple(PlantedPart(Site(kind, layer), pos, head) for pos in places)


def neurons(layer: int, pos: int, units: Sequence[int]) -> tuple[PlantedPart, ...]:
    return tuple(PlantedPart(Site("neurons", layer), pos, unit) for unit in units)


def edges(*texts: str) -> tuple[Edge, ...]:
    """Edges from texts such as "L0.z[0] -> L1.mlp_pre"; "input" is the embeddings together."""
    ends = [text.replace("input", str(INPUT)).split(" -> ") for text in texts]
    return tuple(Edge(Node.parse(writer), Node.parse(reader)) for writer, reader in ends)


def pairs_of(rows: Sequence[tuple[str, str, str, str]]) -> Pairs:
    """Pairs from (clean, corrupt, right, wrong)."""
    clean, corrupt, right, wrong = (list(column) for column in zip(*rows))
    prompts = [torch.tensor([VOCABULARY.encode(text) for text in side]) for side in (clean, corrupt)]
    answers = [torch.tensor([WORDS.index(word) for word in side]) for side in (right, wrong)]
    return Pairs(prompts[0], prompts[1], answers[0], answers[1], tuple(zip(clean, corrupt)))


def votes_for(*letters: str, step: int = 0) -> Tensor:
    """The answer that weak distractors add to for each letter: that `step` letters on; or "yes" to these letters."""
    table = torch.zeros(N, len(ANSWERS), dtype=torch.float64)
    if letters:
        table[[ANSWERS.index(letter) for letter in letters], ANSWERS.index(YES)] = 1.0
    else:
        table[:, :N] = torch.eye(N, dtype=torch.float64).roll(step, 1)
    return table


YES_TO_ON = votes_for(*ANSWERS[:ON])


def add_distractors(draft: Draft, sources: Sequence[int], end: int, votes: Tensor) -> Draft:
    """Fill every free head and neuron with distractors, inert and weak, which at `end` read the letters at `sources`.

    `votes` (letter, answer) is what weak ones add. One more head brings the first letter to `echo`, for the neurons.
    """
    echo = draft.free("head", 0)[0]
    draft.look(0, echo, {end: sources[0]})
    draft.read(0, echo, "token")
    draft.write(0, echo, "echo")
    for layer in range(N_LAYERS):
        for n, head in enumerate(draft.free("head", layer)):
            draft.look(layer, head, {end: sources[n // 2 % len(sources)]})
            draft.read(layer, head, "token")
            if n % 2:
                draft.write(layer, head, "answer", WEAK["head"] * votes)
            else:
                draft.write(layer, head, "waste", WASTE)
        _neurons(draft, layer, votes)
    return draft


def _neurons(draft: Draft, layer: int, votes: Tensor) -> None:
    """For each letter an inert and a weak one. Their bias keeps them on, so that they are linear."""
    free = draft.free("neuron", layer)
    for letter, unit in enumerate(free[:N]):
        draft.neuron(layer, unit, {draft.at("echo", letter): WASTE}, {draft.at("waste", letter): WASTE}, 0.5)
    for letter, unit in enumerate(free[N : 2 * N]):
        answers = {draft.at("answer", i): WEAK["neuron"] * float(x) for i, x in enumerate(votes[letter])}
        draft.neuron(layer, unit, {draft.at("echo", letter): 1.0}, answers, 0.5)
