"""Known layouts of transformer checkpoints: weight names and the order of axes.

A layout is a table from a weight's last name to its axes there and here. Known are those of the code published with
Nanda et al. (2023), "Progress measures for grokking via mechanistic interpretability", and TransformerLens, whose names
and shapes are ours.
"""

import re
from collections.abc import Mapping, Sequence

from einops import EinopsError, rearrange
from torch import Tensor

ATTENTION = tuple(f"{kind}_{x}" for kind in "Wb" for x in "QKVO")
MLP = ("W_in", "W_gate", "W_out", "b_in", "b_out")
LEAVES: dict[str, str] = {
    "W_E": "embed.W_E",
    "W_pos": "pos_embed.W_pos",
    **{leaf: f"blocks.{{}}.attn.{leaf}" for leaf in ATTENTION},
    **{leaf: f"blocks.{{}}.mlp.{leaf}" for leaf in MLP},
    "W_U": "unembed.W_U",
    "b_U": "unembed.b_U",
}
NORMS = {"ln1": "blocks.{}.ln1", "ln2": "blocks.{}.ln2", "ln": "ln_final", "ln_final": "ln_final"}
PARTS_OF_NORM = {"w": "w", "b": "b", "w_ln": "w", "b_ln": "b"}
BUFFERS = frozenset({"mask", "IGNORE", "rotary_sin", "rotary_cos"})

PAPER, LENS = "the paper's code", "TransformerLens"
# Axes there -> axes here. "vocab" is the input size of the embedding, "answers" the output size of the unembedding.
_SHARED = {
    "W_pos": "n_ctx d_model -> n_ctx d_model",
    "b_in": "d_mlp -> d_mlp",
    "b_out": "d_model -> d_model",
    "W_U": "d_model answers -> d_model answers",
    "w": "d_model -> d_model",
    "b": "d_model -> d_model",
}
LAYOUTS: Mapping[str, Mapping[str, str]] = {
    PAPER: {
        **_SHARED,
        "W_E": "d_model vocab -> vocab d_model",
        **dict.fromkeys(("W_Q", "W_K", "W_V"), "head d_head d_model -> head d_model d_head"),
        "W_O": "d_model (head d_head) -> head d_head d_model",
        "W_in": "d_mlp d_model -> d_model d_mlp",
        "W_out": "d_model d_mlp -> d_mlp d_model",
    },
    LENS: {
        **_SHARED,
        "W_E": "vocab d_model -> vocab d_model",
        **dict.fromkeys(("W_Q", "W_K", "W_V"), "head d_model d_head -> head d_model d_head"),
        **dict.fromkeys(("b_Q", "b_K", "b_V"), "head d_head -> head d_head"),
        "W_O": "head d_head d_model -> head d_head d_model",
        "b_O": "d_model -> d_model",
        "W_in": "d_model d_mlp -> d_model d_mlp",
        "W_gate": "d_model d_mlp -> d_model d_mlp",
        "W_out": "d_mlp d_model -> d_mlp d_model",
        "b_U": "answers -> answers",
    },
}
LISTED = 20


class Misfit(Exception):
    """The reason why a file does not have a layout."""


def our_name(key: str) -> str | None:
    """Our name of a weight, from its last words; None for an unknown one.

    >>> our_name("model.blocks.1.attn.W_Q"), our_name("W_E"), our_name("blocks.0.attn.mask")
    ('blocks.1.attn.W_Q', 'embed.W_E', None)
    """
    *path, leaf = _words(key)
    layer = next((int(part) for part in path if part.isdecimal()), 0)
    if leaf in LEAVES:
        return LEAVES[leaf].format(layer)
    if path and path[-1] in NORMS and leaf in PARTS_OF_NORM and "mlp" not in path:
        return f"{NORMS[path[-1]].format(layer)}.{PARTS_OF_NORM[leaf]}"
    return None


def named(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file under our names, their axes untouched; buffers and other entries are left out.

    Raises Misfit for two weights of one name, and for weights without a counterpart here.
    """
    found: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for key, tensor in tensors.items():
        name = our_name(key)
        if name in origin:
            raise Misfit(f"{origin[name]} and {key} both mean {name}")
        if name is not None:
            found[name], origin[name] = tensor, key
    unknown = [key for key, x in tensors.items() if our_name(key) is None and _looks_like_a_weight(key, x)]
    if unknown:
        raise Misfit(f"there is no place for {few(unknown)}")
    return found


def turn(name: str, tensor: Tensor, layout: str, *, n_heads: int | None) -> Tensor:
    """One weight, from its axes in the layout to ours. A copy where they differ. Raises Misfit."""
    pattern = LAYOUTS[layout].get(name.rpartition(".")[2])
    if pattern is None:
        raise Misfit(f"it has no {name}")
    sizes = {"head": n_heads} if "(" in pattern and n_heads else {}
    try:
        return rearrange(tensor, pattern, **sizes).contiguous()
    except EinopsError as error:
        raise Misfit(f"{name} should be {axes(pattern)}, is {list(tensor.shape)}") from error


def expected(layout: str) -> str:
    """The weights of a layout with their axes, as one line; those of the same axes together."""
    by_axes: dict[str, list[str]] = {}
    names = {**LEAVES, **{part: f"blocks.{{}}.ln1.{part}" for part in ("w", "b")}}
    for leaf in (each for each in names if each in LAYOUTS[layout]):
        by_axes.setdefault(axes(LAYOUTS[layout][leaf]), []).append(names[leaf].format("i"))
    return "; ".join(f"{', '.join(leaves)} {shape}" for shape, leaves in by_axes.items())


def found_in(tensors: Mapping[str, Tensor]) -> str:
    """The first names and shapes of a file, one a line."""
    lines = [f"  {key} {list(tensor.shape)}" for key, tensor in list(tensors.items())[:LISTED]]
    return "\n".join([*lines, *([f"  and {len(tensors) - LISTED} more"] if len(tensors) > LISTED else [])])


def axes(pattern: str) -> str:
    return "[" + pattern.partition(" ->")[0].replace("(head d_head)", "head*d_head").replace(" ", ", ") + "]"


def few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _words(key: str) -> list[str]:
    return re.split(r"[./]", key)


def _looks_like_a_weight(key: str, tensor: Tensor) -> bool:
    """Whether leaving it out might change the network's output. Bare names are usually other data of a script."""
    leaf = _words(key)[-1]
    return tensor.is_floating_point() and leaf not in BUFFERS and (leaf != key or key[:2] in ("W_", "b_"))
