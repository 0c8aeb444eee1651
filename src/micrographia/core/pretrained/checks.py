"""Checks of a Hugging Face model: that it can be run as it is, and that its family's row fits.

The row is compared with a probe run of one token, the first time that a kind of Site is used. Every Site of the kind
must be reached exactly once, with the shape of its axes; heads must add up to the attention output, writers to the
residual stream, a pattern's row to one. A mismatch raises an error before there is any result. Cost: one forward pass
of one token for each new set of kinds.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from micrographia.core.errors import UnknownModel, UserError
from micrographia.core.events import Note, Watch
from micrographia.core.model import Tap
from micrographia.core.pretrained.modules import Body
from micrographia.core.pretrained.weights import bias_of, gain_of, results
from micrographia.core.sites import Site

STREAM = frozenset({"resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"})
HEADS = frozenset({"z", "result", "attn_raw", "attn_out"})
EMBEDDING = frozenset({"embed", "pos_embed", "resid_pre"})
PAIRS = frozenset({"scores", "pattern"})
VALUES = frozenset({"v", "z"})
ROTARY = frozenset({"q", "k", "rot_q", "rot_k"})
NORMS = {  # a norm, and the residual stream that it reads where the blocks are sequential
    "attn_norm": "resid_pre",
    "mlp_norm": "resid_mid",
    "final_norm": "resid_post",
}
EXPERTS = frozenset({"router_probs", "expert_out", "mlp_out"})
GROUPS = (STREAM, HEADS, EMBEDDING, PAIRS, VALUES, ROTARY)
GROUPS += tuple(frozenset({name, f"{name}_scale", read, "resid_pre"}) for name, read in NORMS.items())
CPU = torch.device("cpu")
DYNAMIC = "torch.ao.nn.quantized.dynamic"
FIX = "Correct the row in micrographia/core/pretrained/families.py."


class Probe(Tap):
    """A Tap that keeps every value and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[Site, list[Tensor]] = {}

    def __call__(self, kind: str, layer: int | None, value: Tensor) -> Tensor:
        self.found.setdefault(Site(kind, layer), []).append(value.detach())
        return value


def needed_for(body: Body, kinds: Iterable[str]) -> tuple[Site, ...]:
    """The Sites that a probe of these kinds needs: these and the ones they are computed from."""
    asked = frozenset(kinds)
    wanted = asked.union(*(group for group in GROUPS if asked & group))
    wanted = wanted.union(EXPERTS if "expert_out" in asked else ())
    wanted -= {"result"} - asked  # large, and unavailable for quantised weights
    return tuple(site for site in body.sites if site.kind in wanted)


def check(body: Body, sites: Iterable[Site], found: Mapping[Site, list[Tensor]], *, sums: bool = True) -> None:
    """Compare a probe's activations with what the Sites require. Raises UnknownModel.

    Without `sums`, check only how often and in which shape each was reached: a model with the user's hooks may compute
    something other than its family.
    """
    for site in sites:
        _check_reached(body, site, found.get(site, []))
    if not sums or body.family.stream_only:  # checked when it was found
        return
    whole = {site.kind: value[0] for site, value in found.items() if site.layer is None}
    last: Tensor | None = None
    for layer in range(body.shape.n_layers):
        own = device_of(body.layers[layer])  # hooks see a layer's input before it is moved to its device
        at = {site.kind: value[0].to(own) for site, value in found.items() if site.layer == layer}
        for test in (_check_heads, _check_stream, _check_attention, _check_norms, _check_experts):
            test(body, layer, at)
        if layer == 0:
            _check_embedding(body, whole | at)
        last = at.get("resid_post")
    if last is not None and "final_norm" in whole and not body.family.encoder:
        _check_norm(body, body.shape.n_layers - 1, "final_norm", whole, last)


def _check_embedding(body: Body, at: Mapping[str, Tensor]) -> None:
    if "embed" in at and not body.family.post_ln:
        parts = [at[kind] for kind in ("embed", "pos_embed") if kind in at]
        _differs(body, 0, "resid_pre", at["resid_pre"], torch.stack(parts).sum(0))


def _check_norms(body: Body, layer: int, at: Mapping[str, Tensor]) -> None:
    for kind in ("attn_norm", "mlp_norm"):
        if kind in at:
            _check_norm(body, layer, kind, at, at["resid_pre" if body.family.parallel else NORMS[kind]])


def _check_norm(body: Body, layer: int, kind: str, at: Mapping[str, Tensor], x: Tensor) -> None:
    """The norm's output must follow from its input, scale, gain and bias."""
    path = getattr(body.family, kind)
    module = body.part(path, None if kind == "final_norm" else layer)
    x = x.to(at[kind].device)
    centred = x - x.mean(-1, keepdim=True) if body.family.norm.kind == "layernorm" else x
    try:
        gain, bias = gain_of(body, module), bias_of(body, module)
    except UserError:  # a wrapped norm
        return
    wanted = centred / at[f"{kind}_scale"] * (1.0 if gain is None else gain)
    _differs(body, layer, kind, at[kind], wanted if bias is None else wanted + bias)


