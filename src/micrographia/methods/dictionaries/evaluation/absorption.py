"""Feature absorption: a latent for "begins with S" that stays silent where a latent for a word tells the same.

For each letter (or other class): a logistic probe p on activations is the truth; main latents are found by k-sparse
probing, a further one as long as it raises F1 by more than `SPLIT`. With the projections of a token's activation,
P = x.p, of its main latents, M = sum a_i d_i.p, and of the `ABSORBERS` largest others that point along p, A:
where M >= P, or A is below `PROPORTION` of P, nothing is absorbed; else the fraction is B / (B + M) with
B = min(A, P - M), and 1 for M <= 0. The mean is over test tokens of the letter at which the probe is right.
Full absorption: all main latents silent, and one other makes `PROPORTION` of P by itself.
Sources: Chanin et al., "A is for absorption" (2409.14507), on full absorption; SAEBench (Karvonen et al. 2025) for the
fraction; constants are those of SAEBench's code. Where the model does not know letters, or latents are few (the
published setting is a model of a billion parameters and 16,384 latents), scores are near 0 and say nothing, and
dictionaries that have hardly been trained score well. Axes: row d latent.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import UserError
from micrographia.core.tokens import Tokenizer
from micrographia.methods.dictionaries.evaluation.labelled import Examples, decoder_of
from micrographia.methods.dictionaries.evaluation.logistic import LogisticProbe, fit
from micrographia.methods.dictionaries.evaluation.probing import largest_difference

SPLIT, MOST = 0.03, 10
"""The rise of F1 that makes one more main latent, and how many there may be."""
PROPORTION = 0.4
"""Of the probe's reading that other latents must make up."""
ABSORBERS, ALONG = 3, 0.1
"""How many others may absorb together, and their least cosine with the probe."""
ALIGNED = 0.025
"""That of one that absorbs in full."""
FEWEST = 5
"""Test tokens at which the probe is right, below which a letter is not scored. Our choice."""


class Absorption(NamedTuple):
    """One letter. NaN where the probe is right at too few test tokens."""

    label: int
    probe_f1: float
    """Of the probe itself on test data: where it is low, the rest says nothing."""
    main_f1: float
    main: tuple[int, ...]
    fraction: float
    full: float
    """Share of the tokens at which main latents are silent and one other stands for them."""
    n: int
    """Test tokens of this letter at which the probe is right."""


def absorption(
    dictionary: Dictionary, train: Examples, test: Examples, labels: Sequence[int] | None = None
) -> list[Absorption]:
    """Absorption of each label. Cost: a probe of d activations and up to `MOST` small ones for each label.

    Raises BadShape for a transcoder, whose decoder does not write what is probed; UserError for too few examples.
    """
    counts = {label: int((train.labels == label).sum()) for label in train.labels.unique().tolist()}
    chosen = [label for label, n in counts.items() if n >= FEWEST] if labels is None else list(labels)
    if len(counts) < 2 or not chosen:
        raise UserError(f"Absorption needs two labels with {FEWEST} training examples each. Found {counts}.")
    return [_of_label(dictionary, train, test, label) for label in chosen]


def mean_absorption(found: Sequence[Absorption]) -> dict[str, float]:
    """Means over the labels that were scored; 1 - `fraction` is SAEBench's headline."""
    scored = [each for each in found if each.fraction == each.fraction]
    if not scored:
        return {"fraction": float("nan"), "full": float("nan"), "labels": 0}
    return {
        "fraction": sum(each.fraction for each in scored) / len(scored),
        "full": sum(each.full for each in scored) / len(scored),
        "labels": len(scored),
    }


def _of_label(dictionary: Dictionary, train: Examples, test: Examples, label: int) -> Absorption:
    own, true = train.labels == label, test.labels == label
    probe = fit(train.x, own, balanced=True)
    main, f1 = main_latents(train, own)
    right = true & (probe.logits(test.x) > 0).cpu()
    probe_f1 = probe.f1(test.x, true)
    if int(right.sum()) < FEWEST:
        return Absorption(label, probe_f1, f1, main, float("nan"), float("nan"), int(right.sum()))
    fraction, full = _absorbed(dictionary, test.rows(right), probe, main)
    return Absorption(label, probe_f1, f1, main, fraction, full, int(right.sum()))


def main_latents(train: Examples, own: Bool[Tensor, "row"]) -> tuple[tuple[int, ...], float]:
    """The latents that k-sparse probing finds, k raised while F1 on training data rises by more than `SPLIT`."""
    order = largest_difference(train.latents, own, MOST)
    best, k = 0.0, 0
    for n in range(1, len(order) + 1):
        values = train.latents[:, order[:n]]
        f1 = fit(values, own, balanced=True).f1(values, own)
        if n > 1 and f1 <= best + SPLIT:
            break
        best, k = f1, n
    return tuple(order[:k].tolist()), best


def _absorbed(
    dictionary: Dictionary, examples: Examples, probe: LogisticProbe, main: tuple[int, ...]
) -> tuple[float, float]:
    """The fraction, and the share of full absorption, over these tokens."""
    direction = probe.direction / probe.direction.norm()
    decoder = decoder_of(dictionary)
    along = decoder @ direction
    cosine = along / decoder.norm(dim=1).clamp(min=1e-12)
    others = torch.ones(len(along), dtype=torch.bool)
    others[list(main)] = False
    parts: Float[Tensor, "row latent"] = examples.latents.double() * along
    whole, own = examples.x.double() @ direction, parts[:, ~others].sum(1)
    able = (parts * (others & (cosine >= ALONG))).clamp(min=0)
    absorbers = able.topk(min(ABSORBERS, able.shape[1]), dim=1).values.sum(1)
    taken = torch.minimum(absorbers, whole - own)
    fraction = torch.where(own > 0, taken / (taken + own), 1.0)
    fraction = torch.where((own >= whole) | (absorbers < PROPORTION * whole), 0.0, fraction)
    largest = (parts * others).max(1)
    silent = (examples.latents[:, ~others] == 0).all(1)
    full = silent & (cosine[largest.indices] >= ALIGNED) & (whole > 0) & (largest.values >= PROPORTION * whole)
    return float(fraction.mean()), float(full.double().mean())


def first_letters(tokenizer: Tokenizer, n_tokens: int, *, least: int = 3) -> tuple[list[int], list[int]]:
    """Tokens of the vocabulary that are words of ASCII letters, and the number of each one's first letter (a = 0).

    Words begin with a space where the tokenizer marks beginnings so; others with `least` letters or more count too.
    """
    tokens, letters = [], []
    for token in range(n_tokens):
        text: Any = tokenizer.decode([token])
        word = text.strip()
        if len(word) >= least and word.isascii() and word.isalpha():
            tokens.append(token)
            letters.append(ord(word[0].lower()) - ord("a"))
    return tokens, letters
