"""What Nanda et al. (2023) measure, in the paper's order and with its symbols, and the figure of each of their claims.

`measure` takes one network and, where they are known, its phases and the network before training. The functions after
it take NetworkTensors and the frequencies `ks`. What needs the split is NaN where the split is not known; what needs
neurons or attention is empty where the network has none.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from micrographia.core.basis import n_frequencies
from micrographia.core.claims import Claim, Measured, load_claims
from micrographia.core.edits import put
from micrographia.core.losses import cross_entropy
from micrographia.labs.grokking.network import NetworkTensors, cyclic, with_attention
from micrographia.methods import clock_pizza
from micrographia.methods.fourier import attention, cubes, excluded, neurons, restricted, spectra, weights
from micrographia.methods.fourier.ablations import NULL_SPACE, RANDOM_SPACE, ablations
from micrographia.methods.fourier.closed_form import read_algorithm, sentences
from micrographia.methods.fourier.key_frequencies import find_frequencies
from micrographia.methods.fourier.replacements import OTHER_POLYNOMIALS, POLYNOMIALS, Row, replacements

CLAIMS = Path(__file__).with_name("claims.toml")
Numbers = dict[str, float]
Rows = Sequence[Mapping[str, Any]]


def measure(
    r: NetworkTensors,
    frequencies: Rows,
    *,
    phases: Mapping[str, Any],
    start: NetworkTensors | None = None,
    generator: Generator,
) -> tuple[dict[str, Any], dict[str, Measured]]:
    """The results of a network, and by claim its figure beside the null. About two seconds, under 1 GB at p = 113.

    `frequencies` as `present_frequencies` gives them; `start` is the network before training, the null of most claims.
    `generator` draws the triples of the clock-or-pizza measure, the null frequencies and the random subspaces.
    """
    ks = used_frequencies(r, frequencies)
    results = {
        "phases": dict(phases),
        "key_frequencies": sorted(row["k"] for row in frequencies if row["kind"] == "key"),
        "overtones": [row["k"] for row in frequencies if row["kind"] == "overtone"],
        "present": [row["k"] for row in frequencies],
        "frequencies": list(frequencies),
        **(_algorithm(r, ks, generator) if has_characters(r) else _without_characters(r)),
    }
    before = {} if start is None else same_before_training(weights_to_attention(start, ks))
    return results, {
        **phases_in_order(phases),
        **{name: Measured(x, before.get(name)) for name, x in same_before_training(results["measures"]).items()},
        **published_sets(results["key_frequencies"], len(r.logits)),
        **against_controls(results),
    }


def has_characters(r: NetworkTensors) -> bool:
    """Whether the operation is an addition in other coordinates: else no Fourier circuit is looked for."""
    return r.problem.operation != "polynomial"


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


# The claims: which figure stands for each, beside its null.


def phases_in_order(phases: Mapping[str, Any]) -> dict[str, Measured]:
    """Section 5.2. The null is one over the orders that the definitions of the phases leave possible.

    Memorisation is looked for before the circuit is half-way formed, and settling after memorisation: 8 of 24.
    """
    published: Any = _claims()["phases-in-order"].published
    found = {name: phases[name] for name in published if phases.get(name) is not None}
    orders = [order.index for order in permutations(published)]
    possible = [at for at in orders if at("memorised") < min(at("circuit"), at("settled"))]
    ends = {"memorisation-ends": "memorised", "circuit-ends": "circuit_formed", "cleanup-ends": "settled"}
    return {
        "phases-in-order": Measured(sorted(found, key=lambda name: found[name]), 1 / len(possible)),
        **{claim: Measured(phases.get(name)) for claim, name in ends.items()},
    }


def same_before_training(m: Mapping[str, Any]) -> dict[str, Any]:
    """Sections 3 to 4.3 and appendix C.2: claims whose null is the same figure before training."""
    return {
        "generalises": m.get("test_accuracy"),
        "final-loss": m.get("loss"),
        "logit-variance": m.get("logit_variance_explained"),
        "neuron-logit-rank": m.get("neuron_logit_residual"),
        "neuron-directions": _least(m.get("neuron_directions", ()), "cosine", "sine"),
        "neurons-one-frequency": m.get("neurons_clustered"),
        "attention-periodic": _least(m.get("attention", ()), "fve"),
        "attention-to-equals": m.get("attention_to_equals"),
        "gini-embedding": m.get("gini_embedding"),
        "gini-neuron-logit": m.get("gini_neuron_logit"),
    }


def published_sets(keys: Sequence[int], n: int) -> dict[str, Measured]:
    """Section 4.1. The null is the mean overlap of the published set with a random one as large as that found."""
    sets: dict[str, Any] = {name: each.published for name, each in _claims().items() if name.startswith("key-")}
    return {name: Measured(list(keys), len(keys) * len(published) / (n // 2)) for name, published in sets.items()}


def against_controls(results: Mapping[str, Any]) -> dict[str, Measured]:
    """Section 4.4: losses over the network's own, or over a uniform guess's, each beside a control of equal size."""
    m, null = results["measures"], results["measures"].get("null", {})
    loss = {row["name"]: row["loss"] for row in (*results["replacements"], *results["ablations"])}
    own, uniform = m["loss"], math.log(m["n"])
    rises = [row["loss_change"] for row in results["frequencies"] if row["kind"] == "key"]
    restricted_loss = m.get("restricted_loss", {}).get("projection")
    return {
        "algorithm-beats-network": Measured(_over(m.get("trig_loss"), own), _over(null.get("trig_loss"), own)),
        "only-sum-waves": Measured(_over(restricted_loss, own), _over(null.get("restricted_projection"), own)),
        "neurons-as-polynomials": Measured(_over(loss.get(POLYNOMIALS), own), _over(loss.get(OTHER_POLYNOMIALS), own)),
        "null-space": Measured(_over(loss.get(NULL_SPACE), uniform), _over(loss.get(RANDOM_SPACE), uniform)),
        "every-key-frequency-counts": Measured(min(rises, default=None), null.get("largest_other_rise")),
    }


def _claims() -> dict[str, Claim]:
    return {claim.id: claim for claim in load_claims(CLAIMS)}


def _over(loss: float | None, other: float) -> float | None:
    return loss / other if loss is not None and other else None


def _least(rows: Rows, *columns: str) -> float | None:
    values = [row[name] for row in rows for name in columns]
    return min((x for x in values if not math.isnan(x)), default=None)


# The results: everything that is measured, the claims' figures among it.


def _without_characters(r: NetworkTensors) -> dict[str, Any]:
    """Performance and sizes alone."""
    found = {"n": len(r.logits), **performance(r), "squared_weights": weight_size(r)}
    return {"published_rule": [], "measures": found, "algorithm": [], "replacements": [], "ablations": []}


def _algorithm(r: NetworkTensors, ks: Sequence[int], generator: Generator) -> dict[str, Any]:
    parts = {"neurons": r.neurons, "W_L": r.W_L}
    clusters = neuron_frequencies(r)
    measures = all_measures(r, ks, generator)
    cut = ablations(r.logits, ks, **parts, train=r.train, generator=generator)
    return {
        "published_rule": [] if clusters is None else neurons.published_key_frequencies(clusters),
        "measures": measures,
        "algorithm": sentences(read_algorithm(r.logits, ks, **parts), str(len(r.logits))),
        "replacements": [row._asdict() for row in replaced(r, ks)],
        "ablations": [row._asdict() for row in cut],
    }


def all_measures(r: NetworkTensors, ks: Sequence[int], generator: Generator) -> dict[str, Any]:
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
        "attention_to_equals": max((head["to_equals"] for head in heads), default=None),
    }


def other_frequencies(r: NetworkTensors, ks: Sequence[int], generator: Generator) -> dict[str, Any]:
    """The headline measures for as many other frequencies, drawn at random: the control of those of `ks`."""
    others = [k for k in range(1, n_frequencies(len(r.logits)) + 1) if k not in ks]
    order = torch.randperm(len(others), generator=generator).tolist()
    chosen = sorted(others[i] for i in order[: len(ks)])
    if not chosen:
        return {"frequencies": [], "trig_loss": None, "restricted_projection": None, "largest_other_rise": None}
    loss, without = performance(r)["loss"], excluded_by_frequency(r._replace(train=None))
    return {
        "frequencies": chosen,
        "trig_loss": cubes.trig_loss(r.logits, chosen).loss,
        "restricted_projection": restricted.restricted_loss(r.logits, chosen).loss,
        "largest_other_rise": max(without[k - 1].item() - loss for k in others),
    }


# Section by section.


def performance(r: NetworkTensors) -> Numbers:
    """Section 3: losses and accuracies on all pairs, those in training and the others; "=" is no answer here."""
    figures = {"loss": cross_entropy(r.answers, r.labels), "accuracy": (r.answers.argmax(-1) == r.labels).double()}
    parts = {"": torch.ones_like(r.labels, dtype=torch.bool)}
    parts |= {} if r.problem.train is None else {"train_": r.problem.train, "test_": ~r.problem.train}
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
    rows = []
    for k in ks:
        directions = spectra.neuron_logit_directions(r.W_L, k).to(r.neurons)
        shares = [neurons.fve_of_direction(r.neurons @ direction, k) for direction in directions.T]
        sine = shares[1].sine if len(shares) > 1 else math.nan
        rows.append({"k": k, "cosine": shares[0].cosine, "sine": sine})
    return rows


def neuron_frequencies(r: NetworkTensors) -> neurons.NeuronClusters | None:
    """Section 4.3: the frequency of each neuron and the share of its variance that this explains."""
    return None if r.neurons is None else neurons.neuron_clusters(r.neurons)


def attention_waves(r: NetworkTensors) -> list[Numbers]:
    """Section 4.3: each head's attention from "=" to a as a wave of a less that of b, and what goes to "="."""
    if r.pattern is None:
        return []
    fit = attention.attention_periodicity(r.pattern[..., 0])
    mean = attention.mean_attention(r.pattern)
    columns = (fit.frequency, fit.fve, fit.alpha, fit.beta, *mean.T)
    names = ("k", "fve", "alpha", "beta", "to_a", "to_b", "to_equals")
    rows = zip(*(column.tolist() for column in columns))
    return [{"head": head, **dict(zip(names, row))} for head, row in enumerate(rows)]