def _check_attention(body: Body, layer: int, at: Mapping[str, Tensor]) -> None:
    """A single token attends to itself, at position 0, where rotary turns nothing: it stretches at most."""
    if at.keys() >= VALUES and not body.family.sinks:
        _differs(body, layer, "z", at["z"], at["v"].repeat_interleave(body.shape.group, 2))
    for name in ("q", "k"):
        if f"rot_{name}" in at and name in at:
            _differs(body, layer, f"rot_{name}", at[f"rot_{name}"], _stretched(body, at[name], at[f"rot_{name}"]))
    if at.keys() >= PAIRS and not body.family.sinks:
        pattern = at["pattern"]
        _differs(body, layer, "pattern, summed over keys,", pattern.sum(-1), torch.ones_like(pattern[..., 0]))


def _stretched(body: Body, value: Tensor, like: Tensor) -> Tensor:
    """q or k times a scale of the model's rotary tables, in each component the one that comes nearest to `like`.

    YaRN and LongRoPE scale what they turn (Peng et al. 2023, section 3.4), which need not be every component of a head.
    """
    found = (vars(module) for module in body.module.modules())
    scales = {1.0}.union(v for named in found for key, v in named.items() if key.endswith("attention_scaling"))
    each = torch.stack([value * scale for scale in scales])
    return each.gather(0, (each - like).abs().argmin(0, keepdim=True))[0]


def _check_experts(body: Body, layer: int, at: Mapping[str, Tensor]) -> None:
    """The experts' parts must add up to the MLP's output, where there is no shared one beside them."""
    shared = body.find("mlp.shared_expert", layer) is not None
    if {"expert_out", "mlp_out"} <= at.keys() and not shared:
        _differs(body, layer, "mlp_out", at["mlp_out"], at["expert_out"].sum(2))


def _check_reached(body: Body, site: Site, found: list[Tensor]) -> None:
    if len(found) != 1:
        hint = " Its attention does not use the function that the config names." if site.kind in PAIRS else ""
        raise UnknownModel(
            f"{site} was asked for; a probe of {type(body.module).__name__} reached it {len(found)} times, but the "
            f"row of {body.family.name} expects once.{hint} {FIX}"
        )
    wanted = shape_of(body, site)
    if tuple(found[0].shape) != wanted:
        raise UnknownModel(
            f"{site} was asked for, of shape {wanted} for one token by the row of {body.family.name}; a probe of "
            f"{type(body.module).__name__} found {tuple(found[0].shape)}. {FIX}"
        )


def shape_of(body: Body, site: Site) -> tuple[int, ...]:
    """The shape of this Site's value for one token."""
    shape = body.shape
    heads = shape.n_kv_heads if site.kind in ("k", "v", "rot_k") else shape.n_heads
    sizes = {"d_model": shape.d_model, "head": heads, "d_head": shape.d_head, "neuron": shape.d_mlp}
    sizes |= {"vocab": shape.d_vocab_out, "expert": body.n_experts}
    return tuple(sizes.get(axis, 1) for axis in site.axes)


def _check_heads(body: Body, layer: int, at: Mapping[str, Tensor]) -> None:
    """z W_O + b must be the attention output, before any norm that follows it."""
    given = "attn_raw" if Site("attn_raw", layer) in body.sites else "attn_out"
    if not {"z", given} <= at.keys():
        return
    try:
        added = results(body, at["z"].flatten(-2), layer).sum(-2)
        bias = bias_of(body, body.part(body.family.o, layer))
    except UserError:  # quantised, or with an adapter: there is no matrix to multiply with
        return
    _differs(body, layer, "z W_O + b", at[given], added if bias is None else added + bias)


def _check_stream(body: Body, layer: int, at: Mapping[str, Tensor]) -> None:
    """What layers write must add up to the residual stream (in a post-LN family, after the norm of each sum)."""
    if not {"resid_pre", "attn_out", "mlp_out", "resid_post"} <= at.keys():
        return
    if body.family.parallel:
        _differs(body, layer, "resid_post", at["resid_post"], at["resid_pre"] + at["attn_out"] + at["mlp_out"])
        return
    mid, post = at["resid_pre"] + at["attn_out"], at["resid_mid"] + at["mlp_out"]
    if body.family.post_ln:
        mid = body.part(body.family.attn_post_norm, layer).forward(mid)
        post = body.part(body.family.mlp_post_norm, layer).forward(post)
    _differs(body, layer, "resid_mid", at["resid_mid"], mid)
    _differs(body, layer, "resid_post", at["resid_post"], post)


