"""Plan -> Run: train every network of a sweep, and report what holds across seeds and choices.

Each member is an ordinary Run of the lab below `members/`. The sweep's own Run holds a row for each network, a group
for each setting, and figures. Epochs are those of the first measurement at which something holds, so they are no finer
than `eval_every` where the test pairs are concerned. What did not happen within the run is None in a row, and later
than everything else in a group's median: it is counted, not left out.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from micrographia.core.claims import Run
from micrographia.core.events import Watch, silent
from micrographia.core.intervals import median_entry, share, share_entry
from micrographia.core.lab import Findings, columns_of, for_each_network, row_of, run_in_folder
from micrographia.core.plan import members, setting_name, settings
from micrographia.core.runtime import generator, pick_device, provenance
from micrographia.core.small.transformer import Transformer
from micrographia.core.store import RunFolder, read_metrics, read_tensors
from micrographia.core.store.checkpoints import snapshots
from micrographia.labs.grokking.config import Config
from micrographia.labs.grokking.network import NetworkTensors, tensors_of
from micrographia.labs.grokking.run import LAB, run
from micrographia.labs.grokking.sweep.config import AXES, SweepConfig
from micrographia.labs.grokking.sweep.figures import of_sweep
from micrographia.labs.grokking.task import architecture, make_pairs
from micrographia.methods.fourier.criterion import GENERALISES, FourierVerdict, fourier_algorithm
from micrographia.methods.phases import ORDERED

MEMBERS = "members"  # the folder of the networks' own Runs
LOW_LOSS = 1e-2
"""Nats below which a loss counts as gone: memorised on the training pairs, generalised on the test pairs."""
EPOCHS = ("epochs_to_memorise", "epochs_to_grok", "epochs_to_low_test_loss")
MEASURES = (
    "train_loss", "test_loss", "test_accuracy", "restricted_loss", "excluded_loss", "trig_loss",
    "logit_variance_explained",
)  # fmt: skip
Row = dict[str, Any]


def sweep(
    plan: SweepConfig,
    *,
    out: Path | None = None,
    resume: bool = False,
    workers: int | None = None,
    watch: Watch = silent,
) -> Run:
    """Train all members, `workers` at a time (by default one a core), and compare them.

    Cost: that of the members; a member of the default plan takes about 20 s of one core. A member that fails is a row
    of the table. Raises RunExists, RunLocked, BadConfig (another plan is stored there), Interrupted, CannotWrite.
    """
    about = provenance(None, pick_device(plan.base.machine.device), plan.base.dtype, threads=1)
    work, place = partial(_work, plan, workers), {"out": out, "resume": resume, "watch": watch}
    return run_in_folder(plan.stored, work, lab=LAB, preset="sweep", about=about, **place)


def _work(plan: SweepConfig, workers: int | None, folder: RunFolder, watch: Watch) -> Findings:
    chosen = members(plan, AXES)
    configs = {member.name: member.config for member in chosen}
    done = for_each_network(train_and_measure, configs, folder.path / MEMBERS, workers=workers, watch=watch)
    rows = [row_of({"member": name, "seed": seed, **setting}, done[name]) for name, seed, setting, _ in chosen]
    groups = []
    for each in settings(plan, AXES):
        own = [row for row, member in zip(rows, chosen) if member.setting == each]
        groups.append(group_of(setting_name(plan, AXES, each), each, own))
    failures = [{"member": row["member"], "error": row["error"]} for row in rows if row["error"]]
    results = {"members": rows, "groups": groups, "failures": failures, "title": "Grokking: a sweep"}
    opening = sentences(plan, rows, groups)
    return Findings(results, of_sweep(plan, rows, groups), metrics=columns_of(rows), opening=opening)


def train_and_measure(config: Config, out: str) -> Row:
    """The task of one network: train it (or go on, or read it), then what became of it, in plain numbers."""
    return outcome(config, run(config, out=Path(out), resume=True))


def network_at(config: Config, trained: Run, epoch: int) -> NetworkTensors:
    """The network of a Run at one of its snapshots."""
    model = Transformer(architecture(config), read_tensors(snapshots(trained.path)[epoch]))
    return tensors_of(model, make_pairs(config))


def outcome(config: Config, trained: Run) -> Row:
    """What became of a finished network."""
    results = trained.results or {}
    found, phases = results["measures"], results.get("phases") or {}
    return {
        **milestones(read_metrics(trained.path)),
        "phases": {name: phases.get(name) for name in ORDERED},
        "key_frequencies": list(results["key_frequencies"]),
        "present": [row["k"] for row in results["frequencies"]],
        "published_rule": list(results.get("published_rule") or ()),
        **{name: found.get(name) for name in MEASURES},
        "restricted_loss": (found.get("restricted_loss") or {}).get("projection"),
        "fourier": fourier_verdict(config, trained)._asdict(),
    }


def milestones(metrics: Mapping[str, Any]) -> Row:
    """First epochs at which the training loss is low, the test accuracy high, the test loss low; None: never."""
    epoch = np.asarray(metrics["epoch"])
    with np.errstate(invalid="ignore"):  # epochs without a test measurement are NaN, which no bound holds for
        reached = (
            np.asarray(metrics["train_loss"]) < LOW_LOSS,
            np.asarray(metrics["test_accuracy"]) >= GENERALISES,
            np.asarray(metrics["test_loss"]) < LOW_LOSS,
        )
    return {name: int(epoch[held.argmax()]) if held.any() else None for name, held in zip(EPOCHS, reached)}


def fourier_verdict(config: Config, trained: Run) -> FourierVerdict:
    """The criterion at the last epoch. Where none can be called key, the present frequencies stand in for them."""
    results = trained.results or {}
    if config.operation == "polynomial":
        return FourierVerdict(None, "its operation has no characters, so none are assumed")
    present = [row["k"] for row in results["frequencies"]]
    keys = results["key_frequencies"] or [row["k"] for row in results["frequencies"] if row["kind"] != "overtone"]
    logits = network_at(config, trained, max(snapshots(trained.path))).logits
    accuracy = results["measures"]["test_accuracy"]
    return fourier_algorithm(logits, keys, present, test_accuracy=accuracy, generator=generator(config.seed))


def group_of(name: str, setting: Mapping[str, Any], rows: Sequence[Row]) -> Row:
    """The networks of one setting: counts with Wilson's intervals, medians with those of order statistics."""
    done = [row for row in rows if row["status"] == "finished"]
    verdicts, nulls = verdicts_of(done)
    return {
        "group": name,
        **setting,
        "networks": len(rows),
        "failed": len(rows) - len(done),
        "grokked": share_entry([row["epochs_to_grok"] is not None for row in done]),
        "fourier": share_entry([each["shown"] for each in verdicts]),
        "null_passes": float(np.mean(nulls)) if nulls else None,
        **{epochs: median_entry([row[epochs] for row in done], censored=True) for epochs in EPOCHS},
        "phases": {p: median_entry([row["phases"][p] for row in done], censored=True) for p in ORDERED},
        "n_key_frequencies": median_entry([len(row["key_frequencies"]) for row in done]),
        **{measure: median_entry([row[measure] for row in done]) for measure in MEASURES},
    }