def replaced(r: NetworkTensors, ks: Sequence[int]) -> list[Row]:
    """Section 4.4: the losses with parts of the network, one after the other, replaced by the formula."""
    attend = {} if r.pattern is None else {"pattern": r.pattern, "logits_given_pattern": partial(with_attention, r)}
    return replacements(r.logits, ks, neurons=r.neurons, W_L=r.W_L, train=r.train, **attend)


VARIANTS = ("projection", "quadratic")
EXCLUDED = ("excluded_loss", "excluded_loss_3d", "excluded_loss_all_pairs", "excluded_accuracy")
RESTRICTED = (*(f"{name}{part}" for name in VARIANTS for part in ("", "_train", "_test")), "neurons", "neurons_all")


def restricted_losses(r: NetworkTensors, ks: Sequence[int], variants: Sequence[str] = VARIANTS) -> Numbers:
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


def excluded_losses(r: NetworkTensors, ks: Sequence[int]) -> Numbers:
    """Section 5.1: the loss on the training pairs without the key frequencies, in both published forms."""
    flat, cubic = (excluded.excluded_loss(r.logits, ks, r.train, form=form) for form in ("2d", "3d"))
    return dict(zip(EXCLUDED, (flat.train_loss, cubic.train_loss, flat.loss, flat.train_accuracy)))


