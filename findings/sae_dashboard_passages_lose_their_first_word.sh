#!/usr/bin/env bash
# sae-dashboard 0.8.0: passages of Neuronpedia batch files lack their first token, also where it is a word and fires most.
#
# Guess: a passage of the top activations shows where the latent fires: values[qualifying_token_index] is the activation
# for which it was chosen, and that of the first passage is bin_max.
# Seen: without BOS, in a model whose residual stream is long at its first position, a third of the latents fire most at a
# first word. It is left out of 99 % of their top passages: qualifying_token_index is -1, for Python the last word, and the
# values shown end at a quarter of bin_max. And of the passages of the lowest interval, from 0 to a fifth of bin_max, 94 %
# are chosen for a word at which the latent is off.
# Why: buffer=None takes whole prompts, and the first token is cut as if one more had been taken on the left, which is so of
# a buffer alone; the converter then subtracts 1. The lowest interval contains its lower bound, 0.
# Who meets it: whoever makes dashboards with prepend_bos=False, or explains latents by passages of all intervals.
# ignore_positions=[0] makes indices and values agree by leaving the first word uncounted; the command line lacks it.
#
# Prints "as described" and ends with 0 while this is so; ends with 1 when it has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q uv  # resolves the 150 packages sooner
# pyarrow: 26.0.1, the newest, refuses the NumPy below 2 that transformer-lens asks for, and declares no requirement.
"$place/venv/bin/uv" pip install -q --python "$place/venv/bin/python" "sae-dashboard==0.8.0" "sae-lens==6.54.12" "torch==2.15.0" \
    "pyarrow==21.0.0"
cd "$place"
HF_HUB_OFFLINE=1 HF_HOME="$place" "$place/venv/bin/python" -W ignore - <<'PY'
import contextlib
import io
import json
from importlib.metadata import version
from pathlib import Path

import torch
from sae_dashboard.neuronpedia.neuronpedia_runner import NeuronpediaRunner
from sae_dashboard.neuronpedia.neuronpedia_runner_config import NeuronpediaRunnerConfig
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

print("sae-dashboard", version("sae-dashboard"), "sae-lens", version("sae-lens"), "torch", torch.__version__)
D, LATENTS, WORDS, LENGTH, END, HOOK = 32, 64, 200, 32, "<|endoftext|>", "blocks.1.hook_resid_pre"
torch.manual_seed(0)
model = GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_embd=D, n_layer=2, n_head=2, n_positions=64, n_ctx=64,
                                   bos_token_id=0, eos_token_id=0))
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    model.transformer.wpe.weight[0] *= 60  # as GPT-2's stream is at its first position, whatever the word
model.save_pretrained("gpt2")  # the folder that transformers and TransformerLens take for the name
words = Tokenizer(models.WordLevel({END: 0, **{f"w{i}": i for i in range(1, WORDS)}}, unk_token=END))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
PreTrainedTokenizerFast(tokenizer_object=words, bos_token=END, eos_token=END, pad_token=END).save_pretrained("gpt2")
Path("texts").mkdir()
rows = torch.randint(1, WORDS, (300, LENGTH), generator=torch.Generator().manual_seed(1)).tolist()
lines = [json.dumps({"text": " ".join(f"w{word}" for word in row)}) for row in rows]
Path("texts", "train.jsonl").write_text("\n".join(lines))
sae = StandardSAE(StandardSAEConfig(d_in=D, d_sae=LATENTS, metadata=SAEMetadata(
    model_name="gpt2", hook_name=HOOK, prepend_bos=False, context_size=LENGTH)))
with torch.no_grad():
    sae.W_enc.copy_(torch.randn(D, LATENTS))
    sae.W_dec.copy_(torch.nn.functional.normalize(sae.W_enc.T, dim=-1))
    sae.b_enc.fill_(-20)
sae.save_model("sae")


def share(found: list[bool]) -> float:
    return sum(found) / len(found)


def made(**settings) -> tuple[float, float, float]:
    """Of latents that fire most at a first word: top passages without it, values shown of bin_max, and lowest ones off."""
    config = NeuronpediaRunnerConfig(
        sae_set="mine", sae_path="sae", from_local_sae=True, huggingface_dataset_path="texts", n_prompts_total=128,
        n_tokens_in_prompt=LENGTH, outputs_dir=f"out {settings}", shuffle_tokens=False, **settings)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        runner = NeuronpediaRunner(config)
        runner.run()
    folder = Path(runner.cfg.outputs_dir)
    said = [each for path in folder.glob("batch-*.json") for each in json.loads(path.read_text())["features"]]
    tokens = torch.load(next(folder.glob("tokens_*.pt")))
    with torch.no_grad():
        latents = runner.sae.encode(runner.model.run_with_cache(tokens, names_filter=HOOK)[1][HOOK])
    at_first = latents[:, 0].amax(0) > latents[:, 1:].amax((0, 1))
    firing = [each for each in said if at_first[each["feature_index"]] and latents[:, 1:, each["feature_index"]].any()]
    passages = [each for latent in firing for each in latent["activations"]]
    top = [each for each in passages if each["bin_min"] == -1]
    lowest = [each for each in passages if each["bin_min"] == 0 and each["qualifying_token_index"] >= 0]
    cut = share([each["qualifying_token_index"] == -1 for each in top])
    shown = [max(max(each["values"]) for each in latent["activations"]) / latent["activations"][0]["bin_max"]
             for latent in firing]
    off = share([each["values"][each["qualifying_token_index"]] == 0 for each in lowest])
    shown = torch.tensor(shown).median().item()
    print(f"{settings or 'as it is'}: {len(firing)} of {LATENTS} latents fire most at a first word, and at others; their "
          f"passages have {len(top[0]['tokens'])} of {LENGTH} words; index -1 in {cut:.0%} of {len(top)} top passages; "
          f"values up to {shown:.0%} of bin_max in the median; off at the word of {off:.0%} of the lowest interval")
    return cut, shown, off


whole, later = made(), made(ignore_positions=[0])
as_described = whole[0] > 0.4 and whole[1] < 0.5 and whole[2] > 0.7 and later[0] < 0.02 and later[1] > 0.99 and later[2] > 0.7
print("as described" if as_described else "CHANGED")
raise SystemExit(not as_described)
PY
