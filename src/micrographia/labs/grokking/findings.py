"""One network taken apart: its frequencies, measures, algorithm, replacements and ablations, in words and numbers.

The same for a network trained here and for one that somebody else trained. Where no algorithm is found the measures
that need key frequencies are empty and the summary says what was found instead.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from micrographia.core.basis import n_frequencies
from micrographia.core.edits import apply
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.labs.grokking import measure
from micrographia.labs.grokking.reading import Reading, Task, Weights, cyclic, logits_of, read
from micrographia.methods.fourier import cubes, restricted
from micrographia.methods.fourier.ablations import ablations
from micrographia.methods.fourier.closed_form import read_algorithm, sentences
from micrographia.methods.fourier.key_frequencies import find_frequencies
from micrographia.methods.fourier.neurons import published_key_frequencies
from micrographia.methods.fourier.replacements import Row, replacements


class Findings(NamedTuple):
    """`results` is JSON; `reading` is what the figures draw from."""

    reading: Reading
    key_frequencies: list[int]
    results: dict[str, Any]


def find(arch: Architecture, weights: Weights, task: Task, *, generator: Generator) -> Findings:
    """Take one network apart. About two seconds and under 1 GB at p = 113 on two cores.

    `generator` draws the random subspaces, the null frequencies and the triples of the clock-or-pizza measure.
    """
    reading = read(arch, weights, task)
    if task.operation == "polynomial":
        return Findings(reading, [], _without_characters(reading, weights))
    rows = frequency_rows(reading)
    keys = sorted(row["k"] for row in rows if row["kind"] == "key")
    # Without neurons none can be called key; then what is present stands in for them.
    ks = keys if reading.neurons is not None else sorted(row["k"] for row in rows)
    parts = {"neurons": reading.neurons, "W_L": reading.W_L}
    algorithm = read_algorithm(reading.logits, ks, **parts)
    results = {
        "key_frequencies": keys,
        "overtones": [row["k"] for row in rows if row["kind"] == "overtone"],
        "present": [row["k"] for row in rows],
        "frequencies": rows,
        "published_rule": _published_rule(reading),
        "measures": measures(reading, arch, weights, task, ks, generator),
        "algorithm": sentences(algorithm, str(len(reading.logits))),
        "replacements": [row._asdict() for row in _replacements(reading, arch, weights, task, ks)],
        "ablations": [
            row._asdict() for row in ablations(reading.logits, ks, **parts, train=reading.train, generator=generator)
        ],
    }
    return Findings(reading, ks, results)


def frequency_rows(r: Reading) -> list[dict[str, Any]]:
    """Every present frequency, strongest first."""
    held_out = None if r.train is None else ~r.train
    found = find_frequencies(r.logits, r.neurons, r.W_L, held_out=held_out)
    return sorted((frequency._asdict() for frequency in found), key=lambda row: -row["energy"])


def measures(
    r: Reading, arch: Architecture, weights: Weights, task: Task, ks: Sequence[int], generator: Generator
) -> dict[str, Any]:
    """Every measure by name, for these frequencies."""
    sizes = measure.weight_size(weights)
    clusters = measure.neuron_frequencies(r)
    heads = measure.attention_waves(r)
    found: dict[str, Any] = {"n": len(r.logits), **measure.performance(r)}
    found["restricted_loss"] = measure.restricted_losses(r, ks) if ks else dict.fromkeys(measure.RESTRICTED, math.nan)
    found |= measure.excluded_losses(r, ks) if ks else dict.fromkeys(EXCLUDED, math.nan)
    found |= measure.logit_cubes(r, ks) | measure.periodic_weights(r, ks)
    found["neuron_directions"] = measure.neuron_directions(r, ks)
    found["neurons_clustered"] = None if clusters is None else clusters.clustered.double().mean().item()
    found["attention"] = heads
    found["attention_to_equals"] = max((head["to_equals"] for head in heads), default=None)
    found["excluded_by_frequency"] = measure.excluded_by_frequency(r).tolist()
    found["squared_weights"] = {"total": sum(sizes.values()), **sizes}
    if arch.attention and r.W_E.shape[1] >= 4:
        found["clock_or_pizza"] = measure.clock_or_pizza(r, Transformer(arch, weights), task, generator)
    found["null"] = null_measures(r, ks, generator)
    return found


TABLES = ("key_frequencies", "overtones", "present", "frequencies", "published_rule", "algorithm")
TABLES += ("replacements", "ablations")
EXCLUDED = ("excluded_loss", "excluded_loss_3d", "excluded_loss_all_pairs", "excluded_accuracy")


def null_measures(r: Reading, ks: Sequence[int], generator: Generator) -> dict[str, Any]:
    """The headline measures for as many other frequencies, drawn at random: what the key ones are held against."""
    others = [k for k in range(1, n_frequencies(len(r.logits)) + 1) if k not in ks]
    order = torch.randperm(len(others), generator=generator).tolist()
    chosen = sorted(others[i] for i in order[: len(ks)])
    if not chosen:
        return {"frequencies": [], "trig_loss": None, "restricted_projection": None, "largest_other_rise": None}
    loss = measure.performance(r)["loss"]
    without = measure.excluded_by_frequency(r._replace(train=None))
    return {
        "frequencies": chosen,
        "trig_loss": cubes.trig_loss(r.logits, chosen).loss,
        "restricted_projection": restricted.restricted_loss(r.logits, chosen).loss,
        "largest_other_rise": max(without[k - 1].item() - loss for k in others),
    }


def _published_rule(r: Reading) -> list[int]:
    clusters = measure.neuron_frequencies(r)
    return [] if clusters is None else published_key_frequencies(clusters)


def _replacements(r: Reading, arch: Architecture, weights: Weights, task: Task, ks: Sequence[int]) -> list[Row]:
    """The network with its parts replaced, one after the other, by the formula."""
    answer = None if r.pattern is None else _with_attention(arch, weights, task)
    return replacements(
        r.logits,
        ks,
        neurons=r.neurons,
        W_L=r.W_L,
        train=r.train,
        pattern=r.pattern,
        logits_given_pattern=answer,
    )


def _with_attention(arch: Architecture, weights: Weights, task: Task) -> Callable[[Tensor], Tensor]:
    """Another attention of the last position, (n, n, head, 3), in the first layer -> cyclic logits of the rest."""
    order = cyclic(task)

    def answer(pattern: Tensor) -> Tensor:
        rows = torch.zeros(task.modulus, task.modulus, *pattern.shape[2:], dtype=pattern.dtype)
        rows[order.left[:, None], order.left] = pattern

        def change(old: Tensor) -> Tensor:
            new = old.clone()
            new[:, :, -1] = rows.flatten(0, 1).to(old)
            return new

        return logits_of(arch, weights, task, edits=(apply("L0.pattern", change),))

    return answer


def _without_characters(r: Reading, weights: Weights) -> dict[str, Any]:
    """An operation with no characters: performance and sizes, and no claim about an algorithm."""
    sizes = measure.weight_size(weights)
    found: dict[str, Any] = {"n": len(r.logits), **measure.performance(r)}
    empty = {name: [] for name in TABLES}
    return {**empty, "measures": {**found, "squared_weights": {"total": sum(sizes.values()), **sizes}}}
