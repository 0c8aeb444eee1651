"""The figures of a sweep: how long it took, in which phases, on which frequencies, and whether it was Fourier.

Medians over seeds stand between the ends of their interval; a gap is a median that lies beyond the end of the runs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from micrographia.core.figures import Figure, table
from micrographia.core.plan_figures import along_axes, group_bars, marked
from micrographia.labs.grokking.sweep.config import AXES, SweepConfig
from micrographia.methods.phases import ORDERED

Row = Mapping[str, Any]
SEEDS, CHOICES, TABLES = "Over seeds", "Over choices", "Tables"


def of_sweep(plan: SweepConfig, rows: Sequence[Row], groups: Sequence[Row]) -> list[Figure]:
    """All figures of a finished sweep."""
    each = [{**group, **group["phases"]} for group in groups]
    times, *others = (group_bars(name, each, **about) for name, about in BARS.items())
    done = [row for row in rows if row["status"] == "finished"]
    return [
        times,
        *along_axes(
            "epochs_to_grok", plan, AXES, rows, groups, name="grok_by", bound=plan.base.epochs, log_y=True,
            caption="Strong: the median over seeds, with its interval, which ends at the length of the run where it is "
            f"open. Thin: each seed. A gap: not within the {plan.base.epochs:,} epochs of the run.",
            source="Nanda et al. 2023, appendix D", group=CHOICES,
        ),
        *others,
        *([key_frequencies(done)] if done else []),
        table("groups", "The settings compared", groups, columns=GROUP_COLUMNS, group=TABLES, caption=GROUPS),
        table(
            "members", "Every network", [_member(row) for row in rows], columns=MEMBER_COLUMNS, group=TABLES,
            caption="A dash: it did not happen within the run, or could not be measured.",
        ),
    ]  # fmt: skip


EPOCHS = {"y_label": "epoch", "log_y": True, "group": SEEDS}
BARS: dict[str, dict[str, Any]] = {
    "time_to_grok": {
        "title": "Epochs to memorise, epochs to grok",
        "caption": "First epoch with a training loss below 0.01, and with a test accuracy of 99 %: medians over seeds "
        "with their interval. No bar: the median network never got there within the run.",
        "series": {"epochs_to_memorise": "to memorise", "epochs_to_grok": "to grok"},
        **EPOCHS,
    },
    "phase_boundaries": {
        "title": "Phase boundaries over seeds",
        "caption": "Where the phases end, by change points: medians over seeds with their interval. No bar: not within "
        "the run.",
        "series": {name: name for name in ORDERED},
        **EPOCHS,
    },
    "fourier_shares": {
        "title": "Networks that show the Fourier algorithm",
        "caption": "Fraction of the networks that generalise by the cosines of their key frequencies, and by nothing "
        "else, with Wilson's interval; beside it how often as many other frequencies would pass. No bar: the operation "
        "has no characters, or no network finished.",
        "series": {"fourier": "its key frequencies", "null_passes": "random sets of other frequencies"},
        "y_label": "fraction of networks",
        "group": CHOICES,
    },
    "end_losses": {
        "title": "Losses at the end",
        "caption": "A clean circuit has a low restricted loss and trig loss (key frequencies alone) and a high "
        "excluded loss (training pairs, without them). Medians over seeds with their interval.",
        "series": {"test_loss": "test", "restricted_loss": "restricted", "trig_loss": "trig",
                   "excluded_loss": "excluded"},
        "y_label": "loss (nats)",
        "log_y": True,
        "group": CHOICES,
    },
}  # fmt: skip
GROUPS = "Counts are of finished networks; epochs are medians over seeds, in brackets the ends of their interval."
GROUP_COLUMNS = {
    "group": "setting", "networks": "networks", "failed": "failed", "grokked": "grokked",
    "epochs_to_grok": "epochs to grok", "n_key_frequencies": "key frequencies", "restricted_loss": "restricted loss",
    "excluded_loss": "excluded loss", "fourier": "Fourier algorithm",
}  # fmt: skip
MEMBER_COLUMNS = {
    "member": "network", "epochs_to_memorise": "to memorise", "epochs_to_grok": "to grok",
    "test_accuracy": "test accuracy", "key_frequencies": "key frequencies", "restricted_loss": "restricted loss",
    "excluded_loss": "excluded loss", "trig_loss": "trig loss", "shown": "Fourier", "reason": "why",
}  # fmt: skip


def _member(row: Row) -> Row:
    return {**row, **(row["fourier"] if row["status"] == "finished" else {"reason": f"failed: {row['error']}"})}


def key_frequencies(rows: Sequence[Row]) -> Figure:
    """Which frequencies each network ended on: 1 key, 0.4 present but not key."""
    n = [(row["modulus"] - (row["operation"] == "multiply")) // 2 for row in rows]
    return marked(
        "key_frequencies", "Key frequencies of every network", {row["member"]: k for row, k in zip(rows, n)},
        {0.4: [row["present"] for row in rows], 1.0: [row["key_frequencies"] for row in rows]},
        x_label="frequency k", y_label="network", group="Frequencies",
        caption="Strong colour: key; faint: present, but carried by other frequencies' neurons. Where every seed makes "
        "its own choice, no column is strong all the way down.",
        source="Nanda et al. 2023, appendix C",
    )  # fmt: skip
