#!/usr/bin/env bash
# circuit-tracer 0.5.0: a cross-layer transcoder with a skip connection has none after it was saved and loaded.
#
# Guess: load_clt(folder) after clt.to_safetensors(folder) gives the transcoder back, as it does without a skip.
# Seen: W_skip is None, no warning; latents are equal, the outputs are off by the whole of x @ W_skip. A set of per-layer
# transcoders keeps its W_skip on the same way.
# Why: to_safetensors writes W_enc, b_enc, b_dec, threshold and W_dec alone, and load_clt looks for no skip.
# Note: the two use the matrix differently besides: x @ W_skip in the cross-layer class, x @ W_skip.T in the set's.
# Who meets it: whoever caches or converts Gemma Scope 2's affine cross-layer transcoders.
#
# Prints "as described" and ends with 0 while this is so; ends with 1 when it has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q "circuit-tracer==0.5.0"
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - "$place" <<'PY'
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder, load_clt
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet, load_transcoder_set

print("circuit-tracer", version("circuit-tracer"), "torch", torch.__version__)
LAYERS, D, N, CPU = 3, 8, 32, torch.device("cpu")


def drawn(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module


x = torch.randn(LAYERS, 20, D, generator=torch.Generator().manual_seed(1))
found = {}
with warnings.catch_warnings(record=True) as said, torch.no_grad():
    warnings.simplefilter("always")
    for skip in (False, True):
        clt = drawn(CrossLayerTranscoder(LAYERS, N, D, skip_connection=skip, lazy_decoder=False, device=CPU,
                                         dtype=torch.float32))
        folder = Path(sys.argv[1]) / f"clt-{skip}"
        clt.to_safetensors(str(folder))
        back = load_clt(str(folder), lazy_decoder=False, device=CPU, dtype=torch.float32)
        latents = clt.encode(x)
        before, after = clt.decode(latents, x), back.decode(latents, x)
        missing = x @ clt.W_skip if skip else torch.zeros_like(x)
        found[skip] = (
            torch.equal(back.encode(x), latents), back.W_skip is None,
            ((before - after).norm() / before.norm()).item(), torch.allclose(before - after, missing, atol=1e-3))
        print(f"cross-layer, skip {skip}: latents equal {found[skip][0]}; W_skip after loading is None {found[skip][1]}; "
              f"outputs off by {found[skip][2]:.2g} of their size, which is x @ W_skip: {found[skip][3]}")
    layers = {i: drawn(SingleLayerTranscoder(D, N, torch.relu, i, skip_connection=True, device=CPU, dtype=torch.float32))
              for i in range(LAYERS)}
    folder = Path(sys.argv[1]) / "set"
    TranscoderSet(layers, "hook_resid_mid", "hook_mlp_out").to_safetensors(str(folder))
    paths = {i: str(folder / f"layer_{i}.safetensors") for i in range(LAYERS)}
    back = load_transcoder_set(paths, "toy", "hook_resid_mid", "hook_mlp_out", device=CPU, lazy_encoder=False,
                               lazy_decoder=False)
    kept = all(torch.equal(back[i].W_skip, layers[i].W_skip) for i in range(LAYERS))
    print("a set of single layers keeps its skips:", kept)
told = [str(each.message) for each in said if "skip" in str(each.message)]
print("warnings of it:", told)
as_described = (found[False][:2] == (True, True) and found[False][2] < 1e-5 and found[True][:2] == (True, True)
                and found[True][2] > 0.01 and found[True][3] and kept and not told)
print("as described" if as_described else "CHANGED")
raise SystemExit(not as_described)
PY
