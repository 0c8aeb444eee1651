"""The small transformer: a decoder with every Site, and no state but its weights.

`forward` is a pure function of weights and tokens (so `torch.func` may run many at once); `Transformer` binds weights
to the Model protocol. `architecture` defines the weights; `weights` initialises and views them. The faster plan for one
layer read at its last position is in `last_position`.
Suffixes: B batch, P pos, Q query, K key, H head, E d_head, D d_model, M neuron, V vocab.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.edits import Edit
from micrographia.core.errors import BadShape, UserError
from micrographia.core.model import (
    SILENT,
    LogitsAt,
    ModelShape,
    Output,
    Readout,
    Start,
    Stopped,
    Tap,
    check_ids,
    check_readout,
    described,
    run_tapped,
    selected,
    span,
)
from micrographia.core.sites import Site, SiteLike
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.weights import Weights, WeightViews, unembedding
from micrographia.core.tokens import (
    Inputs,
    Tokenizer,
    ids_of,
    mask_of,
    read_inputs,
    single_token,
    to_str_tokens,
    to_tokens,
)

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
    "square": torch.square,
}
NORM_EPS = 1e-5
ROTARY_BASE = 10_000.0


def forward(
    arch: Architecture,
    weights: Weights,
    tokens: Int[Tensor, "batch pos"],
    *,
    tap: Tap = SILENT,
    start: Start | None = None,
    stop: int | None = None,
    last: bool = False,
    readout: LogitsAt = "all",
) -> Float[Tensor, "batch at vocab"]:
    """Logits at the positions and tokens of `readout`. Raises Stopped before layer `stop`, as the Tap does at the end
    of a run.

    With `last`, everything after the last layer's attention, Sites included, is computed at the last position only.
    Cost: one pass; about 2 FLOPs per weight and position.
    """
    x = _embed(arch, weights, tokens, tap) if start is None else start.residual
    for i in range(start.layer if start else 0, arch.n_layers if stop is None else stop):
        x = tap("resid_pre", i, x)
        if arch.attention:
            x = x + tap("attn_out", i, _attention(arch, weights, i, x, tap, start))
            x = tap("resid_mid", i, x[:, -1:] if last and i == arch.n_layers - 1 else x)
        if arch.mlp:
            y = tap("mlp_out", i, _mlp(arch, weights, i, x, tap))
            x = x + y if arch.skips_first or i else y
        x = tap("resid_post", i, x)
    if stop is not None:
        raise Stopped
    x = _norm(arch, weights, "ln_final", x, tap, "final_norm", None)
    if tap.keeps("logits", None) or tap.changes("logits", None):
        return selected(tap("logits", None, _unembed(arch, weights, x)), readout)
    if isinstance(readout, Readout):
        W_U, b_U = unembedding(arch, weights), weights.get("unembed.b_U")
        chosen = torch.einsum("bd,dbn->bn", x[:, readout.pos], W_U[:, readout.tokens])[:, None]
        return chosen if b_U is None else chosen + b_U[readout.tokens][:, None]
    return _unembed(arch, weights, selected(x, readout))


def _unembed(arch: Architecture, weights: Weights, x: Tensor) -> Tensor:
    logits = x @ unembedding(arch, weights)
    return logits + weights["unembed.b_U"] if arch.unembed_bias else logits


def _embed(arch: Architecture, weights: Weights, tokens: Tensor, tap: Tap) -> Tensor:
    x_BPD = tap("embed", None, weights["embed.W_E"][tokens])
    if not arch.attention:
        return x_BPD[:, :-1].sum(1, keepdim=True) if arch.joined == "summed" else x_BPD[:, :-1].flatten(1)[:, None]
    if arch.positions == "learned":
        where = weights["pos_embed.W_pos"][: tokens.shape[1]].expand(x_BPD.shape)
        where = where.clone() if tap.keeps("pos_embed", None) else where  # else the weights themselves would be kept
        x_BPD = x_BPD + tap("pos_embed", None, where)
    return x_BPD


def _attention(arch: Architecture, weights: Weights, i: int, x: Tensor, tap: Tap, start: Start | None) -> Tensor:
    """Causal multi-head attention (Vaswani et al. 2017, section 3.2); with an offset, also to the cached keys."""
    block = f"blocks.{i}.attn."
    x = _norm(arch, weights, f"blocks.{i}.ln1", x, tap, "attn_norm", i)
    q, k, v = (
        tap(name, i, _heads(x, weights[f"{block}W_{name.upper()}"], weights.get(f"{block}b_{name.upper()}")))
        for name in "qkv"
    )
    offset = start.offset if start else 0
    if arch.positions == "rotary":
        q, k = tap("rot_q", i, rotate(q, offset)), tap("rot_k", i, rotate(k, offset))
    if start and offset:
        times = (len(x) // len(start.past[i].keys), 1, 1, 1)
        k, v = (torch.cat([old.repeat(times), new], 1) for old, new in zip(start.past[i], (k, v)))
    scores_BHQK = torch.einsum("bqhe,bkhe->bhqk", q, k) / arch.d_head**0.5
    ahead = torch.ones(scores_BHQK.shape[-2:], dtype=torch.bool, device=x.device).triu(1 + offset)
    scores_BHQK = tap("scores", i, scores_BHQK.masked_fill(ahead, -torch.inf))
    pattern_BHQK = tap("pattern", i, scores_BHQK.softmax(-1))
    z_BPHE = tap("z", i, torch.einsum("bhqk,bkhe->bqhe", pattern_BHQK, v))
    W_O = weights[f"{block}W_O"]
    out = z_BPHE.flatten(2) @ W_O.flatten(0, 1)
    if tap.changes("result", i):
        out = tap("result", i, torch.einsum("bphe,hed->bphd", z_BPHE, W_O)).sum(2)
    elif tap.keeps("result", i):  # off the path, so that keeping it changes no bit of the output
        tap("result", i, torch.einsum("bphe,hed->bphd", z_BPHE, W_O))
    return out + weights[f"{block}b_O"] if arch.attn_bias else out


def _heads(x_BPD: Tensor, W_HDE: Tensor, b_HE: Tensor | None) -> Tensor:
    out = torch.einsum("bpd,hde->bphe", x_BPD, W_HDE)
    return out if b_HE is None else out + b_HE


def _mlp(arch: Architecture, weights: Weights, i: int, x: Tensor, tap: Tap) -> Tensor:
    block = f"blocks.{i}.mlp."
    x = _norm(arch, weights, f"blocks.{i}.ln2", x, tap, "mlp_norm", i)
    pre = x @ weights[block + "W_in"]
    pre = pre + weights[block + "b_in"] if arch.mlp_bias else pre
    if arch.act == "swiglu":  # Shazeer (2020), "GLU variants improve transformer"
        gate = tap("mlp_pre", i, x @ weights[block + "W_gate"])
        h = tap("mlp_up", i, pre) * F.silu(gate)
    else:
        h = ACTIVATIONS[arch.act](tap("mlp_pre", i, pre))
    h = tap("neurons", i, h)
    out = h @ weights[block + "W_out"]
    return out + weights[block + "b_out"] if arch.mlp_bias else out


def _norm(arch: Architecture, weights: Weights, name: str, x: Tensor, tap: Tap, kind: str, layer: int | None) -> Tensor:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019); without a norm, x itself and no Site."""
    if arch.norm == "none":
        return x
    centred = x - x.mean(-1, keepdim=True) if arch.norm == "layernorm" else x
    scale = tap(f"{kind}_scale", layer, (centred.pow(2).mean(-1, keepdim=True) + NORM_EPS).sqrt())
    y = centred / scale * weights[name + ".w"]
    return tap(kind, layer, y + weights[name + ".b"] if arch.norm == "layernorm" else y)