def verdicts_of(done: Sequence[Row]) -> tuple[list[Row], list[float]]:
    """The verdicts of networks whose operation has characters, and the nulls that were measured."""
    found = [row["fourier"] for row in done if row["fourier"]["shown"] is not None]
    return found, [each["null"] for each in found if each["null"] is not None and not math.isnan(each["null"])]


def sentences(plan: SweepConfig, rows: Sequence[Row], groups: Sequence[Row]) -> list[str]:
    """The summary: how many finished, how many grokked and how fast, how many show the Fourier algorithm."""
    done = [row for row in rows if not row["error"]]
    failed = ", ".join(row["member"] for row in rows if row["error"])
    verdicts, nulls = verdicts_of(done)
    grokked = _fraction([row["epochs_to_grok"] is not None for row in done])
    shown = _fraction([each["shown"] for each in verdicts])
    null = f" At most {max(nulls):.0%} of random sets of as many other frequencies would pass." if nulls else ""
    reasons = Counter(each["reason"].partition(":")[0] for each in verdicts if not each["shown"])
    return [
        f"{len(rows)} networks: {len(groups)} settings at {len(plan.seeds)} seeds. "
        + (f"Failed, and in no count below: {failed}." if failed else "All finished."),
        f"{grokked} grokked within {plan.base.epochs:,} epochs (test accuracy {GENERALISES:.0%}).{_speeds(groups)}",
        f"{shown} whose operation has characters show the Fourier algorithm.{null}",
        *(f"Not shown by {count}: {reason}." for reason, count in reasons.most_common()),
    ]


def _fraction(held: Sequence[bool]) -> str:
    found = share(sum(held), len(held))
    return f"{sum(held)} of {len(held)} networks" + (f" ({found.low:.0%} to {found.high:.0%})" if held else "")


def _speeds(groups: Sequence[Row]) -> str:
    reached = {g["group"]: g["epochs_to_grok"]["median"] for g in groups if g["epochs_to_grok"]["median"] is not None}
    if not reached:
        return ""
    first, last = min(reached, key=lambda name: reached[name]), max(reached, key=lambda name: reached[name])
    slowest = f", slowest {last} at {reached[last]:,.0f}" if len(reached) > 1 else ""
    return f" Fastest setting in the median over seeds: {first} at epoch {reached[first]:,.0f}{slowest}."
