"""What every family computes, written out plainly from its weights: the reference of the tests.

Nothing of the module's own forward is called but its rotary tables. `meet(kind, layer, value)` is handed every Site's
value and gives the one to go on with, as a Tap does.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import zoo
from torch import Tensor

from micrographia.core.pretrained import Pretrained

Meet = Callable[[str, int | None, Tensor], Tensor]
TRANSFORMS = {"bert": "cls.predictions.transform.dense", "roberta": "lm_head.dense", "distilbert": "vocab_transform"}
ACTS = {"gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu": "none"}


def unmet(kind: str, layer: int | None, value: Tensor) -> Tensor:
    return value


def forward(model: Pretrained, ids: Tensor, meet: Meet = unmet) -> Tensor:
    """The logits."""
    family, w, config = model.body.family, model.weights, model.body.config
    x = meet("embed", None, _embed(model, ids))
    if family.pos_embed:
        x = x + meet("pos_embed", None, w.W_pos[: ids.shape[1]].expand(len(ids), -1, -1))
    if family.encoder:
        table: Any = model.body.find(family.embed.rpartition(".")[0])
        kinds = getattr(table, "token_type_embeddings", None)
        x = _module_norm(table.LayerNorm, x if kinds is None else x + kinds.weight[0])
    for i in range(model.shape.n_layers):
        x = meet("resid_post", i, _layer(model, i, meet("resid_pre", i, x), meet))
    if family.encoder:
        before: Any = model.body.find(TRANSFORMS[config.model_type])
        x = F.gelu(F.linear(x, before.weight, before.bias))
    if model.body.find(family.final_norm) is not None:
        x = _norm(model, x, w.final_norm_w, w.final_norm_b, "final_norm", None, meet)
    if (projection := model.body.find(family.head_projection)) is not None:
        x = x @ projection.weight.T
    logits = x @ w.W_U + (0 if w.b_U is None else w.b_U)
    cap = getattr(config, "final_logit_softcapping", None)
    return meet("logits", None, logits if cap is None else cap * torch.tanh(logits / cap))


def _embed(model: Pretrained, ids: Tensor) -> Tensor:
    w = model.weights
    x = w.W_E[ids] * torch.tensor(w.embed_scale, dtype=w.W_E.dtype)
    projection = model.body.find(model.body.family.embed_projection)
    if isinstance(projection, torch.nn.LayerNorm):
        return _module_norm(projection, x)
    return x if projection is None else x @ projection.weight.T


def _layer(model: Pretrained, i: int, x: Tensor, meet: Meet) -> Tensor:
    family, w = model.body.family, model.weights
    y = _norm(model, x, w.attn_norm_w[i], w.attn_norm_b[i], "attn_norm", i, meet) if family.attn_norm else x
    added = _attention(model, i, y, meet)
    if family.attn_post_norm and not family.post_ln:
        added = _plain_norm(model, meet("attn_raw", i, added), w.attn_post_norm_w[i], None)
    added = meet("attn_out", i, added)
    if family.parallel:
        return x + added + _mlp(model, i, x if family.mlp_norm else y, meet)
    x = x + added
    x = _plain_norm(model, x, w.attn_post_norm_w[i], w.attn_post_norm_b[i]) if family.post_ln else x
    x = meet("resid_mid", i, x)
    x = x + _mlp(model, i, x, meet)
    return _plain_norm(model, x, w.mlp_post_norm_w[i], w.mlp_post_norm_b[i]) if family.post_ln else x


def _attention(model: Pretrained, i: int, x: Tensor, meet: Meet) -> Tensor:
    w, config, family = model.weights, model.body.config, model.body.family
    q, k, v = (
        torch.einsum("bpd,hde->bphe", x, W[i]) + (0 if b[i] is None else b[i])
        for W, b in ((w.W_Q, w.b_Q), (w.W_K, w.b_K), (w.W_V, w.b_V))
    )
    own = model.body.part(family.attn, i)
    if getattr(own, "q_norm", None) is not None:
        q, k = (_head_norm(model, y, norm) for y, norm in ((q, own.q_norm), (k, own.k_norm)))
    q, k, v = meet("q", i, q), meet("k", i, k), meet("v", i, v)
    if family.rotary:
        q, k = _rotate(model, i, q, k)
        q, k = meet("rot_q", i, q), meet("rot_k", i, k)
    groups = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)
    scores = torch.einsum("bqhe,bkhe->bhqk", q, k) * _scaling(model, i)
    cap = getattr(config, "attn_logit_softcapping", None)
    scores = scores if cap is None else cap * torch.tanh(scores / cap)
    scores = scores + _alibi(model, x.shape[1])
    scores = meet("scores", i, scores.masked_fill(~_allowed(model, i, x.shape[1]), torch.finfo(x.dtype).min))
    pattern = meet("pattern", i, _softmax(scores, getattr(own, "sinks", None)))
    z = meet("z", i, torch.einsum("bhqk,bkhe->bqhe", pattern, v))
    result = meet("result", i, torch.einsum("bphe,hed->bphd", z, w.W_O[i]))
    return result.sum(2) + (0 if w.b_O[i] is None else w.b_O[i])


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    if sinks is None:
        return scores.softmax(-1)
    whole = scores.exp().sum(-1, keepdim=True) + sinks.exp()[:, None, None]
    return scores.exp() / whole


def _alibi(model: Pretrained, length: int) -> Tensor | float:
    """Press et al., "Train Short, Test Long" (2022), section 3: slopes 2^(-8/n), 2^(-16/n) ...; up to a constant."""
    if model.body.config.model_type != "bloom":
        return 0.0
    n_heads = model.shape.n_heads
    slopes = torch.tensor([2 ** (-8 * (head + 1) / n_heads) for head in range(n_heads)])
    return slopes[None, :, None, None] * torch.arange(length)


def _scaling(model: Pretrained, i: int) -> float:
    config = model.body.config
    if config.model_type == "gpt_neo":
        return 1.0
    scale = getattr(config, "query_pre_attn_scalar", model.shape.d_head) ** -0.5
    return scale / (i + 1) if getattr(config, "scale_attn_by_inverse_layer_idx", False) else scale


def _allowed(model: Pretrained, i: int, length: int) -> Tensor:
    config = model.body.config
    here = torch.arange(length)
    back = here[:, None] - here
    if model.body.family.encoder:
        return back > -length
    types = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)
    local = (
        types[i] in ("sliding_attention", "local")
        if types
        else config.model_type in ("mistral", "mixtral") and config.sliding_window is not None
    )
    return (back >= 0) & (back < zoo.WINDOW) if local else back >= 0


def _rotate(model: Pretrained, i: int, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    if model.body.config.model_type == "gptj":
        return _turned(q, model.body.config.rotary_dim), _turned(k, model.body.config.rotary_dim)
    if model.body.config.model_type == "phi":
        n = model.shape.d_head // 2
        turned = _rotate_all(model, i, q[..., :n], k[..., :n])
        return torch.cat([turned[0], q[..., n:]], -1), torch.cat([turned[1], k[..., n:]], -1)
    return _rotate_all(model, i, q, k)


def _turned(x: Tensor, n: int) -> Tensor:
    """Neighbouring pairs of the first n units turned together, as complex numbers."""
    frequencies = 10_000.0 ** (-torch.arange(0, n, 2) / n)
    angles = torch.arange(x.shape[1])[:, None] * frequencies
    pairs = torch.view_as_complex(x[..., :n].unflatten(-1, (-1, 2)).contiguous())
    turned = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat([torch.view_as_real(turned).flatten(-2).to(x.dtype), x[..., n:]], -1)


def _rotate_all(model: Pretrained, i: int, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    inner: Any = model.body.find(model.body.family.layers.rpartition(".")[0])
    places = torch.arange(q.shape[1])[None]
    types = getattr(model.body.config, "layer_types", None)
    several = [types[i]] if model.body.config.model_type == "gemma3_text" else []
    cos, sin = inner.rotary_emb(q, places, *several)
    turn = sys.modules[type(model.body.part(model.body.family.attn, i)).__module__].apply_rotary_pos_emb
    return turn(q, k, cos, sin, unsqueeze_dim=2)


def _head_norm(model: Pretrained, x: Tensor, norm: Any) -> Tensor:
    gain = norm.weight.detach() + model.body.family.norm.offset
    whole = gain.shape[0] != x.shape[-1]
    y = _plain_norm(model, x.flatten(2) if whole else x, gain, None)
    return y.view_as(x)


def _mlp(model: Pretrained, i: int, x: Tensor, meet: Meet) -> Tensor:
    family, w, config = model.body.family, model.weights, model.body.config
    y = _norm(model, x, w.mlp_norm_w[i], w.mlp_norm_b[i], "mlp_norm", i, meet) if family.mlp_norm else x
    if model.body.has_experts(i):
        return _experts(model, i, y, meet)
    pre = y @ w.W_in[i] + (0 if w.b_in[i] is None else w.b_in[i])
    if family.gate:
        up = meet("mlp_up", i, pre)
        pre = meet("mlp_pre", i, y @ w.W_gate[i] + (0 if w.b_gate[i] is None else w.b_gate[i]))
        h = _act(config, pre) * up
    else:
        h = _act(config, meet("mlp_pre", i, pre))
    out = meet("neurons", i, h) @ w.W_out[i] + (0 if w.b_out[i] is None else w.b_out[i])
    if family.mlp_post_norm and not family.post_ln:
        out = _plain_norm(model, meet("mlp_raw", i, out), w.mlp_post_norm_w[i], None)
    return meet("mlp_out", i, out)


def _experts(model: Pretrained, i: int, y: Tensor, meet: Meet) -> Tensor:
    config, block = model.body.config, model.body.find(model.body.family.mlp, i)
    router, experts = model.body.find(model.body.family.router, i), block.experts
    logits = meet("router_logits", i, y @ router.weight.T + getattr(router, "bias", 0))
    chosen = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, logits.topk(2, -1).indices, True)
    if config.model_type == "gpt_oss":
        probs = logits.masked_fill(~chosen, -torch.inf).softmax(-1)
    else:
        probs = logits.softmax(-1) * chosen
        probs = probs / probs.sum(-1, keepdim=True) if getattr(config, "norm_topk_prob", True) else probs
    probs = torch.where(chosen, meet("router_probs", i, probs), 0)
    outs = [_expert(config, experts, x, y) for x in range(logits.shape[-1])]
    out = meet("expert_out", i, torch.stack(outs, 2) * probs[..., None]).sum(2)
    if config.model_type == "qwen2_moe":
        out = out + torch.sigmoid(block.shared_expert_gate(y)) * block.shared_expert(y)
    return meet("mlp_out", i, out)


def _expert(config: Any, experts: Any, x: int, y: Tensor) -> Tensor:
    if config.model_type == "gpt_oss":
        both = y @ experts.gate_up_proj[x] + experts.gate_up_proj_bias[x]
        gate, up = both[..., ::2].clamp(max=config.swiglu_limit), both[..., 1::2]
        h = (up.clamp(-config.swiglu_limit, config.swiglu_limit) + 1) * gate * torch.sigmoid(config.swiglu_alpha * gate)
        return h @ experts.down_proj[x] + experts.down_proj_bias[x]
    gate, up = (y @ experts.gate_up_proj[x].T).chunk(2, -1)
    return (F.silu(gate) * up) @ experts.down_proj[x].T


def _act(config: Any, x: Tensor) -> Tensor:
    names = ("activation_function", "hidden_activation", "hidden_act", "activation")
    name = next((getattr(config, name) for name in names if getattr(config, name, None)), "gelu_new")  # BLOOM's
    return {"silu": F.silu, "relu": F.relu}[name](x) if name not in ACTS else F.gelu(x, approximate=ACTS[name])


def _norm(
    model: Pretrained, x: Tensor, gain: Tensor | None, bias: Tensor | None, kind: str, layer: int | None, meet: Meet
) -> Tensor:
    centred, scale = _centred(model, x)
    y = centred / meet(f"{kind}_scale", layer, scale) * (1 if gain is None else gain)
    return meet(kind, layer, y if bias is None else y + bias)


def _plain_norm(model: Pretrained, x: Tensor, gain: Tensor, bias: Tensor | None) -> Tensor:
    centred, scale = _centred(model, x)
    return centred / scale * gain + (0 if bias is None else bias)


def _module_norm(norm: Any, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)


def _centred(model: Pretrained, x: Tensor) -> tuple[Tensor, Tensor]:
    config = model.body.config
    names = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon")
    fixed = 1e-12 if config.model_type == "distilbert" else 1e-5
    eps = next((getattr(config, name) for name in names if getattr(config, name, None)), fixed)
    centred = x - x.mean(-1, keepdim=True) if model.body.family.norm.kind == "layernorm" else x
    return centred, (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
