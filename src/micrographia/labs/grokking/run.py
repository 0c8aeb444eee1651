"""Config -> Run: train, measure, judge, store. The lab's only orchestrator.

Everything is resumable: training goes on from its newest checkpoint, and what follows is computed anew from the
snapshots, which is a matter of seconds.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from micrographia.core.claims import Run
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.lab import Findings, run_lab
from micrographia.core.runtime import generator
from micrographia.core.small.trained import describe_model
from micrographia.core.store import RunFolder, read_tensors
from micrographia.core.train_loop import Rows
from micrographia.labs.grokking.along import Along, measure_along
from micrographia.labs.grokking.config import Config, preset_of
from micrographia.labs.grokking.course import bands, phases_of
from micrographia.labs.grokking.figures.course import of_training
from micrographia.labs.grokking.figures.network import of_network
from micrographia.labs.grokking.findings import find, measures
from micrographia.labs.grokking.judge import CLAIMS, measures_of
from micrographia.labs.grokking.reading import Task, read
from micrographia.labs.grokking.task import architecture, make_pairs, vocabulary
from micrographia.labs.grokking.train import train_network
from micrographia.labs.grokking.words import summary

LAB = "grokking"


def run(config: Config, *, out: Path | None = None, resume: bool = False, watch: Watch = silent) -> Run:
    """Train a network on the config's problem and take it apart.

    `out`: the Run's folder, by default a new one under the runs root. With `resume`, go on with what is there.
    Raises RunExists, RunLocked, BadConfig (another config is stored there), NonFiniteLoss, Interrupted, CannotWrite.
    """
    preset = preset_of(config)
    return run_lab(
        config, _work, lab=LAB, preset=preset, claims=CLAIMS, dtype=config.dtype, out=out, resume=resume, watch=watch
    )


def _work(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    describe_model(folder, architecture(config), vocabulary(config))
    rows = train_network(config, folder, watch)
    results, figures = take_apart(config, folder, rows, watch)
    measures = measures_of(results, results.pop("start"))
    return Findings(results, figures, measures, rows, summary(results, preset=preset_of(config)))


def take_apart(config: Config, folder: RunFolder, rows: Rows, watch: Watch) -> tuple[dict[str, Any], list[Figure]]:
    """Everything that is read off the snapshots of a finished training. `start` holds the measures before training."""
    arch, snapshots = architecture(config), folder.snapshots()
    task = Task(config.modulus, config.operation, make_pairs(config).train)
    watch(Progress("read the network", 0, 1, "network"))
    found = find(arch, read_tensors(snapshots[config.epochs]), task, generator=generator(config.seed))
    watch(Progress("read the network", 1, 1, "network"))
    ks = found.key_frequencies
    along = measure_along(snapshots, arch, task, ks, watch)
    phases = phases_of(rows, along, fourier=bool(ks))
    start = read_tensors(snapshots[0])
    reading = read(arch, start, task)
    before = measures(reading, arch, start, task, ks, generator(config.seed))
    shown = {epoch: read(arch, read_tensors(snapshots[epoch]), task) for epoch in _shown(along, phases)}
    figures = of_training(rows, along, ks, bands(phases), {**shown, config.epochs: found.reading})
    figures += of_network(found.reading, ks, found.results["frequencies"])
    results = {
        "config": folder.config,
        "phases": phases,
        **found.results,
        "start": {**found.results, "measures": before},
    }
    return results, figures


def _shown(along: Along, phases: Mapping[str, Any]) -> list[int]:
    """The snapshot nearest the end of memorisation: with the last, those whose full logits the report carries."""
    epoch = phases.get("memorised")
    return [] if epoch is None else [min(along.epochs[:-1], key=lambda e: abs(e - epoch))]
