"""The pictures of a run of trained networks: how they learned, and one network taken apart, the first that learned."""

from collections.abc import Mapping, Sequence

import numpy as np

from micrographia.core.figures import Figure
from micrographia.labs.ioi.figures import circuits, places, trust
from micrographia.labs.ioi.findings import estimates
from micrographia.labs.ioi.network import Network
from micrographia.labs.ioi.templates import BEHAVIOURS

SHOWN = {"ioi": ("z", "resid_pre"), "induction": ("z",)}
"""Behaviour -> the kinds of Site whose effects are drawn."""
Rows = Mapping[str, Sequence[float]]


def of_networks(networks: Sequence[Network], courses: Mapping[int, Rows], n_heads: int) -> list[Figure]:
    """`courses`: the rows of each network's training, by seed."""
    figures = [course(courses)]
    rows = estimates([network.studied for network in networks])
    figures += [trust.correlations(rows)] if rows else []
    for behaviour in SHOWN:
        for network in [each for each in networks if behaviour in each.studied][:1]:
            figures += of_behaviour(behaviour, network, n_heads)
    return figures


def of_behaviour(behaviour: str, network: Network, n_heads: int) -> list[Figure]:
    found, name = network.studied[behaviour], f"seed {network.seed}"  # type: ignore[index]  # a Behaviour by its name
    pictures = [*places.maps(behaviour, name, found, n_heads, SHOWN[behaviour]), trust.scatter(behaviour, name, found)]
    if found.circuits is not None:
        pictures += [circuits.curves(behaviour, name, found.circuits), circuits.graph(behaviour, name, found.circuits)]
    return pictures


def course(courses: Mapping[int, Rows]) -> Figure:
    """Accuracy on held-out prompts along training."""
    steps = np.asarray(next(iter(courses.values()))["step"], dtype=np.float64)
    named = {
        f"{behaviour}, seed {seed}": np.asarray(rows[f"{behaviour}_accuracy"], dtype=np.float64)
        for behaviour in BEHAVIOURS
        for seed, rows in courses.items()
    }
    seen = ~np.isnan(np.stack(list(named.values()))).any(0)
    return Figure(
        name="course",
        kind="lines",
        group="The networks",
        title="What is learned when",
        caption="The share of held-out prompts whose right answer has the largest logit of all words. Every prompt "
        "holds a pair of words that training never showed together, so what is learned is a rule.",
        claims=("behaviours-learned",),
        data={
            "x": steps[seen],
            "y": np.stack([values[seen] for values in named.values()]),
            "names": list(named),
            "x_label": "step",
            "y_label": "accuracy",
            "highlight": [i for i, name in enumerate(named) if name.startswith("ioi")],
        },
    )
