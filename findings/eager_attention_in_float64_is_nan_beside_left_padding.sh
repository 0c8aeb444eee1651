#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.15.0: a left-padded prompt in float64 gives NaN logits under eager attention.
#
# Guess: a wider dtype can only be more exact, and eager and sdpa attention agree to rounding, as they do in float32.
# Seen: for Llama, Mistral and Qwen 3 the logits of a left-padded row are all NaN in float64 with
# attn_implementation="eager"; in float32, and with "sdpa" in either dtype, they are numbers and agree to 1e-6.
# Why: the additive mask holds the least float64, which the softmax's cast to float32 turns into -inf; a padded
# position has nothing else to look at, so its row is 0 / 0, and from the next layer on NaN times 0 reaches every row.
# Who meets it: whoever measures in float64 to see rounding, and asks for attention patterns, which needs "eager".
#
# Prints "as described" and ends with 0 while this is so; ends with 1 when it has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q "torch==2.15.0" "transformers==5.23.0"
"$place/venv/bin/python" - <<'PY'
import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen3Config

transformers.logging.set_verbosity_error()
print("transformers", transformers.__version__, "torch", torch.__version__)
tokens = torch.tensor([[0, 0, 5, 6, 7]])
mask = torch.tensor([[0, 0, 1, 1, 1]])
sizes = dict(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2)
as_described = True
for kind in (LlamaConfig, MistralConfig, Qwen3Config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(**sizes)).eval()
    last = {}
    for dtype in (torch.float32, torch.float64):
        for attention in ("eager", "sdpa"):
            model = model.to(dtype)
            model.set_attn_implementation(attention)
            with torch.no_grad():
                last[dtype, attention] = model(tokens, attention_mask=mask).logits[0, -1].double()
            print(f"{kind.__name__:14} {dtype} {attention:5} {last[dtype, attention][:2].tolist()}")
    nan = last.pop((torch.float64, "eager"))
    right = last[torch.float64, "sdpa"]
    as_described &= bool(nan.isnan().all()) and all((each - right).abs().max() < 1e-6 for each in last.values())
print("as described" if as_described else "CHANGED")
raise SystemExit(not as_described)
PY
