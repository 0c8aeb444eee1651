"""Small dictionaries in the layouts of other tools, written by hand, with what they compute by formulas written out.

Nothing here uses the package's own readers, writers or activations. Everything is in float64, so that only a different
formula makes a difference.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

D, N, OUT, K, LAYERS = 6, 20, 5, 3, 3


class Expected(NamedTuple):
    """A dictionary on disk: the path to load, an input, and what must come of it."""

    path: Path
    x: Tensor
    latents: Tensor
    reconstruction: Tensor


class Draw:
    """Random tensors from one generator."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)


def rows(draw: Draw, d: int = D) -> Tensor:
    """Inputs, unkind ones among them: large, zero, negated, small."""
    x = draw(8, d)
    return torch.cat([x, 12 * x[:1], 0 * x[:1], -x[1:2], 1e-3 * x[2:3]])


def largest(p: Tensor, k: int = K) -> Tensor:
    """Where each row has its k largest entries."""
    on = torch.zeros_like(p, dtype=torch.bool)
    for row, values in zip(on, p, strict=True):
        row[sorted(range(len(values)), key=lambda i: -float(values[i]))[:k]] = True
    return on


def jump(p: Tensor, threshold: Tensor | float) -> Tensor:
    return torch.where((p > threshold) & (p > 0), p, 0.0)


