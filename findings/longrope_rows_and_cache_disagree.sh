#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.15.0: under LongRoPE a prompt's logits depend on its neighbours in the batch, and
# generate() writes another text with its cache than without.
#
# Guess: rows of a batch do not touch one another, and use_cache only saves time.
# Seen: with rope_type "longrope" a short prompt's logits change when a row beside it is longer than
# original_max_position_embeddings; and for Llama and Mistral greedy generate() with use_cache=True leaves what
# use_cache=False writes once the text has grown past that length. Phi-3 makes its cache anew there, and agrees.
# Why: short or long factors are chosen once a call, by the largest position of any row; keys that are in the cache
# keep the factors under which they were made.
# Who meets it: whoever batches prompts around that length, or compares kept activations of a whole text with those
# of its generation.
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
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Phi3Config

transformers.logging.set_verbosity_error()
print("transformers", transformers.__version__, "torch", torch.__version__)
ORIGINAL = 8
rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0],
        "original_max_position_embeddings": ORIGINAL, "factor": 4.0}
sizes = dict(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2, max_position_embeddings=32)
short = torch.tensor([[5, 6, 7, 8, 9]])
as_described = True
for kind in (LlamaConfig, MistralConfig, Phi3Config):
    own = {"original_max_position_embeddings": ORIGINAL} if kind is Phi3Config else {}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(**sizes, **own, rope_parameters=rope)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        alone = model(short).logits[0]
        moved = {}
        for length in (ORIGINAL, ORIGINAL + 1):
            rows = torch.full((2, length), 4)
            rows[0, :5], mask = short[0], torch.ones(2, length, dtype=torch.long)
            mask[0, 5:] = 0
            moved[length] = (model(rows, attention_mask=mask).logits[0, :5] - alone).abs().max().item()
        asked = dict(max_new_tokens=16, do_sample=False, eos_token_id=None)
        texts = [model.generate(short, use_cache=use, **asked)[0, 5:].tolist() for use in (True, False)]
    for length, by in moved.items():
        print(f"{kind.__name__:13} beside a row of {length} tokens, the logits of 5 tokens move by {by:.1e}")
    print(f"{kind.__name__:13} generated with cache    {texts[0]}\n{kind.__name__:13} generated without cache {texts[1]}")
    as_described &= moved[ORIGINAL] < 1e-5 and moved[ORIGINAL + 1] > 1e-2
    as_described &= (texts[0] == texts[1]) == (kind is Phi3Config)
print("as described" if as_described else "CHANGED")
raise SystemExit(not as_described)
PY
