"""Other people's state dicts as our small transformers: an Architecture with its weights.

All weights of a file are compared with each known layout together. A file that fits several layouts, and properties
that no weight shows (the activation, norms without weights), give several networks: `candidates` and `variants` list
them, and the caller runs each to see which one works. The network's task is not needed here.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from micrographia.core.errors import BadConfig, UnreadableWeights
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import ACTIVATIONS
from micrographia.core.state_dicts.layouts import LAYOUTS, LENS, Misfit, expected, few, found_in, named, turn

# gelu_new is so near to gelu that accuracies cannot distinguish them.
GUESSED_ACTS = ("relu", "gelu", "silu", "tanh", "square")


class Candidate(NamedTuple):
    """One reading of a file. `choices`: the ambiguous properties, and their values in this reading."""

    arch: Architecture
    weights: dict[str, Tensor]
    choices: dict[str, str]
    notes: tuple[str, ...] = ()


def candidates(tensors: Mapping[str, Tensor]) -> list[Candidate]:
    """One network for each layout that all weights fit together. Copies them, in float32, or float64 where any is.

    Names may have any prefix, and no module name when there is one layer. Raises UnreadableWeights, which lists the
    keys and shapes found and those expected, when nothing fits.
    """
    misfits: dict[str, str] = {}
    found = []
    try:
        weights, notes = _one_precision(_whole(named(tensors)))
    except Misfit as error:
        raise _unreadable(tensors, {"None fits": str(error)}) from error
    for layout in LAYOUTS:
        try:
            found.append(_fit(weights, layout, notes))
        except Misfit as error:
            misfits[f"Not {layout}"] = str(error)
    if not found:
        raise _unreadable(tensors, misfits)
    if any(key.endswith("w_ln") for key in tensors):
        return [each for candidate in found for each in _published_norms(candidate)]
    return found


def variants(candidate: Candidate, *, act: str | None = None) -> list[Candidate]:
    """The networks that these weights may be: each activation (or the one given), and norms without weights.

    Raises BadConfig for an activation that cannot be theirs.
    """
    return [each for norm in _norms(candidate) for gate in _gates(norm) for each in _acts(gate, act)]


def _whole(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights, if they can belong to a transformer. Raises Misfit."""
    attention = any(".attn." in name for name in weights)
    needed = ["embed.W_E", "blocks.0.attn.W_Q" if attention else "blocks.0.mlp.W_in"]
    if lacking := [name for name in needed if name not in weights]:
        raise Misfit(f"{few(lacking)} is missing")
    return weights


