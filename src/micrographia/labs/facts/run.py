"""Config -> Run: train the networks of every arm, analyse each, judge, store. The lab's only orchestrator.

Networks are trained side by side, each in a folder of its own from which it can be resumed; what follows is computed
anew from them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from micrographia.core.claims import Run
from micrographia.core.config import flat
from micrographia.core.events import Watch, renamed, silent
from micrographia.core.lab import Findings, for_each_network, raise_failed, run_lab
from micrographia.core.store import RunFolder, read_metrics
from micrographia.labs.facts.analysis import Found, study
from micrographia.labs.facts.config import Config, preset_of
from micrographia.labs.facts.figures import figures_of
from micrographia.labs.facts.hypotheses import LEARNED, hypotheses
from micrographia.labs.facts.known import study as known
from micrographia.labs.facts.known.config import KnownFacts
from micrographia.labs.facts.measure import CLAIMS, SeedFound, measures_of
from micrographia.labs.facts.networks import ARMS, EFFECTIVE, TRANSFORMER, arm_of, networks
from micrographia.labs.facts.train import LAB

NETWORKS = "networks"
TITLE = "How facts are recalled: networks trained from scratch"
MODELS = "Each network is a Run of its own, as in `micrographia patch --model RUN/networks/transformer-seed{seed} ...`."


def run(config: Config, *, out: Path | None = None, resume: bool = False, watch: Watch = silent) -> Run:
    """Train networks on facts, or take the pretrained model of the config, and ask how they recall them.

    `out`: the Run's folder, by default a new one under the runs root. With `resume`, go on with what is there.
    Raises RunExists, RunLocked, BadConfig, NonFiniteLoss, Interrupted, CannotWrite, and for
    a pretrained model what loading and asking it raises.
    """
    preset, work = preset_of(config), _known if config.model else _work
    return run_lab(config, work, lab=LAB, preset=preset, claims=CLAIMS, out=out, resume=resume, watch=watch)


def _known(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    machine = {"device": config.machine.device, "threads": config.machine.threads}
    asked = KnownFacts(model=config.model, seed=config.seed, **machine, **flat(config.known))
    return known.study(asked, folder, watch)


def _work(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    place, configs = folder.path / NETWORKS, networks(config)
    how: dict[str, Any] = {"workers": config.machine.threads}
    done = for_each_network(study, configs, place, watch=renamed(watch, "train and analyse"), **how)
    raise_failed(done)
    found = by_seed(configs, {name: each.result for name, each in done.items()}, place)
    measures = measures_of(found)
    rows = hypotheses(measures)
    results = {"title": TITLE, "hypotheses": rows, "networks": network_rows(found)}
    seeds = {"seed": list(range(config.seed, config.seed + config.seeds))}
    shown = figures_of(found, rows)
    return Findings(results, shown, measures, seeds, opening(found), [MODELS.format(seed=config.seed)])


def by_seed(configs: Mapping[str, Config], found: Mapping[str, Found], place: Path) -> list[SeedFound]:
    """What was found of each seed, by arm, with the training of the two whose curves are read."""
    seeds = dict.fromkeys(config.seed for config in configs.values())
    return [
        SeedFound(
            {arm: [found[name] for name in configs if _is(configs, name, arm, seed)] for arm in ARMS},
            {arm: read_metrics(place / f"{arm}-seed{seed}") for arm in (TRANSFORMER, EFFECTIVE)},
        )
        for seed in seeds
    ]


def _is(configs: Mapping[str, Config], name: str, arm: str, seed: int) -> bool:
    return configs[name].seed == seed and arm_of(name) == arm


def network_rows(found: Sequence[SeedFound]) -> list[dict[str, Any]]:
    """How each network answers what it was told."""
    fields = ("seed", "arm", "nats", "accuracy", "sure", "rule_p", "width", "exposures", "bits", "parameters")
    every = [row for each in found for rows in each.arms.values() for row in rows]
    return [{name: row[name] for name in fields if name in row} for row in every]


def opening(found: Sequence[SeedFound]) -> list[str]:
    """How many transformers know their facts; a warning where none does."""
    known = [each.one(TRANSFORMER)["accuracy"] for each in found]
    n = sum(accuracy > LEARNED for accuracy in known)
    told = f"{n} of {len(known)} transformers answer more than {LEARNED:.0%} of their facts."
    return [told] if n else [f"{told} {NOTHING_LEARNED}"]


NOTHING_LEARNED = (
    "As when the preset tiny checks the installation: all was measured to exercise the machinery and means nothing. "
    "Take quick."
)
