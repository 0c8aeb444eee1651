"""What a sweep says of one network (a row) and of the networks of one setting (a group).

Epochs are those of the first measurement at which something holds, so they are no finer than `eval_every` where the
test pairs are concerned. What did not happen within the run is None in a row, and later than everything else in a
group's median: it is counted, not left out.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.core import intervals
from micrographia.core.claims import Run
from micrographia.core.runtime import generator
from micrographia.core.store import read_metrics
from micrographia.labs.grokking.config import Config
from micrographia.labs.grokking.criterion import GENERALISES, Shown, fourier_algorithm
from micrographia.labs.grokking.members import epochs_kept, first_line, network_at, train_member
from micrographia.labs.grokking.sweep.config import Member

LOW_LOSS = 1e-2
"""Nats below which a loss counts as gone: memorised on the training pairs, generalised on the test pairs."""
PHASES = ("memorised", "circuit", "cleanup", "settled")
EPOCHS = ("epochs_to_memorise", "epochs_to_grok", "epochs_to_low_test_loss")
MEASURES = (
    "train_loss", "test_loss", "test_accuracy", "restricted_loss", "excluded_loss", "trig_loss",
    "logit_variance_explained",
)  # fmt: skip
Row = dict[str, Any]


def train_and_sum_up(config: Config, out: str) -> Row:
    """A member's task: train it, then say what became of it. Plain numbers, which travel between processes."""
    return outcome(config, train_member(config, out))


def outcome(config: Config, run: Run) -> Row:
    """What became of a finished network."""
    results = run.results
    assert results is not None, "a member's run returns finished or raises"
    found, phases = results["measures"], results.get("phases") or {}
    measures = {name: found.get(name) for name in MEASURES}
    measures["restricted_loss"] = (found.get("restricted_loss") or {}).get("projection")
    return {
        **milestones(read_metrics(run.path)),
        "phases": {name: phases.get(name) for name in PHASES},
        "key_frequencies": list(results["key_frequencies"]),
        "present": [row["k"] for row in results["frequencies"]],
        "published_rule": list(results.get("published_rule") or ()),
        **measures,
        "fourier": algorithm_shown(config, run)._asdict(),
    }


def milestones(metrics: Mapping[str, Any]) -> Row:
    """First epochs at which the training loss is low, the test accuracy high, the test loss low; None: never."""
    epoch = np.asarray(metrics["epoch"])
    with np.errstate(invalid="ignore"):  # epochs without a test measurement are NaN and hold nothing
        reached = (
            np.asarray(metrics["train_loss"]) < LOW_LOSS,
            np.asarray(metrics["test_accuracy"]) >= GENERALISES,
            np.asarray(metrics["test_loss"]) < LOW_LOSS,
        )
    return {name: int(epoch[there.argmax()]) if there.any() else None for name, there in zip(EPOCHS, reached)}


def algorithm_shown(config: Config, run: Run) -> Shown:
    """The criterion, at the member's last epoch. Where none can be called key, the present ones stand for them."""
    results = run.results
    assert results is not None
    if config.operation == "polynomial":
        return Shown(None, "its operation has no characters, so none are assumed", math.nan, math.nan, math.nan)
    present = [row["k"] for row in results["frequencies"]]
    keys = results["key_frequencies"] or [row["k"] for row in results["frequencies"] if row["kind"] != "overtone"]
    logits = network_at(config, run, epochs_kept(run)[-1]).logits
    accuracy = results["measures"]["test_accuracy"]
    return fourier_algorithm(logits, keys, present, test_accuracy=accuracy, generator=generator(config.seed))


def row_of(member: Member, found: Row | None, error: str | None) -> Row:
    """A line of the table: what was chosen, and what came out or why nothing did."""
    head = {"member": member.name, "seed": member.seed, **member.setting}
    if found is None:
        return {**head, "status": "failed", "error": first_line(error)}
    return {**head, "status": "finished", "error": None, **found}


def group_of(name: str, setting: Mapping[str, Any], rows: Sequence[Row]) -> Row:
    """The networks of one setting: counts with Wilson's intervals, medians with those of order statistics."""
    done = [row for row in rows if row["status"] == "finished"]
    asked = [row["fourier"]["shown"] for row in done if row["fourier"]["shown"] is not None]
    nulls = [row["fourier"]["null"] for row in done if _known(row["fourier"]["null"])]
    return {
        "group": name,
        **setting,
        "networks": len(rows),
        "failed": len(rows) - len(done),
        "grokked": _count([row["epochs_to_grok"] is not None for row in done]),
        "fourier": _count(asked),
        "null_passes": float(np.mean(nulls)) if nulls else None,
        **{epochs: _median(done, lambda row, name=epochs: row[name], censored=True) for epochs in EPOCHS},
        "phases": {p: _median(done, lambda row, name=p: row["phases"][name], censored=True) for p in PHASES},
        "n_key_frequencies": _median(done, lambda row: len(row["key_frequencies"])),
        **{measure: _median(done, lambda row, name=measure: row[name]) for measure in MEASURES},
    }


def _count(held: Sequence[bool]) -> Row:
    found = intervals.share(sum(held), len(held))
    return {"count": sum(held), "of": len(held), "low": _finite(found.low), "high": _finite(found.high)}


def _median(rows: Sequence[Row], value: Callable[[Row], float | None], *, censored: bool = False) -> Row:
    """Median and ends; None stands for "not within the run" where `never` counts some, else for nothing measured."""
    values = [value(row) for row in rows]
    known = [float(x) for x in values if x is not None and _known(x)]
    never = len(values) - len(known) if censored else 0
    found = intervals.median(known + [math.inf] * never)
    ends = {"median": _finite(found.estimate), "low": _finite(found.low), "high": _finite(found.high)}
    return {**ends, "coverage": found.coverage, "n": len(known) + never, "never": never}


def _known(x: float | None) -> bool:
    return x is not None and not math.isnan(x)


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
