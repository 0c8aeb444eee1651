"""The lab's pictures and tables, as Figures: means over seeds, and over relations where a figure has several."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from micrographia.core import figures
from micrographia.core.figures import Figure
from micrographia.labs.facts.localise import POSITIONS
from micrographia.labs.facts.measure import Found, SeedFound
from micrographia.labs.facts.networks import CAPACITY, EFFECTIVE, FIXED, RULE, SINGLE, TRANSFORMER
from micrographia.labs.facts.quantities import by_site, floors

STUDY = "Nanda, Rajamanoharan, Kramar and Shah, Fact Finding (2023)"
FOUND, WHERE, STACK, ARMS, TRAINING = "Hypotheses", "Where a fact is", "Inside the look-up", "Controls", "Training"
TOLD = {TRANSFORMER: "told together, any order", FIXED: "together, one order", SINGLE: "one at a time"}


def figures_of(found: Sequence[SeedFound], rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """All figures of a Run."""
    return [
        table_of(rows),
        board(found),
        readable_at_the_name(found),
        replaced(found),
        readable_by_layer(found),
        interaction(found),
        paths(found),
        kept(found),
        rules(found),
        capacity(found),
        *training(found),
    ]


def mean_of(found: Sequence[SeedFound], arm: str, read: Callable[[Found], Any]) -> ndarray:
    """The mean over seeds of what is read off the network of an arm."""
    return np.mean([np.asarray(read(each.one(arm)), float) for each in found], axis=0)


def table_of(rows: Sequence[Mapping[str, Any]]) -> Figure:
    columns = {
        "hypothesis": "hypothesis", "prediction": "if it is right", "measured": "measured", "null": "null",
        "verdict": "verdict here", "study": "the study",
    }  # fmt: skip
    return figures.table(
        "hypotheses", "The naive hypotheses", rows, columns=columns, source=f"{STUDY}, posts 3 and 4", group=FOUND,
        headline=True, claims=[row["claim"] for row in rows],
        caption="Each stands on one figure. Falsified: what follows from it is not so in any network.",
    )  # fmt: skip


def board(found: Sequence[SeedFound]) -> Figure:
    """Share of the answer that noising a place destroys: the stream, for each way of telling, and its null."""
    panels = {label: mean_of(found, arm, lambda x: x["boards"]["stream"].mean(0)) for arm, label in TOLD.items()}
    panels["null: donors with the same value"] = mean_of(
        found, TRANSFORMER, lambda x: x["boards"]["same value"].mean(0)
    )
    z = np.stack(list(panels.values()))
    stages = [f"into layer {i}" for i in range(z.shape[1] - 1)] + ["out"]
    return figures.heatmap(
        "board", "Where the answer hangs", z, x=POSITIONS, y=stages, panels=list(panels), group=WHERE,
        value="share destroyed", texts=[[[f"{x:.2f}" for x in row] for row in panel] for panel in z.tolist()],
        source=f"{STUDY}, post 2", claims=("last-name-in-the-middle", "name-before-relation", "relation-late"),
        caption="The residual stream of another entity with another value patched in, place by place. If the "
        "study's circuit is here too, it hangs on the first name early, the last name in the middle, relation late.",
    )  # fmt: skip


def readable_at_the_name(found: Sequence[SeedFound]) -> Figure:
    probes = found[0].one(TRANSFORMER)["probes"]
    y = {label: mean_of(found, arm, lambda x: by_site(x["probes"])) for arm, label in TOLD.items()}
    y |= _nulls(found, TRANSFORMER, len(probes.sites))
    names = ", ".join(f"{i}: {site}" for i, site in enumerate(probes.sites))
    return _accuracies(
        "at-the-name", "Read at the last name, before the relation is seen", y, names, WHERE,
        ("value-before-relation", "any-order-at-the-name", "together-at-the-name", "shuffled-values-unread"),
    )  # fmt: skip


def readable_by_layer(found: Sequence[SeedFound]) -> Figure:
    y = {"effective model": mean_of(found, EFFECTIVE, lambda x: by_site(x["probes"]))}
    y |= _nulls(found, EFFECTIVE, len(y["effective model"]))
    return _accuracies(
        "by-layer", "Read in the effective model", y, "0: summed embeddings, then after each MLP", STACK,
        ("readable-halfway",),
    )  # fmt: skip


def _nulls(found: Sequence[SeedFound], arm: str, n: int) -> dict[str, ndarray]:
    """The floor of each network, and the probe of other entities' values."""
    floor = mean_of(found, arm, lambda x: floors(x["probes"]).mean())
    shuffled = mean_of(found, arm, lambda x: x["probes"].shuffled.mean((-1, -2)))
    return {"floor: name parts, commonest, untrained": np.full(n, floor), "values dealt anew": shuffled}


