"""Config -> Run: train or load, analyse, judge, store. The lab's only orchestrator.

Networks are trained side by side, each in a folder of its own from which it can be resumed; what follows is computed
anew from them.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from micrographia.core.claims import Run
from micrographia.core.config import with_fields
from micrographia.core.events import Watch, silent
from micrographia.core.lab import Findings, for_each_network, raise_failed, run_lab
from micrographia.core.store import RunFolder, read_metrics
from micrographia.labs.ioi.analysis import analyse
from micrographia.labs.ioi.config import Config, preset_of
from micrographia.labs.ioi.figures import of_networks
from micrographia.labs.ioi.measure import CLAIMS, measures_of
from micrographia.labs.ioi.performance import is_learned
from micrographia.labs.ioi.tables import tables
from micrographia.labs.ioi.train import LAB, train

NETWORKS = "networks"


def run(config: Config, *, out: Path | None = None, resume: bool = False, watch: Watch = silent) -> Run:
    """Train networks on the grammar, or take the model that the config names, and ask which parts do what.

    `out`: the Run's folder, by default a new one under the runs root. With `resume`, go on with what is there.
    Raises RunExists, RunLocked, BadConfig, UnknownModel, MissingExtra, NonFiniteLoss, Interrupted, CannotWrite.
    """
    preset = preset_of(config)
    work = _pretrained if config.model else _trained
    return run_lab(config, work, lab=LAB, preset=preset, claims=CLAIMS, out=out, resume=resume, watch=watch)


def _pretrained(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    from micrographia.labs.ioi.gpt2 import study

    return study(config, watch)


def _trained(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    place = folder.path / NETWORKS
    configs = {
        f"seed-{seed}": with_fields(config, seed=seed, seeds=1, threads=1)
        for seed in range(config.seed, config.seed + config.seeds)
    }
    workers = config.machine.threads
    raise_failed(for_each_network(train, configs, place, workers=workers, watch=watch))
    done = for_each_network(analyse, configs, place, workers=workers, watch=watch)
    raise_failed(done)
    networks = [each.result for each in done.values()]
    results = tables(networks)
    measures = measures_of(networks, results)
    results["title"] = "Which components carry a behaviour: networks trained from scratch"
    curves = {config.seed: read_metrics(place / name) for name, config in configs.items()}
    figures = of_networks(networks, results, curves, config.network.n_heads)
    if not learned(results):
        figures = [replace(each, essential=each.essential and each.name == "behaviours") for each in figures]
    seeds = {"seed": [each.seed for each in networks]}
    return Findings(
        results, figures, measures, seeds, opening(results, config.least), [MODELS.format(seed=config.seed)]
    )


MODELS = "Each network is a Run of its own, as in `micrographia patch --model RUN/networks/seed-{seed} ...`."
ENOUGH = 0.5
"""The accuracy below which a behaviour is not called learned, whatever `least` lets through."""


def opening(results: Mapping[str, Any], least: float) -> list[str]:
    """Which behaviours were learned; where `least` lets others through, that they are analysed nonetheless."""
    rows, good = results["behaviours"], learned(results)
    counts = ", ".join(f"{row['behaviour']} {row['learned']}" for row in rows)
    n = rows[0].get("networks")
    single = [ONE_NETWORK] if n == 1 else []
    if least >= ENOUGH:
        return [f"Networks (of {n}, trained from scratch) that learned each behaviour: {counts}.", *single]
    if not good:
        return [NOTHING_LEARNED, *single]
    poor = ", ".join(row["behaviour"] for row in rows if row["behaviour"] not in good)
    return [*([f"Not learned, and analysed all the same, to exercise the machinery: {poor}."] if poor else []), *single]


ONE_NETWORK = "One network has no interval, and claims about several are not judged on it: take seeds 3 or more."
NOTHING_LEARNED = (
    "Warning: no behaviour was learned, as when the preset tiny checks the installation. All was measured to exercise "
    "the machinery and means nothing, so it is in the report alone; take quick."
)


def learned(results: Mapping[str, Any]) -> list[str]:
    """The behaviours that the networks learned, whatever `least` let through."""
    found = ((row["behaviour"], _median(row, "accuracy"), _median(row, "by_chance")) for row in results["behaviours"])
    return [behaviour for behaviour, accuracy, chance in found if is_learned(accuracy, chance, ENOUGH)]


def _median(row: Mapping[str, Any], field: str) -> float:
    return row[field]["median"] if row[field] else 0.0
