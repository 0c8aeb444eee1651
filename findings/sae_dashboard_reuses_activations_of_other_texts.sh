#!/usr/bin/env bash
# sae-dashboard 0.8.0: a second run of the Neuronpedia runner shows the activations of the first one's texts, and model.
#
# Guess: batch files of a run with other texts, another suffix or a fine-tuned model, in an output folder of their own,
# hold the latents of the passages that they show.
# Seen: all passages of the first run are right. Of later runs from the same working directory 2 to 6 % are, mostly those
# where the latent is off: words of the new prompts beside latents of the old ones, row by row, and nothing is said. With
# the folder cached_activations removed all are right.
# Why: the activations are kept in ./cached_activations/MODEL_SET_HOOK_WIDTHwidth_Nprompts, whatever outputs_dir is. Its
# name says nothing of the texts, np_sae_id_suffix or hf_model_path, and what lies there is read unseen. A run with a new
# outputs_dir or suffix draws and shuffles its prompts anew, without a seed, so that even the same texts do not fit.
# Who meets it: whoever makes dashboards of several L0 of one width, told apart by their suffix, on a second data set, or of
# a base and a tuned model. Remove cached_activations before each.
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
import shutil
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
D, LATENTS, WORDS, LENGTH, BOS, HOOK = 16, 32, 200, 16, "<|endoftext|>", "blocks.1.hook_resid_pre"
vocabulary = {BOS: 0, **{f"w{i}": i for i in range(1, WORDS)}}


def save_model(folder: str, seed: int) -> None:
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_embd=D, n_layer=2, n_head=2, n_positions=64, n_ctx=64,
                                       bos_token_id=0, eos_token_id=0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=BOS))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token=BOS, eos_token=BOS, pad_token=BOS).save_pretrained(folder)


def save_texts(folder: str, seed: int) -> None:
    rows = torch.randint(1, WORDS, (200, LENGTH), generator=torch.Generator().manual_seed(seed)).tolist()
    Path(folder).mkdir()
    lines = [json.dumps({"text": " ".join(f"w{word}" for word in row)}) for row in rows]
    Path(folder, "train.jsonl").write_text("\n".join(lines))


def right(outputs: str, **settings) -> float:
    """The share of passages with the latents that their words have in the model of this run."""
    config = NeuronpediaRunnerConfig(
        sae_set="mine", sae_path="sae", from_local_sae=True, outputs_dir=outputs, n_prompts_total=64,
        n_tokens_in_prompt=LENGTH, **settings)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        runner = NeuronpediaRunner(config)
        runner.run()
    fit = []
    for path in Path(runner.cfg.outputs_dir).glob("batch-*.json"):
        for latent in json.loads(path.read_text())["features"]:
            shown = latent["activations"]
            tokens = torch.tensor([[0, *map(vocabulary.get, each["tokens"])] for each in shown])
            values = torch.tensor([each["values"] for each in shown])
            with torch.no_grad():
                stream = runner.model.run_with_cache(tokens, names_filter=HOOK)[1][HOOK]
                own = runner.sae.encode(stream)[:, 1:, latent["feature_index"]]
            fit.append(((own - values).abs() < 2e-3).all(-1))
    return torch.cat(fit).double().mean().item()


save_model("gpt2", 0)  # the folder that transformers and TransformerLens take for the name
save_model("tuned", 1)
save_texts("texts", 2)
save_texts("others", 3)
torch.manual_seed(4)
sae = StandardSAE(StandardSAEConfig(d_in=D, d_sae=LATENTS, metadata=SAEMetadata(
    model_name="gpt2", hook_name=HOOK, prepend_bos=True, context_size=LENGTH)))
with torch.no_grad():
    sae.W_enc.copy_(torch.randn(D, LATENTS))
    sae.W_dec.copy_(torch.nn.functional.normalize(sae.W_enc.T, dim=-1))
    sae.b_enc.fill_(-3)
sae.save_model("sae")
first = right("out", huggingface_dataset_path="texts")
print(f"first run: {first:.1%} of passages have the latents of their words; written:", *Path().glob("cached_activations/*"))
later = {
    "another suffix": dict(np_sae_id_suffix="other", huggingface_dataset_path="texts"),
    "other texts": dict(huggingface_dataset_path="others"),
    "a tuned model": dict(hf_model_path="tuned", huggingface_dataset_path="texts"),
}
stale = {name: right(f"out {name}", **settings) for name, settings in later.items()}
alone = {}
for name, settings in later.items():
    shutil.rmtree("cached_activations")
    alone[name] = right(f"again {name}", **settings)
    print(f"then {name}: {stale[name]:.1%}; with cached_activations removed before it {alone[name]:.1%}")
as_described = first == 1 and all(stale[name] < 0.1 and alone[name] == 1 for name in later)
print("as described" if as_described else "CHANGED")
raise SystemExit(not as_described)
PY
