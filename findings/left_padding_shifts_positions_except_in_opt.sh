#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.15.0: an attention mask does not move the positions of a left-padded row, save in OPT.
#
# Guess: with a correct attention_mask a left-padded row of a batch gives the logits that it gives alone; where positions
# are learned they are counted from the mask, as OPT does, and where they are rotary a shift changes nothing.
# Seen: GPT-2, GPT-BigCode, GPT-Neo, BioGPT and XGLM give quite other logits, and so does the rotary HunYuan Dense V1;
# Llama and OPT do not. With position_ids counted from the mask all agree, and generate() gives those itself.
# Why: forward() numbers the columns, padding included. BioGPT still has the code that counts from the mask, copied from
# OPT, but its caller always hands it column numbers. HunYuan scales each dimension of queries and keys after rotating
# them, so that the two members of a pair no longer turn as one and the absolute position counts.
# Who meets it: whoever scores or patches padded batches through forward().
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
common = dict(vocab_size=60, pad_token_id=0, bos_token_id=1, eos_token_id=2)
gpt = dict(n_embd=32, n_layer=2, n_head=4, n_positions=64)
wide = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64)
families = {
    "llama": wide,
    "opt": {**wide, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "gpt2": gpt,
    "gpt_bigcode": gpt,
    "gpt_neo": dict(hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global"], 2]], max_position_embeddings=64),
    "biogpt": wide,
    "xglm": dict(d_model=32, ffn_dim=48, num_layers=2, attention_heads=4, max_position_embeddings=64),
    "hunyuan_v1_dense": {**wide, "head_dim": 8, "num_key_value_heads": 4},
}
row = torch.randint(3, 60, (1, 9), generator=torch.Generator().manual_seed(1))
padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), row], 1)
mask = (padded != 0).long()
counted = (mask.cumsum(1) - 1).clamp(min=0)
as_described = True
for family, sizes in families.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **common, **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
        alone = model(row).logits[0]
        off = [((model(padded, attention_mask=mask, **given).logits[0, 5:] - alone).abs().max() / alone.std()).item()
               for given in ({}, {"position_ids": counted})]
    print(f"{family:17} logits off by {off[0]:.1e} of their standard deviation; with position_ids {off[1]:.1e}")
    as_described &= off[1] < 1e-4 and (off[0] < 1e-4 if family in ("llama", "opt") else off[0] > 5e-2)
print("as described" if as_described else "CHANGED")
raise SystemExit(not as_described)
PY
