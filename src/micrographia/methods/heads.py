"""Head scores: attention to previous, duplicate and induction tokens, and whether a head copies what it attends to.

Scores are (layer, head) tensors, on any Model. Uniform attention is the null of every attention score (`evenly`); the
same scores on an untrained model are another. A name such as "induction head" is a claim about behaviour on these
inputs only: the effect of a head on the output needs patching.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core import figures
from micrographia.core.errors import UserError
from micrographia.core.figures import Figure
from micrographia.core.model import Model, Start
from micrographia.core.sites import Site

COPIED = 5
"""A token counts as copied when its logit is among this many largest (Wang et al. 2022, section 3.1)."""


class RepeatScores(NamedTuple):
    """Mean attention from the words of the second copy of a repeated span, by target."""

    previous: Float[Tensor, "layer head"]
    """One position back: previous-token heads (Elhage et al. 2021)."""
    duplicate: Float[Tensor, "layer head"]
    """The same word in the first copy: duplicate-token heads (Wang et al. 2022, section 3.3)."""
    prefix_matching: Float[Tensor, "layer head"]
    """The word after the same word in the first copy: induction heads (Olsson et al. 2022, "prefix matching score")."""


@dataclass(frozen=True, eq=False, slots=True)
class HeadScores:
    """The scores of every head on random repeated tokens. Print them, or show them in a notebook."""

    scores: RepeatScores
    chance: float
    """What a head scores that attends to all tokens alike."""
    losses: tuple[float, float]
    """Nats a token in the first copy and in the second: what the model gains by the repetition."""
    span: int
    n: int

    def __repr__(self) -> str:
        return f"HeadScores({self.scores.previous.numel()} heads, {self.n} rows of {self.span} tokens twice)"

    def __str__(self) -> str:
        lines = [repr(self), f"Chance: {self.chance:.3g}."]
        for name, kind in KINDS.items():
            best = ", ".join(f"{row['head']} {row[name]:.2f}" for row in self.rows(name)[:5])
            lines.append(f"  {kind:<16} {best}")
        return "\n".join(lines)

    def rows(self, by: str = "prefix_matching") -> list[dict[str, Any]]:
        """A row a head, the largest of this score first."""
        shape, columns = (
            self.scores.previous.shape,
            {name: x.flatten().tolist() for name, x in self.scores._asdict().items()},
        )
        heads = [f"L{layer}H{head}" for layer in range(shape[0]) for head in range(shape[1])]
        found = [{"head": head, **{name: x[i] for name, x in columns.items()}} for i, head in enumerate(heads)]
        return sorted(found, key=lambda row: -row[by])

    def figures(self) -> list[Figure]:
        """A heat map of layer and head for each score."""
        n_layers, n_heads = self.scores.previous.shape
        return [
            figures.heatmap(
                "head-scores",
                "Heads on repeated tokens",
                torch.stack([getattr(self.scores, name) for name in KINDS]).numpy(),
                x=[str(i) for i in range(n_heads)],
                y=[str(i) for i in range(n_layers)],
                panels=list(KINDS.values()),
                value="mean attention",
                x_label="head",
                y_label="layer",
                caption=f"Mean attention from the second copy of {self.span} random tokens. A head that attends evenly "
                f"has {self.chance:.2g}.",
                group="In pictures",
            )
        ]


KINDS = {"prefix_matching": "induction", "previous": "previous token", "duplicate": "duplicate token"}
"""The scores of `RepeatScores`, as heads that score high are called."""
CLEAR = 0.4
"""Scores above this are counted: far above chance, and a common choice. No score makes a head one of a kind."""


def score_heads(model: Model, *, n: int, span: int, generator: Generator, bos: int | None = None) -> HeadScores:
    """The scores of every head on n rows of `span` random tokens twice, after `bos` where there is one.

    Tokens are drawn from the whole vocabulary, less those that begin, pad and mask. One forward pass, with the patterns
    of all layers in memory: n * layers * heads * (2 span)^2 numbers.
    """
    special = {bos, *(getattr(model.tokenizer, name, None) for name in ("bos", "pad", "mask", "unk"))}
    words = torch.tensor([i for i in range(model.shape.d_vocab) if i not in special])
    tokens = repeated_spans(n, span, words, generator, bos=bos).to(model.weights.W_E.device)
    found = RepeatScores(*(x.float().cpu() for x in repeat_scores(model, tokens, span)))
    chance = evenly(torch.arange(tokens.shape[1] - span, tokens.shape[1]))
    losses = model.run(tokens).logits[:, :-1].float().log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    halves = (float(-losses[:, -2 * span : -span].mean()), float(-losses[:, -span:].mean()))
    return HeadScores(found, chance, halves, span, n)


def repeated_spans(
    n: int, span: int, words: Int[Tensor, "word"], generator: Generator, *, bos: int | None = None
) -> Int[Tensor, "n pos"]:
    """n rows of `span` distinct random words, repeated once, after `bos` where there is one.

    Raises UserError for a span of more words than there are.
    """
    if not 0 < span <= len(words):
        raise UserError(
            f"Spans of {span} different words were asked for, of {len(words)} words. Ask for 1 to that many."
        )
    drawn = torch.rand(n, len(words), generator=generator).topk(span).indices
    first = words[drawn]
    start = torch.full((n, 0 if bos is None else 1), bos or 0, dtype=first.dtype)
    return torch.cat([start, first, first], 1)


def repeat_scores(model: Model, tokens: Int[Tensor, "n pos"], span: int) -> RepeatScores:
    """The attention of heads from the second of two copies of `span` words, the last 2 * span of the row.

    One forward pass; stores the patterns of all layers, (n, head, pos, pos) each.
    Source: Olsson et al., "In-context learning and induction heads" (2022), on head activation evaluators.
    """
    patterns = model.run(tokens, keep=_patterns(model), logits="last").cache
    queries = torch.arange(tokens.shape[1] - span, tokens.shape[1])

    def back(by: int) -> Tensor:
        return torch.stack([patterns[site][:, :, queries, queries - by].mean((0, 2)) for site in _patterns(model)])

    return RepeatScores(back(1), back(span), back(span - 1))


def attention(
    model: Model, tokens: Int[Tensor, "n pos"], pairs: Sequence[tuple[Int[Tensor, "n"], Int[Tensor, "n"]]]
) -> Float[Tensor, "pair layer head"]:
    """Mean attention over the rows, from the first position of each pair to the second. One forward pass."""
    cache = model.run(tokens, keep=_patterns(model), logits="last").cache
    rows = torch.arange(len(tokens))
    found = [[cache[site][rows, :, q, k].mean(0) for site in _patterns(model)] for q, k in pairs]
    return torch.stack([torch.stack(layers) for layers in found])


def evenly(queries: Int[Tensor, "n"]) -> float:
    """Mean attention to any one key under uniform causal attention: 1 / (query + 1)."""
    return (1 / (queries.double() + 1)).mean().item()


def copy_scores(
    model: Model, tokens: Int[Tensor, "n pos"], at: Int[Tensor, "n"], *, sign: int = 1, top: int = COPIED
) -> Float[Tensor, "layer head"]:
    """Fraction of rows in which a head attending only to position `at` puts its token among the `top` logits.

    The head's value and output maps are applied to the residual stream after the first layer (heads of the first layer:
    to the embedding, their only input), followed by the final norm and the unembedding. `sign` -1 tests whether the
    head suppresses the token (negative copying). Chance is `top` / vocabulary.
    One forward pass, one layer for each layer, and a readout of n rows for each head.
    Source: Wang et al. (2022), section 3.1; that heads of the first layer read the embedding is ours.
    """
    shape, rows = model.shape, torch.arange(len(tokens))
    early = [Site("resid_pre", layer) for layer in range(min(2, shape.n_layers))]
    residual = model.run(tokens, keep=early, stop=len(early)).cache
    own = tokens[rows, at][:, None]
    scores = torch.zeros(shape.n_layers, shape.n_heads)
    for layer in range(shape.n_layers):
        start, v = Start(layer, residual[early[min(layer, len(early) - 1)]]), Site("v", layer)
        values = model.run(tokens, keep=v, start=start, stop=layer + 1).cache[v][rows, at]
        for head in range(shape.n_heads):
            group = head * values.shape[1] // shape.n_heads  # heads of a group share their values
            written = sign * values[:, group] @ model.weights.W_O[layer, head]
            logits = model.run(own, start=Start(shape.n_layers, written[:, None])).logits
            scores[layer, head] = (logits[:, -1].topk(top).indices == own).any(1).double().mean()
    return scores


def copying_eigenvalues(model: Model) -> Float[Tensor, "layer head"]:
    """Sum of the eigenvalues of W_E W_V W_O W_U over the sum of their sizes: 1 copies, -1 suppresses, 0 neither.

    The matrix is (vocab, vocab) of rank d_head at most, so its eigenvalues are those of W_O W_U W_E W_V. Norms and MLPs
    are left out. Two products over the vocabulary and a small eigenproblem for each head.
    Source: Elhage et al., "A mathematical framework for transformer circuits" (2021), on copying and eigenvalues.
    """
    shape, weights = model.shape, model.weights
    through = (weights.W_U.double() @ weights.W_E.double()).cpu()
    scores = torch.zeros(shape.n_layers, shape.n_heads)
    for layer in range(shape.n_layers):
        for head in range(shape.n_heads):
            group = head * shape.n_kv_heads // shape.n_heads
            W_O, W_V = (w.double().cpu() for w in (weights.W_O[layer, head], weights.W_V[layer, group]))
            values = torch.linalg.eigvals(W_O @ through @ W_V)
            scores[layer, head] = (values.sum().real / values.abs().sum()).float()
    return scores


def _patterns(model: Model) -> list[Site]:
    return [Site("pattern", layer) for layer in range(model.shape.n_layers)]
