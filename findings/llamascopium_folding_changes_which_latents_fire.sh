#!/usr/bin/env bash
# llamascopium 2.0.0b34: folding the activation scale of a JumpReLU dictionary changes which latents fire.
#
# Guess: fold_activation_scale=True "doesn't affect the encoding and decoding as a whole" (its documentation of
# norm_activation "inference"): the reconstruction of raw activations is the one that normalising first and undoing it
# afterwards gives, and latents are smaller by the scale.
# Seen: so it is for relu and topk. For jumprelu other latents are on, L0 changes, and the reconstruction is another one.
# Why: standardize_parameters_of_dataset_norm divides b_E by the scale, so that pre-activations are smaller by it, and
# leaves log_jumprelu_threshold as it is: the threshold in units of raw activations should be divided too.
# Who meets it: whoever loads or saves a trained JumpReLU dictionary with fold_activation_scale=True, the way to use it on
# raw activations. The larger the difference between sqrt(d) and the mean norm of activations, the more latents change.
#
# Prints "as described" and ends with 0 while this is so; ends with 1 when it has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --pre "llamascopium==2.0.0b34" "transformer-lens==3.9.0" "torch==2.15.0"
HF_HUB_OFFLINE=1 "$place/venv/bin/python" -W ignore - <<'PY'
import copy
import math
from importlib.metadata import version

import torch
from llamascopium.models.sae import SAEConfig, SparseAutoEncoder

print("llamascopium", version("llamascopium"), "torch", torch.__version__)
D, FACTOR, K, HOOK, NORM = 16, 4, 5, "blocks.0.hook_resid_post", 40.0
x = NORM / math.sqrt(D) * torch.randn(500, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
found = {}
for activation in ("relu", "topk", "jumprelu"):
    torch.manual_seed(0)
    config = SAEConfig(hook_point_in=HOOK, hook_point_out=HOOK, d_model=D, expansion_factor=FACTOR, act_fn=activation,
                       top_k=K, norm_activation="dataset-wise", dtype=torch.float64)
    sae = SparseAutoEncoder(config)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter) + (0.5 if "threshold" in name else 0))
        sae.set_dataset_average_activation_norm({HOOK: NORM})
        scaled, scales = sae.normalize_activations({HOOK: x}, return_scale_factor=True)
        latents = sae.encode(scaled[HOOK])
        whole = sae.denormalize_activations({HOOK: sae.decode(latents)}, scales)[HOOK]
        folded = copy.deepcopy(sae)
        folded.standardize_parameters_of_dataset_norm()
        raw = folded.encode(x)
        off = ((folded.decode(raw) - whole).norm() / whole.norm()).item()
        changed = ((raw != 0) != (latents != 0)).double().mean().item()
        mended = 0.0
        if activation == "jumprelu":
            folded.activation_function.log_jumprelu_threshold -= math.log(math.sqrt(D) / NORM)
            mended = ((folded.decode(folded.encode(x)) - whole).norm() / whole.norm()).item()
    l0 = (latents != 0).sum(-1).double().mean().item(), (raw != 0).sum(-1).double().mean().item()
    found[activation] = off, changed, l0, mended
    print(f"{activation:8} L0 {l0[0]:.2f} before folding, {l0[1]:.2f} after; {changed:.1%} of latents changed; "
          f"reconstruction off by {off:.2g}" + (f", with the threshold divided too by {mended:.2g}" if mended else ""))
as_described = (all(found[each][0] < 1e-12 and not found[each][1] for each in ("relu", "topk"))
                and found["jumprelu"][0] > 0.01 and found["jumprelu"][1] > 0.005 and found["jumprelu"][3] < 1e-12)
print("as described" if as_described else "CHANGED")
raise SystemExit(not as_described)
PY
