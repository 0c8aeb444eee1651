#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.15.0: what a hook kept as Falcon's MLP output later holds MLP plus attention.
#
# Guess: the tensor that a forward hook of model.transformer.h[k].mlp receives is the output of the MLP, now and later.
# Seen: in Falcon with parallel attention (Falcon 7B's form) it has become the MLP's output plus the attention's, bit for
# bit, when the forward pass is over; detach() does not help, clone() does. GPT-NeoX and Phi, parallel too, leave it.
# Why: the layer adds the attention's output to it in place (mlp_output += attention_output).
# Who meets it: whoever keeps activations without a copy: the MLP's share of a logit then counts attention twice.
#
# Prints "as described" and ends with 0 while this is so; ends with 1 when it has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --no-compile "torch==2.15.0" "transformers==5.23.0"
"$place/venv/bin/python" - <<'PY'
import torch
import transformers
from transformers import AutoModelForCausalLM, FalconConfig, GPTNeoXConfig, PhiConfig

transformers.logging.set_verbosity_error()
print("transformers", transformers.__version__, "torch", torch.__version__)
sizes = dict(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
cases = {
    "Falcon": (FalconConfig(**sizes, parallel_attn=True, alibi=False, new_decoder_architecture=False),
               "transformer.h.0.mlp", "transformer.h.0.self_attention"),
    "GPT-NeoX": (GPTNeoXConfig(**sizes, intermediate_size=48, use_parallel_residual=True),
                 "gpt_neox.layers.0.mlp", "gpt_neox.layers.0.attention"),
    "Phi": (PhiConfig(**sizes, intermediate_size=48), "model.layers.0.mlp", "model.layers.0.self_attn"),
}
as_described = True
for name, (config, mlp, attention) in cases.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    kept: dict[str, torch.Tensor] = {}
    copied: dict[str, torch.Tensor] = {}

    def keep(place: str):
        def hook(_, args, output):
            output = output[0] if isinstance(output, tuple) else output
            kept[place], copied[place] = output.detach(), output.detach().clone()

        return hook

    for place in (mlp, attention):
        model.get_submodule(place).register_forward_hook(keep(place))
    with torch.no_grad():
        model(torch.tensor([[5, 6, 7]]))
    same = torch.equal(kept[mlp], copied[mlp])
    both = torch.equal(kept[mlp], copied[mlp] + copied[attention])
    print(f"{name:9} kept tensor is the MLP's output: {same}; is MLP plus attention: {both}; "
          f"moved by at most {(kept[mlp] - copied[mlp]).abs().max():.3g} of {copied[mlp].abs().max():.3g}")
    as_described &= (same, both) == ((False, True) if name == "Falcon" else (True, False))
print("as described" if as_described else "CHANGED")
raise SystemExit(not as_described)
PY