def put(path: Path, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def put_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


# SAELens


def sae_tensors(draw: Draw, out: int = D) -> dict[str, Tensor]:
    return {"W_enc": draw(D, N), "W_dec": draw(N, out), "b_enc": draw(N), "b_dec": draw(out)}


def sae(folder: Path, architecture: str, tensors: dict[str, Tensor], **more: Any) -> Path:
    config = {
        "architecture": architecture, "d_in": D, "d_sae": N, "dtype": "float64", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.54.12", "model_name": "toy", "hook_name": "blocks.1.hook_resid_post"},
    }  # fmt: skip
    put_json(folder / "cfg.json", config | more)
    put(folder / "sae_weights.safetensors", tensors)
    return folder


def saelens_standard(folder: Path, subtract: bool = True, scale: float = 1.0) -> Expected:
    draw = Draw()
    w, x = sae_tensors(draw), rows(draw)
    more: dict[str, Any] = {"apply_b_dec_to_input": subtract}
    if scale != 1.0:
        more["normalize_activations"] = "expected_average_only_in"
        put_json(folder / "activation_scaler.json", {"scaling_factor": scale, "has_whitening": False})
    h = scale * x - (w["b_dec"] if subtract else 0)
    f = (h @ w["W_enc"] + w["b_enc"]).relu()
    return Expected(sae(folder, "standard", w, **more), x, f, (f @ w["W_dec"] + w["b_dec"]) / scale)


def saelens_whitened(folder: Path, subtract: bool = True) -> Expected:
    draw = Draw(1)
    w, x, mean, matrix = sae_tensors(draw), rows(draw), draw(D), draw(D, D)
    inverse = torch.linalg.inv(matrix)
    put(folder / "activation_whitening.safetensors", {"mean": mean, "matrix": matrix, "inverse_matrix": inverse})
    z = (x - mean) @ matrix - (w["b_dec"] if subtract else 0)
    f = (z @ w["W_enc"] + w["b_enc"]).relu()
    path = sae(folder, "standard", w, normalize_activations="covariance_whitening", apply_b_dec_to_input=subtract)
    return Expected(path, x, f, (f @ w["W_dec"] + w["b_dec"]) @ inverse + mean)


def saelens_layer_norm(folder: Path) -> Expected:
    draw = Draw(2)
    w, x = sae_tensors(draw), rows(draw)
    mean, deviation = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    f = (((x - mean) / (deviation + 1e-5) - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    path = sae(folder, "standard", w, normalize_activations="layer_norm")
    return Expected(path, x, f, (f @ w["W_dec"] + w["b_dec"]) * deviation + mean)


def saelens_constant_norm(folder: Path) -> Expected:
    draw = Draw(3)
    w, x = sae_tensors(draw), rows(draw)
    x = x[x.norm(dim=-1) > 0]
    scale = D**0.5 / x.norm(dim=-1, keepdim=True)
    f = ((x * scale - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    path = sae(folder, "standard", w, normalize_activations="constant_norm_rescale")
    return Expected(path, x, f, (f @ w["W_dec"] + w["b_dec"]) / scale)


def saelens_heads(folder: Path) -> Expected:
    """It reads two heads of three."""
    flat = saelens_standard(folder)
    metadata = {"sae_lens_version": "6.54.12", "hook_name": "blocks.0.attn.hook_z"}
    path = sae(folder, "standard", safetensors.torch.load_file(folder / "sae_weights.safetensors"),
               reshape_activations="hook_z", metadata=metadata)  # fmt: skip
    return Expected(path, flat.x.unflatten(-1, (2, 3)), flat.latents, flat.reconstruction.unflatten(-1, (2, 3)))


def saelens_gated(folder: Path) -> Expected:
    draw = Draw(4)
    w, x = sae_tensors(draw), rows(draw)
    del w["b_enc"]
    w |= {"b_gate": draw(N), "b_mag": draw(N), "r_mag": draw(N)}
    h = x - w["b_dec"]
    f = torch.where(h @ w["W_enc"] + w["b_gate"] > 0, (h @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"]).relu(), 0.0)
    return Expected(sae(folder, "gated", w), x, f, f @ w["W_dec"] + w["b_dec"])


def saelens_topk(folder: Path, rescale: bool = False, flat: bool = False) -> Expected:
    draw = Draw(5)
    w, x = sae_tensors(draw), rows(draw)
    norms = w["W_dec"].norm(dim=1) if rescale else torch.ones(N, dtype=torch.float64)
    p = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms
    f = torch.where(largest(p), p.relu(), 0.0)
    if flat:
        put_json(folder / "cfg.json", {
            "d_in": D, "d_sae": N, "dtype": "torch.float64", "hook_point": "blocks.0.attn.hook_q", "model_name": "toy",
            "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "apply_b_dec_to_input": True,
        })  # fmt: skip
        put(folder / "sae_weights.safetensors", w)
    else:
        sae(folder, "topk", w, k=K, rescale_acts_by_decoder_norm=rescale)
    return Expected(folder, x, f, (f / norms) @ w["W_dec"] + w["b_dec"])


def saelens_abstopk(folder: Path) -> Expected:
    draw = Draw(6)
    w, x = sae_tensors(draw), rows(draw)
    p = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    f = torch.where(largest(p.abs()), p, 0.0)
    return Expected(sae(folder, "abstopk", w, k=K), x, f, f @ w["W_dec"] + w["b_dec"])


def saelens_jumprelu(folder: Path, training: bool = False) -> Expected:
    """With `training`, a trainer's folder of BatchTopK, whose one threshold is of latents in units of decoder norms."""
    draw = Draw(7)
    w, x = sae_tensors(draw), rows(draw)
    norms = w["W_dec"].norm(dim=1) if training else torch.ones(N, dtype=torch.float64)
    p = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms
    threshold = torch.tensor(1.5, dtype=torch.float64) if training else draw(N)
    w["topk_threshold" if training else "threshold"] = threshold
    f = jump(p, threshold)
    name, more = ("batchtopk", {"k": 4.5, "rescale_acts_by_decoder_norm": True}) if training else ("jumprelu", {})
    return Expected(sae(folder, name, w, **more), x, f, (f / norms) @ w["W_dec"] + w["b_dec"])


def saelens_transcoder(folder: Path, jumps: bool = False, skips: bool = False) -> Expected:
    draw = Draw(8)
    w, x = sae_tensors(draw, OUT), rows(draw)
    p = x @ w["W_enc"] + w["b_enc"]
    f = p.relu()
    if jumps:
        w["threshold"] = draw(N).abs()
        f = jump(p, w["threshold"])
    y = f @ w["W_dec"] + w["b_dec"]
    if skips:
        w["W_skip"] = draw(OUT, D)
        y = y + x @ w["W_skip"].T
    name = f"{'jumprelu_' if jumps else ''}{'skip_' if skips else ''}transcoder"
    return Expected(sae(folder, name, w, apply_b_dec_to_input=False, d_out=OUT), x, f, y)


def saelens_flat(folder: Path, activation: str = "relu") -> Expected:
    draw = Draw(9)
    w, x = sae_tensors(draw), rows(draw)
    f = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    f = f.tanh() if activation == "tanh-relu" else f
    put_json(folder / "cfg.json", {
        "architecture": "standard", "d_in": D, "d_sae": N, "dtype": "float64", "model_name": "toy", "hook_layer": 2,
        "hook_name": "blocks.2.hook_mlp_out", "activation_fn_str": activation, "normalize_activations": None,
    })  # fmt: skip
    put(folder / "sae_weights.safetensors", w)
    return Expected(folder, x, f, f @ w["W_dec"] + w["b_dec"])


# sparsify


def sparsify(folder: Path, activation: str = "topk", transcodes: bool = False, skips: bool = False) -> Expected:
    draw = Draw(10)
    folder = folder / "layers.2.mlp"
    w = {"encoder.weight": draw(N, D), "encoder.bias": draw(N), "W_dec": draw(N, D), "b_dec": draw(D)}
    x, k = rows(draw), 4 if activation == "groupmax" else K
    p = ((x if transcodes else x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]).relu()
    on = largest(p, k)
    if activation == "groupmax":
        groups = p.reshape(len(p), k, N // k)
        on = torch.cat([groups[:, i] == groups[:, i].max(-1, keepdim=True).values for i in range(k)], -1)
    f = torch.where(on, p, 0.0)
    y = f @ w["W_dec"] + w["b_dec"]
    if skips:
        w["W_skip"] = draw(D, D)
        y = y + x @ w["W_skip"].T
    put_json(folder / "cfg.json", {
        "activation": activation, "expansion_factor": 32, "normalize_decoder": True, "num_latents": N, "k": k,
        "multi_topk": False, "skip_connection": skips, "transcode": transcodes, "d_in": D,
    })  # fmt: skip
    put(folder / "sae.safetensors", w)
    return Expected(folder, x, f, y)


# dictionary_learning


def linear(draw: Draw) -> dict[str, Tensor]:
    return {"encoder.weight": draw(N, D), "encoder.bias": draw(N), "decoder.weight": draw(D, N)}


def learned(folder: Path, label: str, content: dict[str, Any], **trainer: Any) -> Path:
    trainer = {"dict_class": label, "activation_dim": D, "dict_size": N, "lm_name": "toy", "layer": 1,
               "submodule_name": "resid_post_layer_1", **trainer}  # fmt: skip
    put_json(folder / "config.json", {"trainer": trainer})
    torch.save(content, folder / "ae.pt")
    return folder


def learned_standard(folder: Path) -> Expected:
    draw = Draw(11)
    w, x, bias = linear(draw), rows(draw), draw(D)
    f = ((x - bias) @ w["encoder.weight"].T + w["encoder.bias"]).relu()
    y = f @ w["decoder.weight"].T + bias
    return Expected(learned(folder, "AutoEncoder", {**w, "bias": bias}), x, f * w["decoder.weight"].norm(dim=0), y)


def learned_new(folder: Path) -> Expected:
    draw = Draw(12)
    w, x, bias = linear(draw), rows(draw), draw(D)
    f = (x @ w["encoder.weight"].T + w["encoder.bias"]).relu()
    y = f @ w["decoder.weight"].T + bias
    return Expected(learned(folder, "AutoEncoderNew", {**w, "decoder.bias": bias}), x, f, y)


def learned_gated(folder: Path) -> Expected:
    draw = Draw(13)
    w, x = linear(draw), rows(draw)
    del w["encoder.bias"]
    w |= {"decoder_bias": draw(D), "r_mag": draw(N), "gate_bias": draw(N), "mag_bias": draw(N)}
    a = (x - w["decoder_bias"]) @ w["encoder.weight"].T
    f = torch.where(a + w["gate_bias"] > 0, (a * w["r_mag"].exp() + w["mag_bias"]).relu(), 0.0)
    y = f @ w["decoder.weight"].T + w["decoder_bias"]
    return Expected(learned(folder, "GatedAutoEncoder", w), x, f, y)


def learned_topk(folder: Path, batch: bool = False, threshold: float = 2.0) -> Expected:
    draw = Draw(14)
    w, x, b = linear(draw), rows(draw), draw(D)
    p = ((x - b) @ w["encoder.weight"].T + w["encoder.bias"]).relu()
    f = jump(p, threshold) if batch else torch.where(largest(p), p, 0.0)
    content = {**w, "b_dec": b, "k": torch.tensor(K, dtype=torch.int32), "threshold": torch.tensor(threshold)}
    path = learned(folder, "BatchTopKSAE" if batch else "AutoEncoderTopK", content, k=K)
    return Expected(path, x, f, f @ w["decoder.weight"].T + b)


def learned_jumprelu(folder: Path, matryoshka: bool = False) -> Expected:
    draw = Draw(15)
    w, x = sae_tensors(draw), rows(draw)
    p = (x - w["b_dec"] if matryoshka else x) @ w["W_enc"] + w["b_enc"]
    content: dict[str, Any] = dict(w)
    threshold = torch.tensor(1.0) if matryoshka else draw(N).abs()
    content["threshold"] = threshold
    if matryoshka:
        content |= {"k": torch.tensor(K, dtype=torch.int32), "group_sizes": torch.tensor([4, N - 4])}
    f = jump(p, threshold)
    name = "MatryoshkaBatchTopKSAE" if matryoshka else "JumpReluAutoEncoder"
    return Expected(
        learned(folder, name, content, **({"k": K} if matryoshka else {})), x, f, f @ w["W_dec"] + w["b_dec"]
    )


# OpenAI


def openai(folder: Path, activation: str = "TopK", after: str = "ReLU") -> Expected:
    draw = Draw(16)
    w = {"pre_bias": draw(D), "latent_bias": draw(N), "encoder.weight": draw(N, D), "decoder.weight": draw(D, N)}
    x = rows(draw)
    mean, deviation = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    h = (x - mean) / (deviation + 1e-5) if activation == "TopK" else x
    p = (h - w["pre_bias"]) @ w["encoder.weight"].T + w["latent_bias"]
    f = p.relu() if activation == "ReLU" else torch.where(largest(p), p.relu() if after == "ReLU" else p, 0.0)
    y = f @ w["decoder.weight"].T + w["pre_bias"]
    y = y * deviation + mean if activation == "TopK" else y
    state = {"k": K, "postact_fn": after} if activation == "TopK" else {}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(
        {**w, "stats_last_nonzero": torch.zeros(N, dtype=torch.long), "latents_activation_frequency": torch.ones(N),
         "latents_mean_square": torch.zeros(N), "activation": activation, "activation_state_dict": state},
        folder / "layer_3.pt",
    )  # fmt: skip
    return Expected(folder / "layer_3.pt", x, f, y)


# Gemma Scope


def gemma_scope(folder: Path, within: str = "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82") -> Expected:
    draw = Draw(17)
    w, x = sae_tensors(draw), rows(draw)
    w["threshold"] = draw(N).abs()
    scale = D**0.5 if "/embedding/" in within else 1.0
    f = jump(x @ (w["W_enc"] / scale) + w["b_enc"], w["threshold"])
    path = folder / within
    path.mkdir(parents=True)
    np.savez(path / "params.npz", **{name: value.numpy() for name, value in w.items()})
    return Expected(path, x, f, f @ (w["W_dec"] * scale) + w["b_dec"])


def gemma_scope_2(folder: Path, affine: bool = True) -> Expected:
    draw = Draw(18)
    w, x = {name.lower(): value for name, value in sae_tensors(draw, OUT).items()}, rows(draw)
    w["threshold"] = draw(N).abs()
    f = jump(x @ w["w_enc"] + w["b_enc"], w["threshold"])
    y = f @ w["w_dec"] + w["b_dec"]
    if affine:
        w["affine_skip_connection"] = draw(D, OUT)
        y = y + x @ w["affine_skip_connection"]
    path = folder / "transcoder_all" / f"layer_4_width_16k_l0_small{'_affine' if affine else ''}"
    put(path / "params.safetensors", w)
    put_json(path / "config.json", {
        "architecture": "jump_relu", "model_name": "google/gemma-3-1b-pt", "affine_connection": affine,
        "hf_hook_point_in": "model.layers.4.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.4.post_feedforward_layernorm.output",
    })  # fmt: skip
    return Expected(path, x, f, y)


def gemma_scope_2_clt(folder: Path, affine: bool = True) -> Expected:
    draw = Draw(19)
    x = torch.stack([rows(draw) for _ in range(LAYERS)])
    latents, out = [], [torch.zeros(1)] * LAYERS
    path = folder / "clt" / "width_262k_l0_medium_affine"
    for i in range(LAYERS):
        w = {"w_enc": draw(D, N), "b_enc": draw(N), "b_dec": draw(D), "threshold": draw(N).abs()}
        w |= {"w_dec": draw(N, LAYERS, D)} | ({"affine_skip_connection": draw(D, D)} if affine else {})
        w["w_dec"][:, :i] = 0
        latents.append(jump(x[i] @ w["w_enc"] + w["b_enc"], w["threshold"]))
        for j in range(LAYERS):
            out[j] = out[j] + latents[i] @ w["w_dec"][:, j]
        out[i] = out[i] + w["b_dec"] + (x[i] @ w["affine_skip_connection"] if affine else 0)
        put(path / f"params_layer_{i}.safetensors", w)
    return Expected(path, x, torch.stack(latents), torch.stack(out))


# circuit-tracer

HOOKS = "feature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n"


def circuit_tracer(folder: Path, activation: str = "relu", skips: bool = False) -> Expected:
    draw = Draw(20)
    x, latents, out = torch.stack([rows(draw) for _ in range(LAYERS)]), [], []
    for i in range(LAYERS):
        w = {"W_enc": draw(N, D), "W_dec": draw(N, D), "b_enc": draw(N), "b_dec": draw(D)}
        p = x[i] @ w["W_enc"].T + w["b_enc"]
        f = p.relu()
        if activation == "jump":
            w["activation_function.threshold"] = draw(N)
            f = torch.where(p > w["activation_function.threshold"], p, 0.0)
        if activation == "topk":
            f = torch.where(largest(p), p, 0.0)
        y = f @ w["W_dec"] + w["b_dec"]
        if skips:
            w["W_skip"] = draw(D, D)
            y = y + x[i] @ w["W_skip"].T
        put(folder / f"layer_{i}.safetensors", w)
        latents.append(f)
        out.append(y)
    ranks = f"activation: topk\nk: {K}\n" if activation == "topk" else ""
    text = f"model_name: toy\nmodel_kind: transcoder_set\n{HOOKS}{ranks}scan: toy  # a comment\n"
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return Expected(folder, x, torch.stack(latents), torch.stack(out))


def cross_layer(folder: Path, jumps: bool = True) -> Expected:
    draw = Draw(21)
    x, latents, out = torch.stack([rows(draw) for _ in range(LAYERS)]), [], [torch.zeros(1)] * LAYERS
    for i in range(LAYERS):
        w = {f"W_enc_{i}": draw(N, D), f"b_enc_{i}": draw(N), f"b_dec_{i}": draw(D)}
        decoder = draw(N, LAYERS - i, D)
        p = x[i] @ w[f"W_enc_{i}"].T + w[f"b_enc_{i}"]
        f = p.relu()
        if jumps:
            w[f"threshold_{i}"] = draw(N)
            f = torch.where(p > w[f"threshold_{i}"], p, 0.0)
        latents.append(f)
        for j in range(i, LAYERS):
            out[j] = out[j] + f @ decoder[:, j - i]
        out[i] = out[i] + w[f"b_dec_{i}"]
        put(folder / f"W_enc_{i}.safetensors", w)
        put(folder / f"W_dec_{i}.safetensors", {f"W_dec_{i}": decoder})
    (folder / "config.yaml").write_text(
        f"model_name: toy\nmodel_kind: cross_layer_transcoder\n{HOOKS}", encoding="utf-8"
    )
    return Expected(folder, x, torch.stack(latents), torch.stack(out))


# OpenMOSS


def llama_scope(folder: Path, by_size: bool = False) -> Expected:
    draw = Draw(22)
    w, x = linear(draw), rows(draw)
    w["decoder.bias"] = draw(D)
    norms = w["decoder.weight"].norm(dim=0)
    scale = D**0.5 / 7.0
    p = (scale * x) @ w["encoder.weight"].T + w["encoder.bias"]
    f = torch.where((p * norms if by_size else p) > 0.3 * scale, p, 0.0)
    path = folder / "Llama3_1-8B-Base-L15R-8x"
    put(path / "checkpoints" / "final.safetensors", w)
    put_json(path / "hyperparams.json", {
        "act_fn": "jumprelu", "d_model": D, "d_sae": N, "jump_relu_threshold": 0.3, "norm_activation": "dataset-wise",
        "hook_point_in": "blocks.15.hook_resid_post", "hook_point_out": "blocks.15.hook_resid_post",
        "dataset_average_activation_norm": {"in": 7.0, "out": 7.0}, "sparsity_include_decoder_norm": by_size,
    })  # fmt: skip
    return Expected(path, x, f, (f @ w["decoder.weight"].T + w["decoder.bias"]) / scale)


def llamascopium(folder: Path, activation: str = "jumprelu", old: bool = False) -> Expected:
    """A transcoder, whose outputs have a scale of their own."""
    draw = Draw(23)
    w = {"W_E": draw(D, N), "b_E": draw(N), "W_D": draw(N, D), "b_D": draw(D)}
    x, norms, log = rows(draw), w["W_D"].norm(dim=1), 0.3 * draw(N)
    p = (D**0.5 / 7.0 * x) @ w["W_E"] + w["b_E"]
    on = p * norms > log.exp() if activation == "jumprelu" else largest((p * norms).relu()) & (p > 0)
    f = torch.where(on, p, 0.0)
    y = (f @ w["W_D"] + w["b_D"]) / (D**0.5 / 3.0)
    if old:
        w = {
            "encoder.weight": w["W_E"].T,
            "encoder.bias": w["b_E"],
            "decoder.weight": w["W_D"].T,
            "decoder.bias": w["b_D"],
        }
    if activation == "jumprelu":
        w["log_jumprelu_threshold" if old else "activation_function.log_jumprelu_threshold"] = log
    places = ["blocks.3.ln2.hook_normalized", "blocks.3.hook_mlp_out"]
    for place, norm in zip(places, (7.0, 3.0), strict=True):
        w[f"dataset_average_activation_norm.{place}"] = torch.tensor(norm, dtype=torch.float64)
    put(folder / "sae_weights.safetensors", w)
    put_json(folder / "config.json", {
        "sae_type": "sae", "d_model": D, "expansion_factor": N / D, "act_fn": activation, "top_k": K,
        "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True, "use_decoder_bias": True,
        "hook_point_in": places[0], "hook_point_out": places[1],
    })  # fmt: skip
    return Expected(folder, x, f if activation == "jumprelu" else f * norms, y)


LAYOUTS: dict[str, Callable[[Path], Expected]] = {
    "saelens standard": saelens_standard,
    "saelens, b_dec not subtracted": lambda at: saelens_standard(at, subtract=False),
    "saelens, scale beside it": lambda at: saelens_standard(at, scale=0.25),
    "saelens, scale beside it, b_dec not subtracted": lambda at: saelens_standard(at, subtract=False, scale=0.25),
    "saelens whitened": saelens_whitened,
    "saelens whitened, b_dec not subtracted": lambda at: saelens_whitened(at, subtract=False),
    "saelens layer norm": saelens_layer_norm,
    "saelens constant norm": saelens_constant_norm,
    "saelens heads": saelens_heads,
    "saelens gated": saelens_gated,
    "saelens topk": saelens_topk,
    "saelens topk by decoder norms": lambda at: saelens_topk(at, rescale=True),
    "saelens abstopk": saelens_abstopk,
    "saelens jumprelu": saelens_jumprelu,
    "saelens batchtopk of a trainer": lambda at: saelens_jumprelu(at, training=True),
    "saelens transcoder": saelens_transcoder,
    "saelens skip transcoder": lambda at: saelens_transcoder(at, skips=True),
    "saelens jumprelu transcoder": lambda at: saelens_transcoder(at, jumps=True),
    "saelens jumprelu skip transcoder": lambda at: saelens_transcoder(at, jumps=True, skips=True),
    "saelens flat": saelens_flat,
    "saelens flat topk": lambda at: saelens_topk(at, flat=True),
    "saelens flat tanh-relu": lambda at: saelens_flat(at, "tanh-relu"),
    "sparsify topk": sparsify,
    "sparsify groupmax": lambda at: sparsify(at, "groupmax"),
    "sparsify transcoder": lambda at: sparsify(at, transcodes=True),
    "sparsify with a skip": lambda at: sparsify(at, skips=True),
    "sparsify skip transcoder": lambda at: sparsify(at, transcodes=True, skips=True),
    "dictionary_learning standard": learned_standard,
    "dictionary_learning new": learned_new,
    "dictionary_learning gated": learned_gated,
    "dictionary_learning topk": learned_topk,
    "dictionary_learning batchtopk": lambda at: learned_topk(at, batch=True),
    "dictionary_learning batchtopk without threshold": lambda at: learned_topk(at, batch=True, threshold=-1.0),
    "dictionary_learning jumprelu": learned_jumprelu,
    "dictionary_learning matryoshka": lambda at: learned_jumprelu(at, matryoshka=True),
    "openai topk": openai,
    "openai topk, signed": lambda at: openai(at, after="Identity"),
    "openai relu": lambda at: openai(at, "ReLU"),
    "gemma_scope": gemma_scope,
    "gemma_scope embedding": lambda at: gemma_scope(at, "gemma-scope-2b-pt-res/embedding/width_4k/average_l0_44"),
    "gemma_scope transcoder": lambda at: gemma_scope(
        at, "gemma-scope-2b-pt-transcoders/layer_3/width_16k/average_l0_8"
    ),
    "gemma_scope_2 affine": gemma_scope_2,
    "gemma_scope_2": lambda at: gemma_scope_2(at, affine=False),
    "gemma_scope_2 cross-layer": gemma_scope_2_clt,
    "gemma_scope_2 cross-layer without skip": lambda at: gemma_scope_2_clt(at, affine=False),
    "circuit_tracer relu": circuit_tracer,
    "circuit_tracer jump": lambda at: circuit_tracer(at, "jump", skips=True),
    "circuit_tracer topk": lambda at: circuit_tracer(at, "topk"),
    "circuit_tracer cross-layer": cross_layer,
    "circuit_tracer cross-layer relu": lambda at: cross_layer(at, jumps=False),
    "llama_scope": llama_scope,
    "llama_scope by size": lambda at: llama_scope(at, by_size=True),
    "llamascopium": llamascopium,
    "llamascopium topk": lambda at: llamascopium(at, "topk"),
    "llamascopium, older names": lambda at: llamascopium(at, old=True),
}
