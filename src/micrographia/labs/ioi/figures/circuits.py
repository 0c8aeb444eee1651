"""Circuits: how faithful they are as they grow, and the strongest edges between parts."""

import numpy as np

from micrographia.core.figures import Figure
from micrographia.core.graph import Node
from micrographia.core.graph_figure import drawn
from micrographia.labs.ioi.circuit import Circuits
from micrographia.labs.ioi.figures.trust import NAMES

GROUP = "Which set of parts does it alone"


def curves(behaviour: str, network: str, found: Circuits) -> Figure:
    """Faithfulness along the ladder, one line a method."""
    named = {NAMES.get(name, name): curve.faithfulness for name, curve in found.nodes.items()}
    named |= {f"edges, {NAMES.get(name, name)}": curve.faithfulness for name, curve in found.edges.items()}
    return Figure(
        name=f"{behaviour}-faithfulness",
        kind="lines",
        group=GROUP,
        title=f"Faithfulness of circuits as they grow: {behaviour}, {network}",
        caption=f"1 is the whole model, 0 the model with every part ablated. Outside the circuit stands "
        f"{found.ablation}. Circuits were chosen on other prompts than those they are judged on; the line by chance "
        "is the mean over random orders.",
        source="Mueller et al., MIB (2025), section 3.1",
        claims=("small-circuit", "attribution-beats-chance", "eap-ig-before-eap"),
        data={
            "x": np.array(found.shares),
            "y": np.array(list(named.values())),
            "names": list(named),
            "x_label": "share of the parts that can reach the answer, or of the edges",
            "y_label": "faithfulness",
            "log_x": True,
        },
    )


def graph(behaviour: str, network: str, found: Circuits) -> Figure:
    """The strongest edges, those into the query, key and value of a head taken together."""
    links = {(Node.parse(writer), Node.parse(part)): share for writer, part, share in found.links}
    return Figure(
        name=f"{behaviour}-edges",
        kind="graph",
        group=GROUP,
        title=f"The strongest edges: {behaviour}, {network}",
        caption="Estimated by edge attribution: orange edges carry the answer, blue ones work against it. a1.2 is head "
        "2 of layer 1, m0 the MLP of layer 0; edges into a head's query, key and value are taken together.",
        source="Syed et al. (2023); Hanna et al. (2024)",
        data=drawn(links, "share of the gap"),
    )
