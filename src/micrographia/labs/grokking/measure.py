"""What Nanda et al. (2023) measure, in the paper's order and with its symbols.

Each function takes a Reading and the key frequencies `ks`. What needs the split is NaN where the split is not known;
what needs neurons or attention is empty where the network has none.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from micrographia.core.edits import put
from micrographia.core.losses import cross_entropy
from micrographia.core.model import Model
from micrographia.labs.grokking.reading import Reading, Task, Weights, cyclic
from micrographia.methods import clock_pizza
from micrographia.methods.fourier import attention, cubes, excluded, neurons, restricted, spectra, weights

Numbers = dict[str, float]


def performance(r: Reading) -> Numbers:
    """Section 3: losses and accuracies on all pairs, those in training and the others; "=" is no answer here."""
    figures = {"loss": cross_entropy(r.answers, r.labels), "accuracy": (r.answers.argmax(-1) == r.labels).double()}
    parts = {"": torch.ones_like(r.labels, dtype=torch.bool)}
    parts |= {} if r.seen is None else {"train_": r.seen, "test_": ~r.seen}
    unknown = dict.fromkeys((f"{part}{name}" for part in ("train_", "test_") for name in figures), math.nan)
    return unknown | {
        f"{part}{name}": x[rows].mean().item() for part, rows in parts.items() for name, x in figures.items()
    }


def periodic_weights(r: Reading, ks: Sequence[int]) -> Numbers:
    """Section 4.1 and 4.2: how few Fourier components hold W_E and W_L, and what of W_L is outside the key rows."""
    of_embedding = spectra.embedding_spectrum(r.W_E)
    found = {"gini_embedding": spectra.gini(of_embedding.rows), "ipr_embedding": spectra.ipr(of_embedding.rows)}
    if r.W_L is None:
        return found
    of_logits = spectra.neuron_logit_spectrum(r.W_L)
    pairs = spectra.doublets(torch.linalg.svdvals(r.W_L))
    return found | {
        "gini_neuron_logit": spectra.gini(of_logits.rows),
        "ipr_neuron_logit": spectra.ipr(of_logits.rows),
        "neuron_logit_residual": spectra.residual_fraction(r.W_L, ks) if ks else math.nan,
        "neuron_logit_rank": pairs.rank,
        "neuron_logit_doublets": len(pairs.pairs),
    }


def logit_cubes(r: Reading, ks: Sequence[int]) -> Numbers:
    """Section 4.2: the share of the logits in the cubes cos(w_k(a+b-c)), and the loss of those cubes alone."""
    if not ks:
        return {"logit_variance_explained": 0.0, "trig_loss": math.nan, "trig_test_loss": math.nan, "trig_ratio": 0.0}
    trig = cubes.trig_loss(r.logits, ks, r.train)
    return {
        "logit_variance_explained": cubes.logit_variance_explained(r.logits, ks),
        "trig_loss": trig.loss,
        "trig_test_loss": trig.test_loss,
        "trig_ratio": cubes.trig_ratio(r.logits, ks).nanmean().item(),
    }


def neuron_directions(r: Reading, ks: Sequence[int]) -> list[Numbers]:
    """Section 4.2, table 1: the variance of u_k . H along cos(w_k(a+b)), and of v_k . H along sin."""
    if r.neurons is None or r.W_L is None:
        return []
    rows = []
    for k in ks:
        directions = spectra.neuron_logit_directions(r.W_L, k).to(r.neurons)
        shares = [neurons.fve_of_direction(r.neurons @ direction, k) for direction in directions.T]
        sine = shares[1].sine if len(shares) > 1 else math.nan
        rows.append({"k": k, "cosine": shares[0].cosine, "sine": sine})
    return rows


def neuron_frequencies(r: Reading) -> neurons.NeuronClusters | None:
    """Section 4.3: the frequency of each neuron and the share of its variance that this explains."""
    return None if r.neurons is None else neurons.neuron_clusters(r.neurons)


def attention_waves(r: Reading) -> list[Numbers]:
    """Section 4.3: each head's attention from "=" to a as a wave of a less that of b, and what goes to "="."""
    if r.pattern is None:
        return []
    fit = attention.attention_periodicity(r.pattern[..., 0])
    mean = attention.mean_attention(r.pattern)
    columns = (fit.frequency, fit.fve, fit.alpha, fit.beta, *mean.T)
    names = ("k", "fve", "alpha", "beta", "to_a", "to_b", "to_equals")
    rows = zip(*(column.tolist() for column in columns))
    return [{"head": head, **dict(zip(names, row))} for head, row in enumerate(rows)]


VARIANTS = ("projection", "quadratic")
RESTRICTED = (*(f"{name}{part}" for name in VARIANTS for part in ("", "_train", "_test")), "neurons", "neurons_all")


def restricted_losses(r: Reading, ks: Sequence[int], variants: Sequence[str] = VARIANTS) -> Numbers:
    """Section 5.1: the loss with the key frequencies alone, in the three published variants by name.

    projection and quadratic (the one dense one) on all pairs, in training and in test; neurons, as published, in test.
    """
    found = {name: restricted.restricted_loss(r.logits, ks, r.train, variant=name) for name in variants}
    flat = {}
    for name, value in found.items():
        flat |= {name: value.loss, f"{name}_train": value.train_loss, f"{name}_test": value.test_loss}
    if r.neurons is None or r.W_L is None:
        return flat | {"neurons": math.nan, "neurons_all": math.nan}
    by_neurons = restricted.restricted_loss_of_neurons(r.neurons, r.W_L, r.logits, ks, r.train)
    return flat | {"neurons": by_neurons.test_loss, "neurons_all": by_neurons.loss}


def excluded_losses(r: Reading, ks: Sequence[int]) -> Numbers:
    """Section 5.1: the loss on the training pairs without the key frequencies, in both published forms."""
    flat, cubic = (excluded.excluded_loss(r.logits, ks, r.train, form=form) for form in ("2d", "3d"))
    return {
        "excluded_loss": flat.train_loss,
        "excluded_loss_3d": cubic.train_loss,
        "excluded_loss_all_pairs": flat.loss,
        "excluded_accuracy": flat.train_accuracy,
    }


def excluded_by_frequency(r: Reading) -> Tensor:
    """Section 5.1: the loss on the training pairs (on all, where the split is not known) without one frequency."""
    pairs = torch.ones(r.logits.shape[:2], dtype=torch.bool) if r.train is None else r.train
    return excluded.excluded_loss_per_frequency(r.logits, pairs)


def weight_size(state: Weights) -> Numbers:
    """Section 5.2: the sum of squares of each tensor."""
    return weights.squared_weights(state)


def clock_or_pizza(r: Reading, model: Model, task: Task, generator: Generator) -> Numbers:
    """Zhong et al. (2023): gradient symmetricity, distance irrelevance, circularity: pizza 1, 0, 1; clock low, 1, 1."""
    order = cyclic(task)

    def logit_function(E_a: Tensor, E_b: Tensor) -> Tensor:
        tokens = torch.tensor([[0, 0, task.modulus]]).expand(len(E_a), 3)
        edits = [put("embed", E_a, pos=0), put("embed", E_b, pos=1)]
        logits = model.run(tokens, edits=edits, logits="last", grad=True).logits
        return logits[:, -1, order.out]

    return {
        "gradient_symmetricity": clock_pizza.gradient_symmetricity(logit_function, r.W_E, generator=generator),
        "distance_irrelevance": clock_pizza.distance_irrelevance(r.logits),
        "circularity": clock_pizza.circularity(r.W_E),
    }
