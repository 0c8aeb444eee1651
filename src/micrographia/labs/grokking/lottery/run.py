"""Config -> Run: which frequencies will win, foretold from the weights up to step t0 only.

The question of lottery tickets in this setting: are the winners written in the initial weights, do the data choose, or
is it decided on the way? Networks are trained with initialisation and split crossed; every score of `scores`
is taken at each t0 and held against the winners. Whatever the answer, it is told. Ours; it repeats no published figure.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from micrographia.core.basis import n_frequencies
from micrographia.core.claims import Run
from micrographia.core.config import flat
from micrographia.core.errors import Interrupted
from micrographia.core.events import Watch, silent
from micrographia.core.runtime import generator, pick_device, provenance
from micrographia.core.store import RunFolder, load_run, new_run_path
from micrographia.core.tasks import Done
from micrographia.labs.grokking.config import Config
from micrographia.labs.grokking.criterion import GENERALISES
from micrographia.labs.grokking.lottery import figures
from micrographia.labs.grokking.lottery.chance import Contest, Curves, causes, curves, decided
from micrographia.labs.grokking.lottery.config import LotteryConfig, network_name
from micrographia.labs.grokking.lottery.scores import SCORES, scores
from micrographia.labs.grokking.lottery.words import sentences
from micrographia.labs.grokking.members import epochs_kept, first_line, network_at, train_all, train_member
from micrographia.labs.grokking.run import LAB

PRESET = "lottery"
Row = dict[str, Any]


def lottery(
    config: LotteryConfig,
    *,
    out: Path | None = None,
    resume: bool = False,
    workers: int | None = None,
    watch: Watch = silent,
) -> Run:
    """Train all networks, `workers` at a time (by default one a core), and see how early their winners show.

    Cost: that of the networks, about 18 s of one core each at the defaults, and seconds for the statistics. Networks
    that failed or did not grok are told and left out. Raises RunExists, RunLocked, BadConfig (another config is stored
    there), Interrupted, CannotWrite.
    """
    stored = dataclasses.asdict(config) | {"base": flat(config.base)}
    about = provenance(config.chance_seed, pick_device(config.base.machine.device), config.base.dtype, threads=1)
    place = out or new_run_path(LAB, stored)
    with RunFolder.open(place, lab=LAB, preset=PRESET, config=stored, provenance=about, resume=resume) as folder:
        if folder.status != "finished":
            _train_and_ask(config, folder, workers, watch)
    return load_run(folder.path)


def train_and_score(config: Config, out: str, looks: Sequence[int]) -> Row:
    """A network's task: train it, then take its winners and its scores at the kept epochs nearest to `looks`."""
    run = train_member(config, out)
    assert run.results is not None, "a member's run returns finished or raises"
    kept = np.array(epochs_kept(run))
    chosen = sorted({int(kept[np.abs(kept - look).argmin()]) for look in looks})
    taken = [scores(network_at(config, run, epoch)) for epoch in chosen]
    return {
        "winners": list(run.results["key_frequencies"]),
        "test_accuracy": run.results["measures"]["test_accuracy"],
        "looks": chosen,
        "scores": {name: [at[name].tolist() for at in taken] for name in taken[0]},
    }


def _train_and_ask(config: LotteryConfig, folder: RunFolder, workers: int | None, watch: Watch) -> None:
    try:
        done = train_all(
            train_and_score, config.networks, folder.path,
            runner=config.runner, workers=workers, watch=watch, looks=config.looks,
        )  # fmt: skip
    except Interrupted:
        folder.set_status("interrupted")
        raise
    results = ask(config, done) | {"config": folder.config}
    folder.finish(results, [], figures.of_lottery(results, n_frequencies(_order(config))), _columns(results["curves"]))


def _order(config: LotteryConfig) -> int:
    """Of the group: without zero for multiplication."""
    return config.base.modulus - (config.base.operation == "multiply")


def ask(config: LotteryConfig, done: Mapping[str, Done]) -> dict[str, Any]:
    """Curves, causes and sentences from networks that have all ended. One generator, in a fixed order, decides all."""
    rows = [network_row(init, split, done) for init in config.init_seeds for split in config.split_seeds]
    contest = contest_of(config, rows, done)
    found: dict[str, Any] = {"networks": rows, "curves": [], "causes": None}
    if contest is not None and decided(contest):
        chance = generator(config.chance_seed)
        draws = {"permutations": config.permutations, "resamples": config.resamples}
        found["curves"] = _plain(contest, curves(contest, generator=chance, **draws))
        found["causes"] = causes(contest, generator=chance, **draws)
    return {**found, "summary": sentences(found), "claims": []}


def network_row(init: int, split: int, done: Mapping[str, Done]) -> Row:
    """A line of the table: the winners, and why a network takes no part."""
    name = network_name(init, split)
    found = done[name].result
    head = {"network": name, "init": init, "split": split}
    if found is None:
        why = f"failed: {first_line(done[name].error)}"
        return {**head, "winners": [], "test_accuracy": None, "takes_part": False, "why_not": why}
    why = _why_not(found)
    entries = {"winners": found["winners"], "test_accuracy": found["test_accuracy"]}
    return {**head, **entries, "takes_part": why is None, "why_not": why}


def _why_not(found: Row) -> str | None:
    accuracy, winners = found["test_accuracy"], found["winners"]
    if accuracy is None or math.isnan(accuracy) or accuracy < GENERALISES:
        return "did not grok"
    if not winners:
        return "grokked without a key frequency"
    if len(winners) == len(found["scores"]["embedding"][0]):
        return "every frequency is key"
    return None


def contest_of(config: LotteryConfig, rows: Sequence[Row], done: Mapping[str, Done]) -> Contest | None:
    """The networks that take part, as arrays; None when there is none."""
    part = [row for row in rows if row["takes_part"]]
    if not part:
        return None
    results = [done[row["network"]].result for row in part]
    names = [name for name in SCORES if name in results[0]["scores"]]
    taken = np.array([[found["scores"][name] for found in results] for name in names])  # score network look frequency
    won = np.zeros((len(part), taken.shape[-1]), dtype=bool)
    for line, row in zip(won, part):
        line[[k - 1 for k in row["winners"]]] = True
    return Contest(
        init=np.array([config.init_seeds.index(row["init"]) for row in part]),
        split=np.array([config.split_seeds.index(row["split"]) for row in part]),
        won=won,
        looks=results[0]["looks"],
        names=names,
        scores=taken.swapaxes(1, 2),
    )


def _plain(contest: Contest, found: Curves) -> list[Row]:
    """One record a score and look."""
    entries = ("area", "low", "high", "null_low", "null_high", "p_value")
    return [
        {"score": name, "t0": look}
        | {entry: float(getattr(found, entry)[i, t]) for entry in entries}
        | {"p_best": float(found.p_best[t])}
        for i, name in enumerate(found.names)
        for t, look in enumerate(contest.looks)
    ]


def _columns(records: Sequence[Row]) -> dict[str, list[Any]]:
    return {name: [record[name] for record in records] for name in (records[0] if records else ())}
