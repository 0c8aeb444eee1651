"""Config -> Run: train, measure, draw. The lab's only orchestrator.

Everything is resumable: training goes on from its newest checkpoint, and what follows is computed anew from the
snapshots, which is a matter of seconds.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from micrographia.core.claims import Run
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.lab import Findings, run_lab
from micrographia.core.runtime import generator
from micrographia.core.small.trained import describe_model
from micrographia.core.small.transformer import Transformer
from micrographia.core.store import RunFolder, read_tensors
from micrographia.labs.grokking.config import Config, preset_of
from micrographia.labs.grokking.figures.network import of_network, tables
from micrographia.labs.grokking.figures.training import explorer, of_progress, of_run, of_snapshots
from micrographia.labs.grokking.measure import CLAIMS, measure
from micrographia.labs.grokking.network import NetworkTensors, tensors_of
from micrographia.labs.grokking.quantities import present_frequencies, used_frequencies
from micrographia.labs.grokking.task import architecture, make_pairs, vocabulary
from micrographia.labs.grokking.train import train_network
from micrographia.labs.grokking.training_curves import phases_of, training_curves
from micrographia.methods.fourier.criterion import GENERALISES

LAB = "grokking"


def run(config: Config, *, out: Path | None = None, resume: bool = False, watch: Watch = silent) -> Run:
    """Train a network on the config's problem and analyse it.

    `out`: the Run's folder, by default a new one under the runs root. With `resume`, go on with what is there.
    Raises RunExists, RunLocked, BadConfig (another config is stored there), NonFiniteLoss, Interrupted, CannotWrite.
    """
    preset = preset_of(config)
    return run_lab(
        config, _work, lab=LAB, preset=preset, claims=CLAIMS, dtype=config.dtype, out=out, resume=resume, watch=watch
    )


def _work(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    arch, pairs = architecture(config), make_pairs(config)
    describe_model(folder, arch, vocabulary(config))
    rows = train_network(config, folder, watch)
    snapshots = folder.snapshots()

    def network_at(epoch: int) -> NetworkTensors:
        return tensors_of(Transformer(arch, read_tensors(snapshots[epoch])), pairs)

    watch(Progress("find the frequencies", 0, 1, "network"))
    network = network_at(config.epochs)
    frequencies = present_frequencies(network)
    ks = used_frequencies(network, frequencies)
    watch(Progress("find the frequencies", 1, 1, "network"))
    curves = training_curves(network_at, list(snapshots), ks, watch)
    phases = phases_of(rows, curves, fourier=bool(ks))
    results, measures = measure(
        network, frequencies, phases=phases, start=network_at(0), generator=generator(config.seed)
    )
    # Beside the last one, the explorer carries all logits of the network that has memorised.
    end = phases["memorised"]
    memorised = [] if end is None else [min(curves.epochs[:-1], key=lambda epoch: abs(epoch - end))]
    figures = [
        *of_run(rows, phases),
        *tables(results),
        *of_snapshots(curves, ks),
        *of_network(network, ks, frequencies),
        *of_progress(curves, ks, phases),
        explorer(curves, ks, {**{epoch: network_at(epoch) for epoch in memorised}, config.epochs: network}),
    ]
    results["title"] = title(config.operation, config.modulus)
    return Findings(results, figures, measures, rows, opening(results, preset=preset_of(config)))


def title(operation: str, modulus: int) -> str:
    """The line that names a Run."""
    return f"Grokking {OPERATIONS[operation]} modulo {modulus}"


OPERATIONS = {"add": "addition", "subtract": "subtraction", "multiply": "multiplication", "polynomial": "a² + ab + b²"}


def opening(results: Mapping[str, Any], *, preset: str = "") -> list[str]:
    """Performance, frequencies and algorithm of a network in a sentence each, where there is something to report."""
    m = results["measures"]
    short = preset == "tiny" and (_unknown(m["test_accuracy"]) or m["test_accuracy"] < GENERALISES)
    performance = f"{TOO_SHORT if short else ''}{_performance(m)}"
    return [performance, *_frequencies(results), *_algorithm(m), *_mechanism(results)]


PART = 0.1
"""The share of the way from chance to perfect accuracy from which part of a task is learned. Our choice."""
TOO_SHORT = "The preset tiny checks the installation and is too short to grok; take quick to see it. "


def _performance(m: Mapping[str, Any]) -> str:
    train, test, chance = m["train_accuracy"], m["test_accuracy"], 1 / m["n"]
    if _unknown(test):
        return f"{m['accuracy']:.1%} of all pairs are right; which pairs were trained on is not known."
    if test >= GENERALISES:
        return f"The network generalises: {test:.2%} of unseen pairs are right (test loss {m['test_loss']:.2g} nats)."
    found = f"{train:.1%} of the training pairs are right, {test:.1%} of the others"
    knows, more = ((right - chance) / (1 - chance) >= PART for right in (train, test))
    if train >= GENERALISES:
        state = "is partway through grokking" if more else "has memorised only"
    else:
        state = "has learned part of the task" if knows else "has not learned the task"
    return f"The network {state}: {found} (chance {chance:.1%})."


def _frequencies(results: Mapping[str, Any]) -> list[str]:
    keys, present = (", ".join(map(str, results[name])) for name in ("key_frequencies", "present"))
    n = results["measures"]["n"] // 2
    if "trig_loss" not in results["measures"]:
        return ["The operation has no characters, so no Fourier circuit was looked for."]
    if not present:
        return [f"No frequency of {n} stands out of the null: no Fourier circuit was found."]
    if keys:
        return [f"Key frequencies: {keys} of {n}."]
    return [f"The frequencies {present} of {n} are present, but no neurons of their own carry them: none is key."]


def _algorithm(m: Mapping[str, Any]) -> list[str]:
    if _unknown(m.get("trig_loss")):
        return []
    return [
        f"Their cosines cos(w_k(a+b-c)) explain {m['logit_variance_explained']:.1%} of the logits' variance and alone "
        f"have loss {m['trig_loss']:.2g} nats (network {m['loss']:.2g}, uniform guess {math.log(m['n']):.2g})."
    ]


def _mechanism(results: Mapping[str, Any]) -> list[str]:
    """Only where there is a circuit, and nine pairs in ten are right: else there is little to name."""
    kind, found = results["mechanism"], results["measures"].get("clock_or_pizza")
    if kind is None or found is None or results["measures"]["accuracy"] < 0.9:
        return []
    symmetric, irrelevant = found["gradient_symmetricity"], found["distance_irrelevance"]
    measured = f"gradient symmetricity {symmetric:.2f}, distance irrelevance {irrelevant:.2f}; Zhong et al. 2023"
    return [f"{MECHANISMS[kind]} ({measured})."]


MECHANISMS = {
    "clock": "It is a clock: it multiplies waves of a and b",
    "pizza": "It is a pizza: it adds the embeddings of a and b first, and multiplies no waves of theirs",
    "between": "It lies between a clock, which multiplies waves, and a pizza, which adds the embeddings first",
}


def _unknown(value: float | None) -> bool:
    return value is None or math.isnan(value)  # None where it was read from a stored Run