def _differs(body: Body, layer: int, name: str, found: Tensor, wanted: Tensor) -> None:
    """Raise UnknownModel where two sides differ, in norm, by more than rounding explains."""
    wanted = wanted.to(found.device)
    if not (found.isfinite().all() and wanted.isfinite().all()):
        raise UserError(
            f"In layer {layer} of {type(body.module).__name__}, {name} is not finite: a weight is NaN or infinite, or "
            f"values overflow {str(found.dtype).removeprefix('torch.')}. Load another file of it, or in float32."
        )
    allowed = max(8 * torch.finfo(found.dtype).eps, 2e-3)
    difference = float((found - wanted).double().norm() / wanted.double().norm().clamp(min=1e-12))
    if not difference <= allowed:
        raise UnknownModel(
            f"In layer {layer} of {type(body.module).__name__}, {name} and the parts that {body.family.name}'s row "
            f"gives for it differ by {difference:.2g} (relative, in norm); rounding explains {allowed:.2g}. {FIX}"
        )


def examined(module: nn.Module, watch: Watch) -> nn.Module:
    """The module that runs will call: the given one, or the one inside `torch.compile`, which hooks can reach.

    Quantised modules and modules spread over devices are accepted. Raises UserError for a module compiled in place
    (which silently ignores hooks set afterwards) and for weights that are not on a device.
    """
    under = getattr(module, "_orig_mod", None)
    if isinstance(under, nn.Module):
        watch(Note("The compiled graph is not used: runs call the module that it was made from."))
        module = under
    _examine_adapters(module, watch)
    if any(type(part).__module__.startswith(DYNAMIC) for part in module.modules()):
        watch(
            Note(
                "The module is quantised dynamically: all rows of a batch share the scale of their activations, so a "
                "row's values depend on the others', also where many patches run as one batch."
            )
        )
    for name, part in module.named_modules():
        if _is_compiled(part):
            raise UserError(
                f"A module was given of which {name or 'the whole'!r} was compiled in place; hooks set now would be "
                "ignored there. Pass the model before it is compiled, or what `torch.compile(model)` returns."
            )
    if away := [name for name, parameter in module.named_parameters() if parameter.is_meta]:
        raise UserError(
            f"A module was given whose weights are off-loaded or not loaded ({away[0]} and {len(away) - 1} more). "
            "Load it onto devices: with device_map, or in a smaller dtype."
        )
    return module


def _examine_adapters(module: nn.Module, watch: Watch) -> None:
    """Tell of unmerged adapters inside, and refuse what peft wraps around a model: it may add virtual tokens."""
    if any(kind.__module__.split(".")[0] == "peft" for kind in type(module).__mro__):
        raise UserError(
            f"A {type(module).__name__} of peft was given, which wraps a model and its adapters. Merge first: pass the "
            "module that its `merge_and_unload()` gives, or `.get_base_model()` to observe the adapters unmerged."
        )
    wrapped = [name for name, part in module.named_modules() if "base_layer" in dict(part.named_children())]
    if wrapped:
        watch(
            Note(
                f"{len(wrapped)} modules hold unmerged adapters, such as {wrapped[0]}. Runs include them; what reads "
                "their weights is refused. Merge first for that: `merge_and_unload()`."
            )
        )


def _is_compiled(part: nn.Module) -> bool:
    marks = [getattr(part, name, None) for name in ("_compiled_call_impl", "_orig_mod")]
    return any(mark is not None for mark in [*marks, getattr(part.forward, "_torchdynamo_orig_callable", None)])


def check_dropout(module: nn.Module) -> None:
    """Raise UserError for a module that draws dropout, or that recomputes parts of itself (gradient checkpointing).

    Kept values and repeated runs would not agree; a layer under gradient checkpointing drops the keys it is given, and
    is recomputed without our hooks.
    """
    waiting: list[nn.Module] = [module]  # before every run, of a few layers too: `modules()` is thirty times as slow
    while waiting:
        part = waiting.pop()
        waiting += filter(None, part._modules.values())
        if not part.training:
            continue
        if getattr(part, "gradient_checkpointing", False):
            raise UserError(
                "The model is in training mode with gradient checkpointing, under which layers run again unseen. Call "
                "its `.eval()` first."
            )
        if any(rate > 0 for rate in _rates(part)):
            raise UserError(
                "The model is in training mode and draws dropout, so that no two runs are equal. Call its `.eval()` "
                "first."
            )


RATES = ("dropout", "attention_dropout", "activation_dropout", "layerdrop")
"""Attributes that hold the rate of dropout that is not a module of its own."""


def _rates(part: nn.Module) -> list[float]:
    own = [vars(part).get(name) for name in RATES]
    dropped = [part.p] if isinstance(part, nn.Dropout) else []
    return [*dropped, *(rate for rate in own if isinstance(rate, float))]


def has_hooks(module: nn.Module) -> bool:
    """Whether the module has any hooks, which may change what it computes."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's parameters; the CPU for one without any (dynamically quantised)."""
    return next((parameter.device for parameter in module.parameters()), CPU)
