"""What is measured of one network: Nanda et al. (2023) section by section, in the paper's order and with its symbols.

Functions take NetworkTensors and the frequencies `ks`. What needs the split is NaN where the split is not known; what
needs neurons or attention is empty where the network has none. `quantities` puts all of them together by name.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from micrographia.core.basis import draw_others
from micrographia.core.edits import put
from micrographia.core.losses import cross_entropy
from micrographia.labs.grokking.network import NetworkTensors, cyclic, with_attention
from micrographia.methods import clock_pizza
from micrographia.methods.fourier import activations, cubes, distance, restricted, spectra
from micrographia.methods.fourier.ablations import ablations
from micrographia.methods.fourier.closed_form import read_algorithm, sentences
from micrographia.methods.fourier.key_frequencies import find_frequencies
from micrographia.methods.fourier.replacements import Row, replacements

Numbers = dict[str, float]
Rows = Sequence[Mapping[str, Any]]


def has_characters(r: NetworkTensors) -> bool:
    """Whether the operation is an addition in other coordinates: else no Fourier circuit is looked for."""
    return r.pairs.operation != "polynomial"


def present_frequencies(r: NetworkTensors) -> list[dict[str, Any]]:
    """Every present frequency, strongest first."""
    if not has_characters(r):
        return []
    held_out = None if r.train is None else ~r.train
    found = find_frequencies(r.logits, r.neurons, r.W_L, held_out=held_out)
    return sorted((frequency._asdict() for frequency in found), key=lambda row: -row["energy"])


def used_frequencies(r: NetworkTensors, frequencies: Rows) -> list[int]:
    """The key frequencies; without neurons none can be called key, and those present are taken."""
    return sorted(row["k"] for row in frequencies if row["kind"] == "key" or r.neurons is None)


def quantities(r: NetworkTensors, ks: Sequence[int], generator: Generator) -> dict[str, Any]:
    """Measures, algorithm, replacements and ablations. Without characters, performance and sizes alone.

    `generator` draws the triples of the clock-or-pizza measure, the null frequencies and the random subspaces.
    """
    if not has_characters(r):
        measures = {"n": len(r.logits), **performance(r), "squared_weights": weight_size(r)}
        lists = {name: [] for name in ("published_rule", "algorithm", "replacements", "ablations")}
        return {**lists, "measures": measures, "mechanism": None}
    parts, clusters = {"neurons": r.neurons, "W_L": r.W_L}, neuron_frequencies(r)
    measures = measures_of(r, ks, generator)
    cut = ablations(r.logits, ks, **parts, train=r.train, generator=generator)
    mechanism, algorithm = mechanism_of(measures) if ks else None, read_algorithm(r.logits, ks, **parts)
    slices = distance.read_slices(r.logits, algorithm) if mechanism in ("pizza", "between") else []
    formula = distance.formula(r.logits, slices)
    return {
        "published_rule": [] if clusters is None else activations.published_key_frequencies(clusters),
        "measures": measures,
        "mechanism": mechanism,
        "algorithm": sentences(algorithm, str(algorithm.n), mechanism=mechanism, formula=formula),
        "replacements": [row._asdict() for row in replaced(r, ks, slices)],
        "ablations": [row._asdict() for row in cut],
    }


def measures_of(r: NetworkTensors, ks: Sequence[int], generator: Generator) -> dict[str, Any]:
    """Every measure by name, in the paper's order; for these frequencies, and for as many others."""
    found: dict[str, Any] = {"n": len(r.logits), **weights_to_attention(r, ks)}
    found["restricted_loss"] = restricted_losses(r, ks) if ks else dict.fromkeys(RESTRICTED, math.nan)
    found |= excluded_losses(r, ks) if ks else dict.fromkeys(EXCLUDED, math.nan)
    found["excluded_by_frequency"] = excluded_by_frequency(r).tolist()
    found["squared_weights"] = weight_size(r)
    if r.model.arch.attention and r.W_E.shape[1] >= 4:
        found["clock_or_pizza"] = clock_or_pizza(r, generator)
    found["null"] = other_frequencies(r, ks, generator)
    return found


def weights_to_attention(r: NetworkTensors, ks: Sequence[int]) -> dict[str, Any]:
    """Sections 3 to 4.3: performance, weights, logits, neurons and attention."""
    clusters, heads = neuron_frequencies(r), attention_waves(r)
    return {
        **performance(r),
        **periodic_weights(r, ks),
        **logit_cubes(r, ks),
        "neuron_directions": neuron_directions(r, ks),
        "neurons_clustered": None if clusters is None else clusters.clustered.double().mean().item(),
        "attention": heads,
        "attention_to_equals": max((head["to_equals"] for head in heads if "to_equals" in head), default=None),
    }


def other_frequencies(r: NetworkTensors, ks: Sequence[int], generator: Generator) -> dict[str, Any]:
    """The headline measures for as many other frequencies, drawn at random: the control of those of `ks`."""
    chosen = draw_others(ks, len(r.logits), len(ks), generator)
    if not chosen:
        return {"frequencies": [], "trig_loss": None, "restricted_projection": None, "largest_other_rise": None}
    loss, without = performance(r)["loss"], excluded_by_frequency(r._replace(train=None))
    return {
        "frequencies": chosen,
        "trig_loss": cubes.trig_loss(r.logits, chosen).loss,
        "restricted_projection": restricted.restricted_loss(r.logits, chosen).loss,
        "largest_other_rise": max(x - loss for k, x in enumerate(without.tolist(), 1) if k not in ks),
    }


