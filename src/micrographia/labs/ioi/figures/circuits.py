"""Circuits: how faithful they are as they grow, and the strongest edges between parts."""

import numpy as np

from micrographia.core.claims import Figure
from micrographia.core.graph import INPUT, LOGITS, Node
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
            "x_label": "share of all parts (or edges) in the circuit",
            "y_label": "faithfulness",
            "log_x": True,
        },
    )


def graph(behaviour: str, network: str, found: Circuits) -> Figure:
    """The strongest edges, those into the query, key and value of a head taken together."""
    weights: dict[tuple[Node, Node], float] = {}
    for writer, reader, share in found.graph:
        pair = Node.parse(writer), _reading(Node.parse(reader))
        weights[pair] = weights.get(pair, 0.0) + share
    nodes = sorted({node for pair in weights for node in pair}, key=lambda node: (level(node), str(node)))
    place = {node: i for i, node in enumerate(nodes)}
    levels = {level(node): f"layer {node.site.layer}" for node in nodes if node.site.kind == "z"}
    return Figure(
        name=f"{behaviour}-edges",
        kind="graph",
        group=GROUP,
        title=f"The strongest edges: {behaviour}, {network}",
        caption="Estimated by edge attribution: orange edges carry the answer, blue ones work against it. a1.2 is head "
        "2 of layer 1, m0 the MLP of layer 0; edges into a head's query, key and value are taken together.",
        source="Syed et al. (2023); Hanna et al. (2024)",
        data={
            "nodes": [short(node) for node in nodes],
            "levels": [level(node) for node in nodes],
            "sources": [place[writer] for writer, _ in weights],
            "targets": [place[reader] for _, reader in weights],
            "weights": list(weights.values()),
            "level_names": [{"level": at, "name": name} for at, name in sorted(levels.items())],
            "weight_label": "share of the gap",
        },
    )


def _reading(node: Node) -> Node:
    """The part that reads by this reader."""
    if node.site == LOGITS:
        return node
    kind = "mlp_out" if node.site.kind == "mlp_pre" else "z"
    return Node(type(node.site)(kind, node.site.layer), node.head)


def level(node: Node) -> float:
    """The height of a part: the input, then attention and MLP of each layer, then the logits."""
    if node.site in (INPUT, LOGITS):
        return 0.0 if node.site == INPUT else 1e6
    return 1.0 + 2 * (node.site.layer or 0) + (node.site.kind == "mlp_out")


def short(node: Node) -> str:
    """A part as it is written in a picture: a9.6 a head, m3 an MLP."""
    if node.site in (INPUT, LOGITS):
        return "input" if node.site == INPUT else "logits"
    return f"m{node.site.layer}" if node.head is None else f"a{node.site.layer}.{node.head}"
