"""Config -> Run: which frequencies will win, predicted from the weights up to epoch t0 alone.

The question of lottery tickets in this setting: do the initial weights decide, or the data, or the course of training?
Networks are trained with initialisation and split crossed; every score of `methods.fourier.scores` is taken at each t0
and compared with the winners. Whatever the answer, it is reported. Ours; it repeats no published figure.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from micrographia.core.basis import n_frequencies
from micrographia.core.claims import Run
from micrographia.core.events import Watch, silent
from micrographia.core.lab import Findings, columns_of, first_line, for_each_network, run_in_folder
from micrographia.core.runtime import generator, pick_device, provenance
from micrographia.core.store import RunFolder
from micrographia.core.store.checkpoints import snapshots
from micrographia.core.tasks import Done
from micrographia.labs.grokking.config import Config
from micrographia.labs.grokking.lottery.config import LotteryConfig
from micrographia.labs.grokking.lottery.figures import of_lottery
from micrographia.labs.grokking.run import LAB, run
from micrographia.labs.grokking.sweep.run import MEMBERS, network_at
from micrographia.methods import crossed
from micrographia.methods.fourier.criterion import GENERALISES
from micrographia.methods.fourier.scores import SCORES, frequency_scores

SIGNIFICANT = 0.05
COMBINED = "combined"  # all scores together by logistic regression, fitted on networks of other initialisations
PARTS = {
    "shared_same_init": "same_row", "shared_same_split": "same_column", "shared_neither": "neither", "winners": "size",
    "init": "row", "split": "column", "rest": "rest",
}  # fmt: skip
MARKS = (0.75, 0.95)  # areas whose first t0 is in the summary
Row = dict[str, Any]


def lottery(
    config: LotteryConfig,
    *,
    out: Path | None = None,
    resume: bool = False,
    workers: int | None = None,
    watch: Watch = silent,
) -> Run:
    """Train all networks, `workers` at a time (by default one a core), and measure how early the winners show.

    Cost: that of the networks, about 18 s of one core each at the defaults, and seconds for the statistics. Networks
    that failed or did not grok are named and left out. Raises RunExists, RunLocked, BadConfig (another config is stored
    there), Interrupted, CannotWrite.
    """
    about = provenance(config.chance_seed, pick_device(config.base.machine.device), config.base.dtype, threads=1)
    work, place = partial(_work, config, workers), {"out": out, "resume": resume, "watch": watch}
    return run_in_folder(config.stored, work, lab=LAB, preset="lottery", about=about, **place)


def _work(config: LotteryConfig, workers: int | None, folder: RunFolder, watch: Watch) -> Findings:
    done = for_each_network(
        train_and_score, config.networks, folder.path / MEMBERS, workers=workers, watch=watch, checkpoints=config.looks
    )
    rows = [row_of(name, each, done[name]) for name, each in config.networks.items()]
    found: dict[str, Any] = {"networks": rows, "curves": [], "causes": None}
    n = n_frequencies(config.base.modulus - (config.base.operation == "multiply"))  # the order of the group
    table = table_of(config, [row for row in rows if row["takes_part"]], n)
    if table is not None:
        results = [done[row["network"]].result for row in rows if row["takes_part"]]
        chance = generator(config.chance_seed)  # one generator, in a fixed order, decides all
        draws = {"generator": chance, "permutations": config.permutations, "resamples": config.resamples}
        found["curves"] = curves(results, *table, **draws)
        parts = crossed.share_table(*table, **draws)
        shares = {name: parts[own] for name, own in PARTS.items()}
        found["causes"] = {"shared_by_chance": crossed.shared_by_chance(table[0]), **shares}
    results = {**found, "title": "Grokking: the lottery of frequencies"}
    return Findings(results, of_lottery(found, n), metrics=columns_of(found["curves"]), opening=sentences(found))


def train_and_score(config: Config, out: str, checkpoints: Sequence[int]) -> Row:
    """The task of one network: train it, then its winners, and its scores at the kept epochs nearest `checkpoints`."""
    trained = run(config, out=Path(out), resume=True)
    results, kept = trained.results or {}, np.array(sorted(snapshots(trained.path)))
    chosen = sorted({int(kept[np.abs(kept - epoch).argmin()]) for epoch in checkpoints})
    networks = (network_at(config, trained, epoch) for epoch in chosen)
    each = [frequency_scores(r.logits, r.W_E, r.neurons, r.W_L) for r in networks]
    return {
        "winners": list(results["key_frequencies"]),
        "test_accuracy": results["measures"]["test_accuracy"],
        "checkpoints": chosen,
        "scores": {name: [at[name].tolist() for at in each] for name in each[0]},
    }


def row_of(name: str, config: Config, done: Done) -> Row:
    """A line of the table: the winners, and why a network takes no part."""
    found = done.result or {"winners": [], "test_accuracy": None}
    why = f"failed: {first_line(done)}" if done.error else _why_not(found)
    entries = {"winners": found["winners"], "test_accuracy": found["test_accuracy"]}
    head = {"network": name, "init": config.seed, "split": config.effective_split_seed}
    return {**head, **entries, "takes_part": why is None, "why_not": why}


def _why_not(found: Row) -> str | None:
    if not (found["test_accuracy"] or 0.0) >= GENERALISES:  # NaN too
        return "did not grok"
    if not found["winners"]:
        return "grokked without a key frequency"
    return "every frequency is key" if len(found["winners"]) == len(found["scores"]["embedding"][0]) else None


def table_of(config: LotteryConfig, part: Sequence[Row], n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Who won (network, frequency 1 .. n), and each network's initialisation and split; None without two of each."""
    init = np.array([config.init_seeds.index(row["init"]) for row in part])
    split = np.array([config.split_seeds.index(row["split"]) for row in part])
    if min(len(set(init.tolist())), len(set(split.tolist()))) < 2:
        return None
    return np.array([[k in row["winners"] for k in range(1, n + 1)] for row in part]), init, split


