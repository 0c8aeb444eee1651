#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.15.0: RecurrentGemma and RWKV read left padding, and so does generate() with them.
#
# Guess: generate() on a left-padded batch with its attention_mask gives each prompt the logits that it has alone: for
# recurrent models too, as it does for Mamba, Jamba and Qwen3-Next.
# Seen: the logits of RecurrentGemma and RWKV move by about a standard deviation, and nothing is said.
# Why: RwkvForCausalLM takes the mask and drops it, so that the warning in RwkvModel ("unused in this model") never
# comes. RecurrentGemma uses it in its attention layers; its recurrence starts anew at position 0, but the convolution
# before it runs over the padding. The others set padded positions to zero before theirs.
# Who meets it: whoever generates or scores in batches; the result depends on how long the longest neighbour is.
#
# Prints "as described" and ends with 0 while this is so; ends with 1 when it has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --no-compile "torch==2.15.0" "transformers==5.23.0"
"$place/venv/bin/python" - <<'PY'
import logging

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

messages: list[str] = []


class Keep(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        messages.append(record.getMessage())


logging.getLogger("transformers").addHandler(Keep(logging.WARNING))
print("transformers", transformers.__version__, "torch", torch.__version__)
common = dict(vocab_size=60, hidden_size=32, num_hidden_layers=3, pad_token_id=0, bos_token_id=1, eos_token_id=2)
attention = dict(intermediate_size=48, num_attention_heads=4, num_key_value_heads=2)
families = {
    "mamba": dict(state_size=8),
    "jamba": {**attention, "num_experts": 2, "num_experts_per_tok": 1, "attn_layer_period": 2, "attn_layer_offset": 1,
              "use_mamba_kernels": False, "mamba_d_state": 8, "mamba_dt_rank": 4},
    "qwen3_next": {**attention, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                   "shared_expert_intermediate_size": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
                   "linear_key_head_dim": 8, "linear_value_head_dim": 8,
                   "layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    "recurrent_gemma": {**attention, "lru_width": 32, "attention_window_size": 16},
    "rwkv": dict(attention_hidden_size=32, intermediate_size=48, context_length=64),
}
row = torch.randint(3, 60, (1, 9), generator=torch.Generator().manual_seed(1))
padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), row], 1)
asked = dict(max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True)
as_described = True
for family, sizes in families.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **common, **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
        alone = model.generate(row, attention_mask=torch.ones_like(row), **asked).logits[0]
        beside = model.generate(padded, attention_mask=(padded != 0).long(), **asked).logits[0]
    off = ((alone - beside).abs().max() / alone.std()).item()
    print(f"{family:16} logits of the next token off by {off:.1e} of their standard deviation")
    as_described &= off > 5e-2 if family in ("recurrent_gemma", "rwkv") else off < 1e-4
print("messages:", messages)
as_described &= not any("mask" in each or "pad" in each for each in messages)
print("as described" if as_described else "CHANGED")
raise SystemExit(not as_described)
PY