def excluded_by_frequency(r: NetworkTensors) -> Tensor:
    """Section 5.1: the loss on the training pairs (on all, where the split is not known) without one frequency."""
    pairs = torch.ones(r.logits.shape[:2], dtype=torch.bool) if r.train is None else r.train
    return excluded.excluded_loss_per_frequency(r.logits, pairs)


def weight_size(r: NetworkTensors) -> Numbers:
    """Section 5.2: the sum of squares of each tensor, and of all."""
    sizes = weights.squared_weights(r.model.state)
    return {"total": sum(sizes.values()), **sizes}


def clock_or_pizza(r: NetworkTensors, generator: Generator) -> Numbers:
    """Zhong et al. (2023): gradient symmetricity, distance irrelevance, circularity: pizza 1, 0, 1; clock low, 1, 1."""
    modulus, out = r.problem.modulus, cyclic(r.problem).out

    def logit_function(E_a: Tensor, E_b: Tensor) -> Tensor:
        tokens = torch.tensor([[0, 0, modulus]]).expand(len(E_a), 3)
        edits = [put("embed", E_a, pos=0), put("embed", E_b, pos=1)]
        return r.model.run(tokens, edits=edits, logits="last", grad=True).logits[:, -1, out]

    return {
        "gradient_symmetricity": clock_pizza.gradient_symmetricity(logit_function, r.W_E, generator=generator),
        "distance_irrelevance": clock_pizza.distance_irrelevance(r.logits),
        "circularity": clock_pizza.circularity(r.W_E),
    }