def curves(
    results: Sequence[Row], won: np.ndarray, init: np.ndarray, split: np.ndarray, **draws: Any
) -> list[dict[str, Any]]:
    """A record for every score, and all combined, at every checkpoint t0: how well it ranks the winners."""
    names, checkpoints = [name for name in SCORES if name in results[0]["scores"]], results[0]["checkpoints"]
    each = np.array([[found["scores"][name] for found in results] for name in names]).swapaxes(1, 2)
    each = np.concatenate([each, crossed.combined(each, won, init)[None]])  # score t0 network frequency
    found = crossed.prediction(each, won, init, split, **draws)
    return [
        {"score": name, "t0": t0, **{key: float(x[s, t]) for key, x in found.items()}}
        for s, name in enumerate([*names, COMBINED])
        for t, t0 in enumerate(checkpoints)
    ]


def sentences(found: Mapping[str, Any]) -> list[str]:
    """The summary: who took part, what decides, what the initial weights predict, when the winners show."""
    rows, curves = found["networks"], found["curves"]
    out = ", ".join(f"{row['network']} ({row['why_not']})" for row in rows if not row["takes_part"])
    n = sum(row["takes_part"] for row in rows)
    first = f"{n} of {len(rows)} networks grokked and take part. Left out: {out or 'none'}."
    if not curves:
        return [first, "Too few networks grokked to separate initialisations from splits: there is no result."]
    return [first, *_causes(found["causes"]), _at_start(curves), _first_passed(curves)]


def _causes(causes: Row) -> list[str]:
    shared = {name: causes[name]["value"] for name in ("shared_same_init", "shared_same_split", "shared_neither")}
    return [
        f"A network has {causes['winners']['value']:.1f} key frequencies on average. Two networks share "
        f"{shared['shared_same_init']:.2f} of them when they began from the same weights, "
        f"{shared['shared_same_split']:.2f} when they saw the same pairs, {shared['shared_neither']:.2f} when neither; "
        f"random sets would share {causes['shared_by_chance']:.2f}.",
        "Share of the variance of winning: the initial weights alone {value:.0%} ({low:.0%} to {high:.0%}, "
        "p = {p_value:.3g}), ".format(**causes["init"])
        + "the split alone {value:.0%} ({low:.0%} to {high:.0%}, p = {p_value:.3g}), ".format(**causes["split"])
        + "both together or neither {value:.0%}.".format(**causes["rest"]),
    ]


def _at_start(curves: Sequence[Row]) -> str:
    first = min(row["t0"] for row in curves)
    best = max((row for row in curves if row["t0"] == first), key=lambda row: row["area"])
    verdict = "predict the winners better than chance" if best["p_best"] < SIGNIFICANT else "do not predict the winners"
    return (
        f"At t0 = {first} the weights {verdict}: the best score, {_plain(best['score'])}, ranks a winner "
        f"above another frequency with probability {best['area']:.2f} ({best['low']:.2f} to {best['high']:.2f}; "
        f"winners of other networks {best['null_low']:.2f} to {best['null_high']:.2f}; p = {best['p_best']:.3g} over "
        "all scores)."
    )


def _first_passed(curves: Sequence[Row]) -> str:
    texts = []
    for mark in MARKS:
        beyond = [row for row in curves if row["area"] >= mark]
        row = min(beyond, key=lambda row: (row["t0"], -row["area"]), default=None)
        texts.append(f"{mark:.2f} " + (f"at t0 = {row['t0']} ({_plain(row['score'])})" if row else "at no t0"))
    return f"That probability first passes {', '.join(texts)}."


def _plain(score: str) -> str:
    return score.replace("_", " ")
