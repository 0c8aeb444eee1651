#!/usr/bin/env bash
# sae-dashboard 0.8.0: the correlated latents of a Neuronpedia batch file are those of its own batch, with BOS counted.
#
# Guess: correlated_features_indices names the latents of the dictionary that fire most alike on the texts,
# correlated_features_pearson their correlations and correlated_features_l1 something of an L1 norm, as
# neuron_alignment_l1 beside it.
# Seen: with 256 latents and the default batch of 128, a latent's twin in the other batch (correlation 0.98) is not named,
# and what is named first has 0.29. A batch of 2, the command line's default, names the neighbour and the latent itself, at
# 0. The correlations named first have the median 0.63, and the same pairs 0.29 on the words alone, without BOS. The field
# _l1 holds cosines.
# Why: sums of products are kept for the latents of a batch alone, and before the tokens of ignore_tokens are masked, which
# the runner fills with BOS and which count nowhere else: there the residual stream of GPT-2 and others is many times as
# long, and half of all latents fire. The converter puts the list "cossim" under the name "l1", for neurons too.
# Who meets it: whoever reads correlations from batch files. n_features_at_a_time of the whole dictionary compares all
# latents; prepend_bos=False leaves BOS out, where the model does without.
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
D, LATENTS, WORDS, LENGTH, BOS, HOOK = 32, 256, 200, 32, "<|endoftext|>", "blocks.1.hook_resid_pre"
torch.manual_seed(0)
model = GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_embd=D, n_layer=2, n_head=2, n_positions=64, n_ctx=64,
                                   bos_token_id=0, eos_token_id=0))
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    model.transformer.wte.weight[0] *= 200  # as GPT-2's stream is at its first token
model.save_pretrained("gpt2")  # the folder that transformers and TransformerLens take for the name
words = Tokenizer(models.WordLevel({BOS: 0, **{f"w{i}": i for i in range(1, WORDS)}}, unk_token=BOS))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
PreTrainedTokenizerFast(tokenizer_object=words, bos_token=BOS, eos_token=BOS, pad_token=BOS).save_pretrained("gpt2")
Path("texts").mkdir()
rows = torch.randint(1, WORDS, (300, LENGTH), generator=torch.Generator().manual_seed(1)).tolist()
lines = [json.dumps({"text": " ".join(f"w{word}" for word in row)}) for row in rows]
Path("texts", "train.jsonl").write_text("\n".join(lines))
sae = StandardSAE(StandardSAEConfig(d_in=D, d_sae=LATENTS, metadata=SAEMetadata(
    model_name="gpt2", hook_name=HOOK, prepend_bos=True, context_size=LENGTH)))
with torch.no_grad():
    sae.W_enc.copy_(torch.randn(D, LATENTS))
    sae.W_enc[:, 200] = sae.W_enc[:, 0] + 0.05 * torch.randn(D)  # the twin of latent 0
    sae.W_dec.copy_(torch.nn.functional.normalize(sae.W_enc.T, dim=-1))
    sae.b_enc.fill_(-12)
sae.save_model("sae")


def made(**settings) -> tuple[dict[int, dict], torch.Tensor]:
    """What the batch files say of each latent, and the latents (prompt, position, latent) of the run's prompts."""
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
        stream = runner.model.run_with_cache(tokens, names_filter=HOOK)[1][HOOK]
        return {each["feature_index"]: each for each in said}, runner.sae.encode(stream).double()


def others(latents: torch.Tensor) -> torch.Tensor:
    """Correlations of latents with each other, 0 with themselves."""
    return latents.flatten(0, 1).T.corrcoef().nan_to_num().fill_diagonal_(0)


said, latents = made()
counted, on_words = others(latents), others(latents[:, 1:])
flat = latents.flatten(0, 1)
cosine = torch.nn.functional.normalize(flat, dim=0).T @ torch.nn.functional.normalize(flat, dim=0)
named = {i: each["correlated_features_indices"] for i, each in said.items()}
first = torch.tensor([[i, at[0]] for i, at in sorted(named.items())]).T
told = torch.tensor([said[i]["correlated_features_pearson"][0] for i in sorted(said)])
kept = sum(on_words[i].argmax().item() in named[i] for i in named) / LATENTS
cosines = all(abs(cosine[i, j] - x) < 2e-3 for i in named for j, x in zip(named[i], said[i]["correlated_features_l1"]))
print(f"twins 0 and 200 have {on_words[0, 200]:.3f} on the words; named for 0: {named[0]} with "
      f"{said[0]['correlated_features_pearson']}, and on the words {[round(on_words[0, j].item(), 3) for j in named[0]]}")
print(f"of all latents {kept:.0%} have the one most like them on the words among the three that are named")
print(f"median of the correlations named first: {told.median():.2f}, with BOS {counted[*first].median():.2f}, without "
      f"{on_words[*first].median():.2f}; of the largest without BOS {on_words.max(1).values.median():.2f}")
print("correlated_features_l1 are cosines of the activations:", cosines)
whole, pair = made(n_features_at_a_time=LATENTS)[0], made(n_features_at_a_time=2, end_batch=0)[0]
print("of a batch of 256, for latent 0:", whole[0]["correlated_features_indices"], "; of a batch of 2:",
      pair[0]["correlated_features_indices"], pair[0]["correlated_features_pearson"])
as_described = (
    on_words[0, 200] > 0.95 and cosines and all(i // 128 == j // 128 for i in named for j in named[i])
    and sorted(pair[0]["correlated_features_indices"]) == [0, 1] and kept < 0.6
    and abs(told.median() - counted[*first].median()) < 2e-3 and told.median() > on_words[*first].median() + 0.3
)
print("as described" if as_described else "CHANGED")
raise SystemExit(not as_described)
PY