def performance(r: NetworkTensors) -> Numbers:
    """Section 3: losses and accuracies on all pairs, those in training and the others; "=" is no answer here."""
    labels, train = r.pairs.labels, r.pairs.train
    figures = {"loss": cross_entropy(r.answers, labels), "accuracy": (r.answers.argmax(-1) == labels).double()}
    parts = {"": torch.ones_like(labels, dtype=torch.bool)}
    parts |= {} if train is None else {"train_": train, "test_": ~train}
    unknown = dict.fromkeys((f"{part}{name}" for part in ("train_", "test_") for name in figures), math.nan)
    return unknown | {
        f"{part}{name}": x[rows].mean().item() for part, rows in parts.items() for name, x in figures.items()
    }


def periodic_weights(r: NetworkTensors, ks: Sequence[int]) -> Numbers:
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


def logit_cubes(r: NetworkTensors, ks: Sequence[int]) -> Numbers:
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


def neuron_directions(r: NetworkTensors, ks: Sequence[int]) -> list[Numbers]:
    """Section 4.2, table 1: the variance of u_k . H along cos(w_k(a+b)), and of v_k . H along sin."""
    if r.neurons is None or r.W_L is None:
        return []
    shares = {k: activations.fve_of_read_out(r.neurons, r.W_L, k) for k in ks}
    return [{"k": k, "cosine": cosine, "sine": sine} for k, (cosine, sine) in shares.items()]


def neuron_frequencies(r: NetworkTensors) -> activations.NeuronClusters | None:
    """Section 4.3: the frequency of each neuron and the share of its variance that this explains."""
    return None if r.neurons is None else activations.neuron_clusters(r.neurons)


def attention_waves(r: NetworkTensors) -> list[Numbers]:
    """Section 4.3: each head's attention from "=" to a as a wave of a less that of b, and what goes to "="."""
    return [] if r.pattern is None else activations.head_waves(r.pattern)


def mechanism_of(measures: Mapping[str, Any]) -> clock_pizza.Mechanism | None:
    """Clock, pizza or between; None where that was not measured."""
    found = measures.get("clock_or_pizza")
    return clock_pizza.mechanism(found["gradient_symmetricity"], found["distance_irrelevance"]) if found else None


def replaced(r: NetworkTensors, ks: Sequence[int], slices: Sequence[distance.Slice] = ()) -> list[Row]:
    """Section 4.4: the losses with parts of the network, one after the other, replaced by the formula.

    `slices`: the terms with a - b in them, of a pizza.
    """
    more: dict[str, Any] = {} if r.pattern is None else {"logits_given_pattern": partial(with_attention, r)}
    more["with_distance"] = distance.distance_logits(slices, len(r.logits)) if slices else None
    return replacements(r.logits, ks, neurons=r.neurons, W_L=r.W_L, train=r.train, pattern=r.pattern, **more)


VARIANTS = ("projection", "quadratic")
EXCLUDED = ("excluded_loss", "excluded_loss_3d", "excluded_loss_all_pairs", "excluded_accuracy")
RESTRICTED = (*(f"{name}{part}" for name in VARIANTS for part in ("", "_train", "_test")), "neurons", "neurons_all")


def restricted_losses(r: NetworkTensors, ks: Sequence[int], variants: Sequence[str] = VARIANTS) -> Numbers:
    """Section 5.1: the loss with the key frequencies alone, in the three published variants by name.

    projection and quadratic (the one dense one) on all pairs, in training and in test; neurons, as published, in test.
    """
    flat = {}
    for name in variants:
        found = restricted.restricted_loss(r.logits, ks, r.train, variant=name)
        flat |= {name: found.loss, f"{name}_train": found.train_loss, f"{name}_test": found.test_loss}
    if r.neurons is None or r.W_L is None:
        return flat | {"neurons": math.nan, "neurons_all": math.nan}
    by_neurons = restricted.restricted_loss_of_neurons(r.neurons, r.W_L, r.logits, ks, r.train)
    return flat | {"neurons": by_neurons.test_loss, "neurons_all": by_neurons.loss}


def excluded_losses(r: NetworkTensors, ks: Sequence[int]) -> Numbers:
    """Section 5.1: the loss on the training pairs without the key frequencies, in both published forms."""
    flat, cubic = (restricted.excluded_loss(r.logits, ks, r.train, form=form) for form in ("2d", "3d"))
    return dict(zip(EXCLUDED, (flat.train_loss, cubic.train_loss, flat.loss, flat.train_accuracy)))


def excluded_by_frequency(r: NetworkTensors) -> Tensor:
    """Section 5.1: the loss on the training pairs (on all, where the split is not known) without one frequency."""
    pairs = torch.ones(r.logits.shape[:2], dtype=torch.bool) if r.train is None else r.train
    return restricted.excluded_loss_per_frequency(r.logits, pairs)


def weight_size(r: NetworkTensors) -> Numbers:
    """Section 5.2: the sum of squares of each tensor, and of all."""
    sizes = {name: weight.double().square().sum().item() for name, weight in r.model.state.items()}
    return {"total": sum(sizes.values()), **sizes}


def clock_or_pizza(r: NetworkTensors, generator: Generator) -> Numbers:
    """Zhong et al. (2023): gradient symmetricity, distance irrelevance, circularity: pizza 1, 0, 1; clock low, 1, 1."""
    out = cyclic(r.pairs).out

    def logit_function(E_a: Tensor, E_b: Tensor) -> Tensor:
        tokens = r.pairs.tokens[:1].expand(len(E_a), -1)
        edits = [put("embed", E_a, pos=0), put("embed", E_b, pos=1)]
        return r.model.run(tokens, edits=edits, logits="last", grad=True).logits[:, -1, out]

    return {
        "gradient_symmetricity": clock_pizza.gradient_symmetricity(logit_function, r.W_E, generator=generator),
        "distance_irrelevance": clock_pizza.distance_irrelevance(r.logits),
        "circularity": clock_pizza.circularity(r.W_E),
    }