def rotate(x_BPHE: Float[Tensor, "batch pos head d_head"], offset: int = 0) -> Float[Tensor, "batch pos head d_head"]:
    """Rotary positions from `offset` on (Su et al. 2021, eq. 34), halves paired as in GPT-NeoX."""
    half = x_BPHE.shape[-1] // 2
    rate = ROTARY_BASE ** (-torch.arange(half, device=x_BPHE.device, dtype=x_BPHE.dtype) / half)
    places = torch.arange(offset, offset + x_BPHE.shape[1], device=x_BPHE.device, dtype=x_BPHE.dtype)
    angle = places[:, None, None] * rate
    left, right = x_BPHE[..., :half], x_BPHE[..., half:]
    return torch.cat([left * angle.cos() - right * angle.sin(), right * angle.cos() + left * angle.sin()], -1)


class Transformer:
    """A small transformer as a Model: architecture and weights, no other state."""

    def __init__(self, arch: Architecture, weights: Weights, tokenizer: Tokenizer | None = None) -> None:
        wanted = arch.weight_shapes()
        found = {name: tuple(weight.shape) for name, weight in weights.items()}
        if wanted != found:
            odd = {name: (wanted.get(name), found.get(name)) for name in wanted | found}
            odd = {name: pair for name, pair in odd.items() if pair[0] != pair[1]}
            raise BadShape(f"These weights do not fit the architecture (name: wanted, found): {odd}.")
        self.arch = arch
        self.state: Weights = dict(weights)
        self.tokenizer = tokenizer

    def __repr__(self) -> str:
        return described("Transformer", self.shape, len(self.sites))

    @property
    def shape(self) -> ModelShape:
        return self.arch.shape

    @property
    def fused(self) -> "Transformer":
        """See `Model`: the model itself, which has no faster kernels."""
        return self

    @property
    def weights(self) -> WeightViews:
        return WeightViews(self.arch, self.state)

    @property
    def sites(self) -> tuple[Site, ...]:
        arch = self.arch
        normed = arch.norm != "none"
        found = [Site("embed"), *([Site("pos_embed")] if "pos_embed.W_pos" in self.state else [])]
        attention = ("q", "k", "v", "scores", "pattern", "z", "result", "attn_out", "resid_mid")
        mlp = ("mlp_pre", *(("mlp_up",) if arch.act == "swiglu" else ()), "neurons", "mlp_out")
        for i in range(arch.n_layers):
            found.append(Site("resid_pre", i))
            if arch.attention:
                found += [Site(kind, i) for kind in ("attn_norm_scale", "attn_norm") if normed]
                found += [Site(kind, i) for kind in attention[:3]]
                found += [Site(kind, i) for kind in ("rot_q", "rot_k") if arch.positions == "rotary"]
                found += [Site(kind, i) for kind in attention[3:]]
            if arch.mlp:
                found += [Site(kind, i) for kind in ("mlp_norm_scale", "mlp_norm") if normed]
                found += [Site(kind, i) for kind in mlp]
            found.append(Site("resid_post", i))
        return (*found, *([Site("final_norm_scale"), Site("final_norm")] if normed else []), Site("logits"))

    def run(
        self,
        inputs: Inputs | str | Sequence[str],
        *,
        keep: SiteLike | Iterable[SiteLike] = (),
        edits: Sequence[Edit] = (),
        logits: LogitsAt = "all",
        grad: bool = False,
        start: Start | None = None,
        stop: int | Site | None = None,
    ) -> Output:
        """Run tokens or texts, keep Sites, apply edits. Only the requested logits are computed, unless their Site is
        kept or edited; "all" and a selection of positions agree up to rounding.

        Errors: UserError for tokens outside the vocabulary or too long, padding, and layers that do not exist;
        UnknownSite; BadEdit.
        """
        inputs = read_inputs(inputs, self.to_tokens)
        ids = ids_of(inputs)
        check_ids(ids, self.shape)
        if not self.arch.attention and ids.shape[1] != self.arch.n_ctx:
            raise UserError(f"An MLP over {self.arch.joined} tokens reads {self.arch.n_ctx}. Found {ids.shape[1]}.")
        if mask_of(inputs) is not None:
            raise UserError("Padded prompts were given; this small transformer has no padding. Group them by length.")
        span(self, start, stop)
        check_readout(logits, ids.shape[1] - (start.offset if start else 0))
        site, end = (stop, None) if isinstance(stop, Site) else (None, stop)
        with torch.set_grad_enabled(grad):
            return run_tapped(
                self.sites,
                lambda tap: forward(self.arch, self.state, ids, tap=tap, start=start, stop=end, readout=logits),
                keep,
                edits,
                grad=grad,
                end=site,
            )

    def to_tokens(self, texts: str | Sequence[str], *, prepend_bos: bool | None = None) -> Inputs:
        """See `core.tokens.to_tokens`."""
        return to_tokens(self.tokenizer, texts, prepend_bos=prepend_bos)

    def to_str_tokens(self, ids: Sequence[int] | Int[Tensor, "pos"]) -> list[str]:
        """See `core.tokens.to_str_tokens`."""
        return to_str_tokens(self.tokenizer, ids)

    def single_token(self, text: str, *, first: bool = False) -> int:
        """See `core.tokens.single_token`."""
        return single_token(self.tokenizer, text, first=first)

    def unembed(self, residual: Float[Tensor, "*at d_model"]) -> Float[Tensor, "*at vocab"]:
        """The logits of this residual stream: the final norm and the unembedding (the logit lens)."""
        x = _norm(self.arch, self.state, "ln_final", residual, SILENT, "final_norm", None)
        return _unembed(self.arch, self.state, x)