def _accuracies(
    name: str, title: str, y: Mapping[str, ndarray], x_label: str, group: str, claims: Sequence[str]
) -> Figure:
    values = np.stack(list(y.values()))
    return figures.lines(
        name, title, np.arange(values.shape[1]), values, names=list(y), x_label=x_label, y_label="accuracy",
        reach=(0, 1), group=group, claims=claims, source=f"{STUDY}, posts 2 and 3", highlight=[0],
        caption="Linear probes of the value, on entities that they were not fitted to; the mean over relations.",
    )  # fmt: skip


def replaced(found: Sequence[SeedFound]) -> Figure:
    """What is kept of the stream at the last name, by layer."""
    ways = list(found[0].one(TRANSFORMER)["tables"][0]["rows"])
    z = mean_of(found, TRANSFORMER, lambda x: [[each["rows"][way][1] for way in ways] for each in x["tables"]])
    return figures.bars(
        "replaced", "The last name replaced by a table", z, names=ways, y_label="accuracy", group=WHERE,
        series=[f"after layer {i}" for i in range(len(z))], source=f"{STUDY}, posts 2 and 5",
        claims=("table-for-the-name", "attributes-are-enough"),
        caption="The stream at the last name written from a table of names, from another name's row, from what probes "
        "of the values read of the table, from a random subspace of that rank, and from the mean.",
    )  # fmt: skip


def interaction(found: Sequence[SeedFound]) -> Figure:
    y = {
        f"{title}{of}": mean_of(found, EFFECTIVE, lambda x, key=f"interaction{null}", kind=kind: x[key][kind])
        for kind, title in (("mlp_out", "MLP output"), ("resid_post", "residual stream"))
        for null, of in (("", ""), ("_null", ", shuffled weights"))
    }
    values = np.stack(list(y.values()))
    return figures.lines(
        "interaction", "What a pair of names adds to its parts", np.arange(values.shape[1]), values, names=list(y),
        x_label="MLP", y_label="share of the variance", group=STACK, claims=("pairs-beyond-parts",), reach=(0, 1),
        source=f"{STUDY}, post 3", highlight=[0, 2],
        caption="Over the full grid of first and last names, known or not.",
    )  # fmt: skip


def paths(found: Sequence[SeedFound]) -> Figure:
    accuracy = mean_of(found, EFFECTIVE, lambda x: x["clean_accuracy"] - x["paths_accuracy"])
    loss = mean_of(found, EFFECTIVE, lambda x: x["paths_loss"] - x["clean_loss"])
    z = np.stack([accuracy, loss])
    texts = [[["" if np.isnan(x) else f"{x:.2f}" for x in row] for row in panel] for panel in z.tolist()]
    names = [f"MLP {i}" for i in range(z.shape[1])]
    return figures.heatmap(
        "paths", "Paths between MLPs, cut one at a time", z, x=names, y=names, panels=["accuracy lost", "nats added"],
        texts=texts, x_label="reads", y_label="writes", value="lost or added", group=STACK,
        claims=("paths-between-mlps",), source=f"{STUDY}, post 3",
        caption="The reader sees the writer's mean output for this name; all others see the true one.",
    )  # fmt: skip


