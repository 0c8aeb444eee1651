#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.15.0: for Mamba and RWKV, hidden_states[k] is what Llama has at k + 1.
#
# Guess: a model of n layers gives n + 1 hidden_states; the first is the embedding, hidden_states[k] goes into layer k.
# Seen: Mamba, Mamba 2, Falcon Mamba and RWKV also give n + 1, but the first is already the output of layer 0, the
# embedding is missing, and the end is there twice, before the last norm and after it. Llama, Jamba, Bamba, Falcon H1 and
# RecurrentGemma give the embedding first, and the state before the last norm not at all.
# Why: these four append after the layer and once more after the norm; the others append before the layer. Both lists
# have the same length, so no check of the shape notices.
# Who meets it: whoever fits a probe, a lens or a steering vector layer by layer and compares families: the layers of
# one are set against those of the other, one off.
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
from transformers import AutoConfig, AutoModelForCausalLM

transformers.logging.set_verbosity_error()
print("transformers", transformers.__version__, "torch", torch.__version__)
LAYERS = 3
common = dict(vocab_size=60, hidden_size=32, num_hidden_layers=LAYERS, pad_token_id=0)
attention = dict(intermediate_size=48, num_attention_heads=4, num_key_value_heads=2)
second = dict(mamba_d_state=8, mamba_n_heads=8, mamba_d_head=8, mamba_n_groups=1, mamba_chunk_size=8)
families = {
    "llama": attention,
    "jamba": {**attention, "num_experts": 2, "num_experts_per_tok": 1, "attn_layer_period": 2, "attn_layer_offset": 1,
              "use_mamba_kernels": False, "mamba_d_state": 8, "mamba_dt_rank": 4},
    "bamba": {**attention, **second, "attn_layer_indices": [1]},
    "falcon_h1": {**attention, **second, "mamba_d_ssm": 64},
    "recurrent_gemma": {**attention, "lru_width": 32, "attention_window_size": 8},
    "mamba": dict(state_size=8),
    "mamba2": dict(state_size=8, num_heads=8, head_dim=8, n_groups=1, chunk_size=8),
    "falcon_mamba": dict(state_size=8),
    "rwkv": dict(attention_hidden_size=32, intermediate_size=48, context_length=64),
}
ahead = {"mamba", "mamba2", "falcon_mamba", "rwkv"}
tokens = torch.randint(3, 60, (1, 9), generator=torch.Generator().manual_seed(1))
as_described = True
for family, sizes in families.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **common, **sizes)).eval()
    states: dict[str, torch.Tensor] = {}
    layers = next(each for each in model.modules() if isinstance(each, torch.nn.ModuleList) and len(each) == LAYERS)
    for index, layer in enumerate(layers):

        def before(_, args, kwargs, name=f"into layer {index}"):
            states[name] = (args[0] if args else kwargs["hidden_states"]).clone()

        def after(_, args, output, name=f"out of layer {index}"):
            states[name] = (output[0] if isinstance(output, tuple) else output).clone()

        layer.register_forward_pre_hook(before, with_kwargs=True)
        if layer is layers[-1]:
            layer.register_forward_hook(after)
    with torch.no_grad():
        hidden = model(tokens, output_hidden_states=True).hidden_states
    seen = [next((name for name, state in states.items() if torch.equal(state, each)), "last norm") for each in hidden]
    print(f"{family:16} {seen}")
    first = 1 if family in ahead else 0
    wanted = [f"into layer {index}" for index in range(first, LAYERS)]
    as_described &= seen == wanted + [f"out of layer {LAYERS - 1}"] * first + ["last norm"]
print("as described" if as_described else "CHANGED")
raise SystemExit(not as_described)
PY