def _one_precision(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """All in float32, or in float64 where any is: nothing is rounded."""
    broken = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if broken:
        raise Misfit(f"{few(broken)} hold NaN or infinity")
    kinds = sorted({str(weight.dtype).removeprefix("torch.") for weight in weights.values()})
    chosen = "float64" if "float64" in kinds else "float32"
    notes = () if kinds in ([], ["float32"]) else (f"The weights are {', '.join(kinds)}; they are read as {chosen}.",)
    return {name: weight.to(getattr(torch, chosen)) for name, weight in weights.items()}, notes


def _fit(found: Mapping[str, Tensor], layout: str, notes: tuple[str, ...]) -> Candidate:
    query = found.get("blocks.0.attn.W_Q")
    n_heads = None if query is None or not query.ndim else query.shape[0]
    weights = {name: turn(name, tensor, layout, n_heads=n_heads) for name, tensor in found.items()}
    weights, more = _without_empty_biases(weights)
    arch = _architecture(weights)
    wanted = arch.weight_shapes()
    missing = {name: torch.zeros(wanted[name]) for name in wanted if ".b_" in name and name not in weights}
    weights |= {name: zeros.to(weights["embed.W_E"]) for name, zeros in missing.items()}
    odd = [
        f"{name} should be {_shape(wanted.get(name))}, is {_shape(weights[name].shape if name in weights else None)}"
        for name in wanted | weights
        if name not in weights or wanted.get(name) != tuple(weights[name].shape)
    ]
    if odd:
        raise Misfit("; ".join(odd[:3]) + (f" and {len(odd) - 3} more" if len(odd) > 3 else "") + ", in our axes")
    return Candidate(arch, {name: weights[name] for name in wanted}, {"layout": layout}, (*notes, *more))


def _without_empty_biases(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Drop all-zero biases of attention and unembedding, which TransformerLens always writes."""
    groups = {"attention": (".b_Q", ".b_K", ".b_V", ".b_O"), "unembedding": (".b_U",)}
    notes, empty = [], set()
    for what, endings in groups.items():
        biases = [name for name in weights if name.endswith(endings)]
        if biases and not any(weights[name].any() for name in biases):
            notes.append(f"The biases of the {what} are all zero and are left out.")
            empty.update(biases)
    return {name: weight for name, weight in weights.items() if name not in empty}, tuple(notes)


def _architecture(weights: Mapping[str, Tensor]) -> Architecture:
    """The Architecture with weights of these names and sizes. Raises Misfit."""
    leaves = {name.rpartition(".")[2] for name in weights}
    attention, mlp = "blocks.0.attn.W_Q" in weights, "blocks.0.mlp.W_in" in weights
    vocab, d_model = weights["embed.W_E"].shape
    sizes: dict[str, Any] = {}
    n_ctx = len(weights["pos_embed.W_pos"]) if "pos_embed.W_pos" in weights else 3  # rotary: no weight shows it
    if attention:
        sizes["n_heads"], _, sizes["d_head"] = weights["blocks.0.attn.W_Q"].shape
    if mlp:
        width, sizes["d_mlp"] = weights["blocks.0.mlp.W_in"].shape
        n_ctx = n_ctx if attention else 1 + width // d_model
    try:
        return Architecture(
            d_vocab=vocab,
            d_vocab_out=_answers(weights),
            n_ctx=n_ctx,
            n_layers=1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks.")),
            d_model=d_model,
            act="swiglu" if "W_gate" in leaves else "relu",
            norm="none" if "w" not in leaves else "layernorm" if "b" in leaves else "rmsnorm",
            positions="learned" if "W_pos" in leaves or not attention else "rotary",
            attn_bias=bool(leaves & {"b_Q", "b_K", "b_V", "b_O"}),
            mlp_bias=bool(leaves & {"b_in", "b_out"}) or not mlp,
            unembed_bias="b_U" in leaves,
            tied="unembed.W_U" not in weights,
            attention=attention,
            mlp=mlp,
            **sizes,
        )
    except BadConfig as error:
        raise Misfit(str(error)) from error


def _answers(weights: Mapping[str, Tensor]) -> int:
    """The number of output classes; with tied weights, the number of tokens."""
    if "unembed.W_U" in weights:
        return weights["unembed.W_U"].shape[1]
    return len(weights.get("unembed.b_U", weights["embed.W_E"]))


def _published_norms(candidate: Candidate) -> list[Candidate]:
    """Norms of the published code, never called as released. If called, they divide by the unbiased deviation + 1e-4.

    The gain absorbs the difference from our LayerNorm up to the epsilon, sqrt((d - 1) / d).
    """
    arch, weights = candidate.arch, candidate.weights
    bare = {name: weight for name, weight in weights.items() if not _is_norm(name)}
    gain = {name: w * (1 - 1 / len(w)) ** 0.5 for name, w in weights.items() if _is_norm(name) and name.endswith(".w")}
    unused = candidate._replace(arch=replace(arch, norm="none"), weights=bare)
    return [
        unused._replace(choices={**candidate.choices, "norm": "there but not used, as released"}),
        candidate._replace(weights={**weights, **gain}, choices={**candidate.choices, "norm": "layernorm"}),
    ]


def _is_norm(name: str) -> bool:
    return name.endswith((".w", ".b"))


def _norms(candidate: Candidate) -> list[Candidate]:
    """TransformerLens folds a norm's weights (LNPre, RMSPre): then only a run shows whether there is a norm."""
    arch, choices = candidate.arch, candidate.choices
    if "norm" in choices or arch.norm != "none" or choices["layout"] != LENS:
        return [candidate._replace(choices={"norm": arch.norm, **choices})]
    found = [candidate._replace(choices={**choices, "norm": "none"})]
    for norm in ("layernorm", "rmsnorm"):
        normed = replace(arch, norm=norm)
        shapes = {name: shape for name, shape in normed.weight_shapes().items() if name not in candidate.weights}
        plain = {name: torch.full(shape, float(name.endswith(".w"))) for name, shape in shapes.items()}
        plain = {name: tensor.to(candidate.weights["embed.W_E"]) for name, tensor in plain.items()}
        weights = {name: {**candidate.weights, **plain}[name] for name in normed.weight_shapes()}
        found.append(candidate._replace(arch=normed, weights=weights, choices={**choices, "norm": f"{norm}, folded"}))
    return found


def _gates(candidate: Candidate) -> list[Candidate]:
    """TransformerLens adds b_in after the gate; here that is the same as a part of b_out."""
    gated = candidate.arch.act == "swiglu" and candidate.arch.mlp_bias
    inner = {name: w for name, w in candidate.weights.items() if name.endswith(".b_in")}
    if not gated or not any(w.any() for w in inner.values()):
        return [candidate]
    moved = dict(candidate.weights)
    for name, b_in in inner.items():
        block = name.removesuffix("b_in")
        moved[name] = torch.zeros_like(b_in)
        moved[f"{block}b_out"] = moved[f"{block}b_out"] + b_in @ moved[f"{block}W_out"]
    before, after = ({**candidate.choices, "b_in": where} for where in ("before the gate", "behind the gate"))
    return [candidate._replace(choices=before), candidate._replace(weights=moved, choices=after)]


def _acts(candidate: Candidate, wanted: str | None) -> list[Candidate]:
    arch = candidate.arch
    if not arch.mlp:
        return [candidate]
    possible = ("swiglu",) if arch.act == "swiglu" else tuple(ACTIVATIONS)
    if wanted is not None and wanted not in possible:
        raise BadConfig(
            f"Asked for the activation {wanted!r}. These weights allow {', '.join(possible)}. Choose of them."
        )
    guessed = possible if arch.act == "swiglu" else GUESSED_ACTS
    return [
        candidate._replace(arch=replace(arch, act=act), choices={**candidate.choices, "act": act})
        for act in ((wanted,) if wanted else guessed)
    ]


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(list(shape))


def _unreadable(tensors: Mapping[str, Tensor], misfits: Mapping[str, str]) -> UnreadableWeights:
    reasons = "\n".join(f"  {what}: {why}." for what, why in misfits.items())
    layouts = "\n".join(f"  {layout}: {expected(layout)}" for layout in LAYOUTS)
    return UnreadableWeights(
        f"Asked to read the weights of a small transformer. Found these keys and shapes:\n{found_in(tensors)}\n"
        f"{reasons}\nExpected, for layers i = 0, 1 .., one of\n{layouts}\n"
        "Rename and transpose them accordingly, or train with a known layout."
    )