def kept(found: Sequence[SeedFound]) -> Figure:
    shares = found[0].one(EFFECTIVE)["kept"]
    y = mean_of(found, EFFECTIVE, lambda x: x["kept_accuracy"])
    return figures.lines(
        "kept", "Accuracy with a share of the neurons", np.array(shares), y[None], names=["random neurons kept"],
        x_label="share kept, the others at their mean", y_label="accuracy", group=STACK, reach=(0, 1),
        claims=("half-the-neurons-suffice", "votes-err-apart"), essential=False,
        caption="Many weak voters would lose little to the loss of a few.",
    )  # fmt: skip


def rules(found: Sequence[SeedFound]) -> Figure:
    """What a rule passes on to unknown names."""
    rows = [sorted([each.one(EFFECTIVE), *each.arms[RULE]], key=lambda row: row["rule_p"]) for each in found]
    p = [row["rule_p"] for row in rows[0]]
    unknown, chance = (np.mean([[row[key] for row in one] for one in rows], 0) for key in ("unknown_read", "chance"))
    exceptions = np.mean([[row.get("exceptions", row["accuracy"]) for row in one] for one in rows], 0)
    return figures.lines(
        "rules", "Memory and rules of thumb", np.array(p), np.stack([unknown, exceptions, chance]), reach=(0, 1),
        names=["the rule, read at unknown names", "exceptions, answered at known ones", "chance"], group=ARMS,
        x_label="share of facts that a rule says", y_label="accuracy",
        claims=("memory-says-nothing-of-others", "rule-says-it-of-others", "exceptions-remembered"),
        caption="A probe of known names carries over to unknown ones only as far as there is a rule; what breaks "
        "the rule is remembered all the same.",
    )  # fmt: skip


def capacity(found: Sequence[SeedFound]) -> Figure:
    rows = [row for each in found for row in each.arms[CAPACITY]]
    exposures, widths = (sorted({row[key] for row in rows}) for key in ("exposures", "width"))

    def mean(n: int, width: int, key: str) -> float:
        chosen = [row for row in rows if (row["exposures"], row["width"]) == (n, width)]
        return float(np.mean([row[key] / row["parameters"] for row in chosen]))

    x = np.array([[mean(n, width, "of") for width in widths] for n in exposures])
    y = np.array([[mean(n, width, "bits") for width in widths] for n in exposures])
    return figures.lines(
        "capacity", "Bits a parameter", np.vstack([x, x[:1]]), np.vstack([y, x[:1]]), group=ARMS, log_x=True,
        names=[*(f"{n} exposures" for n in exposures), "all facts"], x_label="bits of facts to hold, a parameter",
        y_label="bits held, a parameter", claims=("two-bits-a-parameter", "one-bit-at-100-exposures"),
        source="Allen-Zhu and Li, Physics of language models, part 3.3 (2024)",
        caption="Small effective models of several widths told the same facts; embeddings count as parameters.",
    )  # fmt: skip


def training(found: Sequence[SeedFound]) -> list[Figure]:
    """The loss, and how known and unknown names are answered."""
    base = found[0].one(TRANSFORMER)["base_nats"]
    curve = found[0].curves[TRANSFORMER]
    step = np.asarray(curve["step"], float)
    loss = figures.lines(
        "loss", "The relation first, then the entity", np.stack([step] * 2),
        np.stack([curve["loss_nats"], np.full(len(step), base)]), names=["loss", "relation alone"], x_label="step",
        y_label="nats a fact", group=TRAINING, claims=("relation-only-plateau",), log_y=True,
        caption="The transformer of the first seed. The line is what is left when the relation alone is known.",
    )  # fmt: skip
    looked = np.isfinite(np.asarray(curve["known_accuracy"], float))
    shown = {"known names right": "known_accuracy", "unknown names answered for sure": "unknown_sure"}
    y = np.stack([np.asarray(curve[key], float)[looked] for key in shown.values()])
    sure = figures.lines(
        "unknown", "Sure of names never met", step[looked], y, names=list(shown), x_label="step", y_label="share",
        group=TRAINING, claims=("unknown-answered-for-sure",), reach=(0, 1),
        caption="As facts are learned, unknown names get confident answers too, which are right by chance alone.",
    )  # fmt: skip
    return [loss, sure]
