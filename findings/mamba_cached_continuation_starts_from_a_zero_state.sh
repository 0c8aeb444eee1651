#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.15.0: Mamba, Falcon Mamba, Jamba and Bamba do not go on from the cache they returned.
#
# Guess: run the beginning of a text once, keep its cache, and run each ending from there: the logits are those of the
# whole text, as they are for Llama, Mamba 2 and Falcon H1.
# Seen: for Mamba, Falcon Mamba and Jamba they are when the ending is one token, and are not when it is longer; for Bamba
# they are not in either case, unless position_ids are given. Nothing is raised or logged.
# Why: only the branch for a single token reads the recurrent state; the branch for several convolves over the cached
# inputs but scans from zero, and writes that state back. Bamba numbers the positions of every call from 0.
# Who meets it: whoever scores several endings of one prompt, or feeds a long text in pieces. generate() goes token by
# token, with positions, and is right.
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
common = dict(vocab_size=60, hidden_size=32, num_hidden_layers=3, pad_token_id=0)
attention = dict(intermediate_size=48, num_attention_heads=4, num_key_value_heads=2)
second = dict(mamba_d_state=8, mamba_n_heads=8, mamba_d_head=8, mamba_n_groups=1, mamba_chunk_size=8)
families = {
    "llama": attention,
    "mamba2": dict(state_size=8, num_heads=8, head_dim=8, n_groups=1, chunk_size=8),
    "falcon_h1": {**attention, **second, "mamba_d_ssm": 64},
    "mamba": dict(state_size=8),
    "falcon_mamba": dict(state_size=8),
    "jamba": {**attention, "num_experts": 2, "num_experts_per_tok": 1, "attn_layer_period": 2, "attn_layer_offset": 1,
              "use_mamba_kernels": False, "mamba_d_state": 8, "mamba_dt_rank": 4},
    "bamba": {**attention, **second, "attn_layer_indices": [1]},
}
tokens = torch.randint(3, 60, (1, 12), generator=torch.Generator().manual_seed(1))
off = {}
for family, sizes in families.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **common, **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        whole = model(tokens).logits[0]
        for ending in (1, 5):
            cut = tokens.shape[1] - ending
            for given in ({}, {"position_ids": torch.arange(cut, tokens.shape[1])[None]}):
                if given and family != "bamba":
                    continue
                begun = model(tokens[:, :cut], use_cache=True)
                cache = "cache_params" if "cache_params" in begun else "past_key_values"
                ended = model(tokens[:, cut:], **{cache: begun[cache]}, use_cache=True, **given).logits[0]
                far = ((ended - whole[cut:]).abs().max() / whole.std()).item()
                off[family, ending, bool(given)] = far
                print(f"{family:12} last {ending} of 12 tokens from the cache{', with position_ids' * bool(given):19} "
                      f"logits off by {far:.1e} of their standard deviation")
wrong = {("mamba", 5, False), ("falcon_mamba", 5, False), ("jamba", 5, False), ("bamba", 1, False), ("bamba", 5, False)}
as_described = all(far > 5e-3 if case in wrong else far < 1e-4 for case, far in off.items())
print("as described" if as_described else "CHANGED")
raise SystemExit(not as_described)
PY
