"""What a place in a model is called for people: L9H6 for a head, as in TransformerLens; its address is for copying.

Keys and values of grouped-query attention have fewer heads than queries: "L23 kv head 1 (heads 3-5) value".
"""

import re
from collections.abc import Mapping
from typing import Any

from micrographia.core.graph import Node
from micrographia.core.sites import Site

OF_HEADS: Mapping[str, str] = {
    "z": "", "result": "", "q": " query", "rot_q": " query after rotary", "k": " key", "rot_k": " key after rotary",
    "v": " value", "pattern": " pattern", "scores": " scores",
}  # fmt: skip
SHARED = ("k", "rot_k", "v")
"""What a group of heads reads together under grouped-query attention."""
WHOLE: Mapping[str, str] = {
    "resid_pre": "stream before L{}",
    "resid_mid": "stream within L{}",
    "resid_post": "stream after L{}",
    "attn_out": "L{} attn",
    "mlp_out": "L{} MLP",
}


def number_of(n: int, noun: str) -> str:
    """A count with its noun.

    >>> number_of(1, "document"), number_of(1200, "row"), number_of(2, "batch")
    ('1 document', '1,200 rows', '2 batches')
    """
    ending = "" if n == 1 else "es" if noun.endswith(("s", "ch")) else "s"
    return f"{n:,} {noun}{ending}"


def head_name(layer: int | None, head: int | str, kind: str = "z", group: int = 1) -> str:
    """A head, or its queries, keys or values; `group` heads share a key and a value.

    >>> head_name(9, 6), head_name(9, 6, "q"), head_name(23, 1, "v", 3)
    ('L9H6', 'L9H6 query', 'L23 kv head 1 (heads 3-5) value')
    """
    layered = "L*" if layer is None else f"L{layer}"
    if kind in SHARED and group > 1:
        first = int(head) * group
        return f"{layered} kv head {head} (heads {first}-{first + group - 1}){OF_HEADS[kind]}"
    return f"{layered}H{head}{OF_HEADS[kind]}"


def component_name(site: Site, inside: Mapping[str, Any], group: int = 1, *, layered: bool = True) -> str:
    """A part of a model without its position. `inside`: its head, unit or key; without `layered`, of all layers."""
    layer = site.layer if layered else None
    if set(inside) - {"key"} == {"head"} and site.kind in OF_HEADS and not site.part:
        key = f" from position {inside['key']}" if "key" in inside else ""
        return head_name(layer, inside["head"], site.kind, group) + key
    if not inside and site.kind in WHOLE and not site.part:
        return WHOLE[site.kind].format("*" if layer is None else layer)
    name = str(site) if layered or site.layer is None else f"L*.{str(site).partition('.')[2]}"
    numbers = ", ".join(f"{axis}={i}" if len(inside) > 1 else f"{i}" for axis, i in inside.items())
    return f"{name}[{numbers}]" if inside else name


def node_name(node: Node | str, group: int = 1) -> str:
    """A node of the graph, or the label of one: L9H6, L9 MLP; what has no name of its own keeps its address.

    >>> node_name("L9.z[6]"), node_name("L9.mlp_out"), node_name("L9.b_O")
    ('L9H6', 'L9 MLP', 'L9.b_O')
    """
    if isinstance(node, str):
        if "[" not in node:
            return spoken_members(node)
        node = Node.parse(node)
    if node.head is None:
        return spoken_members(str(node))
    return head_name(node.site.layer, node.head, node.site.kind, group)


def spoken_members(text: str) -> str:
    """A text with the addresses of heads and MLPs in it, as of members of a circuit, as people call them.

    >>> spoken_members("L9.z[6]@-1 -> L10.mlp_out")
    'L9H6@-1 -> L10 MLP'
    """
    text = re.sub(r"L(\d+)\.z\[(\d+)\]", r"L\1H\2", text)
    return re.sub(r"L(\d+)\.(mlp_out|attn_out)\b", lambda found: WHOLE[found[2]].format(found[1]), text)


def place_name(site: Site, where: Mapping[str, Any], positions: Any = (), group: int = 1) -> str:
    """A part of a model at a position.

    >>> place_name(Site("z", 1), {"pos": 14, "head": 4})
    'L1H4 at position 14'
    """
    inside = {axis: i for axis, i in where.items() if axis not in ("pos", "query")}
    at = where.get("pos", where.get("query"))
    return component_name(site, inside, group) + ("" if at is None else f" at {at_position(positions, at)}")


def at_position(positions: Any, i: int) -> str:
    """A position in a sentence: 'to' (14); its number where it has no name.

    >>> at_position(["0 When", "1 Mary / John"], 1), at_position([], 3)
    ("'Mary / John' (1)", 'position 3')
    """
    number, _, token = str(positions[i]).partition(" ") if i < len(positions) else (str(i), "", "")
    return f"{token!r} ({number})" if token else f"position {number}"
