#!/usr/bin/env bash
# transformers 5.23.0 with gguf 0.19.0: a Llama read from a GGUF file loses its rotary scaling, and nothing says so.
#
# Guess: the file says how its rotary frequencies are scaled, so the model read from it is the model that was written.
# Seen: both forms in which a file says it are passed over, and the frequencies are the plain powers of theta. The
# tensor rope_freqs.weight (Llama 3.1 to 3.3, whose rope_type is "llama3") and the keys llama.rope.scaling.type and
# .factor ("linear") are left out; the log-probabilities move, and no warning is logged. Without scaling, the same
# way of writing gives the model back to rounding.
# Why: the table of keys that the reader knows has rope.freq_base alone, and a tensor without a parameter to go to is
# skipped. (Only gpt-oss has code of its own for rope.scaling.)
# Who meets it: whoever measures a quantised Llama 3 through transformers and compares with the original; the longer
# the text, the larger the difference.
#
# Prints "as described" and ends with 0 while this is so; ends with 1 when it has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q "torch==2.15.0" "transformers==5.23.0" "gguf==0.19.0" "accelerate==1.15.0"
"$place/venv/bin/python" - "$place" <<'PY'
import logging
import sys
from pathlib import Path

import gguf
import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

HEADS, HEAD, LAYERS, VOCAB = 2, 64, 2, 60
messages: list[str] = []


class Keep(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        messages.append(record.getMessage())


logging.getLogger("transformers").addHandler(Keep(logging.WARNING))
transformers.logging.disable_progress_bar()


def network(rope: dict) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCAB, hidden_size=HEADS * HEAD, intermediate_size=128, num_hidden_layers=LAYERS,
                         num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=4096,
                         tie_word_embeddings=True, rms_norm_eps=1e-5, rope_parameters=rope)
    made = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def write(path: Path, model: LlamaForCausalLM) -> Path:
    config, rope = model.config, model.config.rope_parameters
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(HEAD)
    writer.add_vocab_size(VOCAB)
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "llama3":
        divisors = plain(rope["rope_theta"]) / model.model.rotary_emb.inv_freq
        writer.add_tensor("rope_freqs.weight", divisors.numpy())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    for name, parameter in model.named_parameters():
        weight = parameter.detach()
        if "q_proj" in name or "k_proj" in name:  # a pair's two halves side by side
            weight = weight.reshape(HEADS, 2, HEAD // 2, -1).transpose(1, 2).reshape(weight.shape)
        writer.add_tensor(names.get_name(name.removesuffix(".weight")) + ".weight", weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def plain(theta: float) -> torch.Tensor:
    return theta ** -(torch.arange(0, HEAD, 2).float() / HEAD)


print("transformers", transformers.__version__, "torch", torch.__version__)
tokens = torch.randint(3, VOCAB, (1, 2000), generator=torch.Generator().manual_seed(1))
ropes = {
    "none": {"rope_type": "default", "rope_theta": 10000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "llama3": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 1024},
}
off = {}
for kind, rope in ropes.items():
    written = network(rope)
    path = write(Path(sys.argv[1]) / f"{kind}.gguf", written)
    held = {*gguf.GGUFReader(path).fields, *(each.name for each in gguf.GGUFReader(path).tensors)}
    read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    with torch.no_grad():
        right, wrong = (model(tokens).logits[0].log_softmax(-1) for model in (written, read))
    off[kind] = (right - wrong).abs().max().item()
    unscaled = torch.allclose(read.model.rotary_emb.inv_freq, plain(rope["rope_theta"]))
    print(f"{kind:7} in the file: {sorted(each for each in held if 'scaling' in each or 'freqs' in each)}")
    print(f"        read as {read.config.rope_parameters}; plain frequencies: {unscaled}; "
          f"log-probabilities off by at most {off[kind]:.2g}; same first choice at "
          f"{(right.argmax(-1) == wrong.argmax(-1)).float().mean():.1%} of positions")
print("warnings:", messages)
told = any("rope" in each.lower() for each in messages)
as_described = off["none"] < 1e-3 and off["linear"] > 0.1 and off["llama3"] > 0.1 and not told
print("as described" if as_described else "CHANGED")
raise SystemExit(not as_described)
PY
