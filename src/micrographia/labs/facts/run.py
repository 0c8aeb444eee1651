"""Config -> Run: train the networks of every arm, analyse each, judge, store. The lab's only orchestrator.

Networks are trained side by side, each in a folder of its own from which it can be resumed; what follows is computed
anew from them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from micrographia.core.claims import Run
from micrographia.core.events import Watch, renamed, silent
from micrographia.core.lab import Findings, for_each_network, raise_failed, run_lab
from micrographia.core.store import RunFolder, read_metrics
from micrographia.labs.facts.analysis import Found, analyse
from micrographia.labs.facts.config import Config, preset_of
from micrographia.labs.facts.figures import figures_of
from micrographia.labs.facts.hypotheses import hypotheses
from micrographia.labs.facts.measure import CLAIMS, Arms, by_arm, measures_of
from micrographia.labs.facts.networks import EFFECTIVE, TRANSFORMER, networks
from micrographia.labs.facts.train import LAB, train

NETWORKS = "networks"
TITLE = "How facts are recalled: networks trained from scratch"
MODELS = "Each network is a Run of its own, as in `micrographia patch --model RUN/networks/transformer-seed{seed} ...`."


def run(config: Config, *, out: Path | None = None, resume: bool = False, watch: Watch = silent) -> Run:
    """Train networks on facts, and ask how they recall them.

    `out`: the Run's folder, by default a new one under the runs root. With `resume`, go on with what is there.
    Raises RunExists, RunLocked, BadConfig, NonFiniteLoss, Interrupted, CannotWrite.
    """
    preset = preset_of(config)
    return run_lab(config, _work, lab=LAB, preset=preset, claims=CLAIMS, out=out, resume=resume, watch=watch)


def _work(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    place, configs = folder.path / NETWORKS, networks(config)
    how: dict[str, Any] = {"workers": config.machine.threads}
    raise_failed(for_each_network(train, configs, place, watch=renamed(watch, "train"), **how))
    done = for_each_network(analyse, configs, place, watch=renamed(watch, "analyse"), **how)
    raise_failed(done)
    arms = by_arm({name: each.result for name, each in done.items()})
    curves = {
        name: read_metrics(place / name) for name in configs if name.startswith((f"{TRANSFORMER}-", f"{EFFECTIVE}-"))
    }
    measures = measures_of(arms, curves)
    rows = hypotheses(measures)
    results = {"title": TITLE, "hypotheses": rows, "networks": _rows(done.values())}
    return Findings(
        results,
        figures_of(config, arms, curves, rows),
        measures,
        {"seed": list(range(config.seed, config.seed + config.seeds))},
        opening(arms),
        [MODELS.format(seed=config.seed)],
    )
