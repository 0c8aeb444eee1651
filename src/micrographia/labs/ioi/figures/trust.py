"""How far estimates can be trusted: beside the exact effect of each place, and as correlations by kind of Site."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.core.figures import Figure
from micrographia.labs.ioi.network import BY_SIZE, CHANGE, Studied

GROUP = "How far to trust an estimate"
NAMES = {
    "atp": "attribution patching",
    "atp-qk": "with QK-fix",
    "atp-star": "AtP* (sizes)",
    BY_SIZE: "attribution patching, sizes",
    "ig": "integrated gradients",
    "relp": "RelP",
    CHANGE: "size of the change alone (sizes)",
    "exact": "exact patching",
    "eap": "EAP",
    "eap-ig": "EAP-IG",
    "random": "by chance",
}


def scatter(behaviour: str, network: str, found: Studied) -> Figure:
    """Every place that was patched exactly, by attribution patching."""
    kinds = list(found.points)
    counts = [len(found.points[kind]["exact"]) for kind in kinds]
    return Figure(
        name=f"{behaviour}-estimate-beside-exact",
        kind="scatter",
        group=GROUP,
        title=f"Attribution patching beside exact patching: {behaviour}, {network}",
        caption="Each point is one place. On the dashed line the estimate is the effect; a point far above or below it "
        "was overstated, one near the horizontal axis was missed.",
        source="Nanda (2023), attribution patching",
        data={
            "x": np.concatenate([found.points[kind]["exact"] for kind in kinds]),
            "y": np.concatenate([found.points[kind]["atp"] for kind in kinds]),
            "x_label": "exact change of the logit difference",
            "y_label": "estimated change of the logit difference",
            "colour": np.repeat(kinds, counts).tolist(),
            "categorical": True,
            "diagonal": True,
        },
    )


def correlations(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """From the table of estimates: a bar for each kind of Site and method."""
    sites = list(dict.fromkeys(row["site"] for row in rows))
    methods = [name for name in NAMES if any(row["method"] == name for row in rows)]

    def table(part: str) -> np.ndarray[Any, Any]:
        values = {(row["site"], row["method"]): row["pearson"] for row in rows if row["pearson"]}
        return np.array([[values.get((site, way), {part: np.nan})[part] for site in sites] for way in methods])

    return Figure(
        name="correlations",
        kind="bars",
        group=GROUP,
        title="Estimate and exact effect: Pearson's correlation",
        caption="The median over networks of the mean over behaviours, with the least and the greatest network. RelP "
        "holds attention patterns, so it says nothing of queries, keys and patterns. Those marked as sizes "
        "are held against the size of the effect, so it is with the sizes of attribution patching that the size of the "
        "change alone is to be compared: an estimate that is not above it has learned nothing from the gradient.",
        source="RelP (2508.21258) has the like for GPT-2",
        claims=("heads-before-stream", "neurons-before-mlp-outputs", "qk-fix-helps-queries", "relp-helps-mlp-outputs"),
        data={
            "y": table("median"),
            "low": table("low"),
            "high": table("high"),
            "names": sites,
            "series": [NAMES[way] for way in methods],
            "x_label": "kind of Site",
            "y_label": "Pearson's correlation",
        },
    )
