"""Feature bundles: building one against SAEDashboard 0.8 on the same dictionary and tokens, and reading pages from it.

A GPT-2 of random weights, a JumpReLU dictionary of random directions whose thresholds leave an L0 of 50. Ours makes
the whole bundle of all latents, the model's pass included, without and with labels. SAEDashboard makes what its
NeuronpediaRunner writes, 128 latents at a time; `--part` of those batches are timed a round, spread over the
dictionary, the model's activations kept on its disk from the warm-up on, as the runner does: so its pass is free. Its
costliest case, TopK, which encodes all latents anew for every batch, is not taken. Both must agree on the largest
activation and on how often each latent of a batch fires before anything is timed. Beside it the floor of ours: the run
and a dense encoding, nothing kept.

Usage: uv run python benchmarks/feature_bundle.py [--dash-python PATH] [--part 1]
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import memory
import numpy as np
import torch
from paired import Contender, Match
from peer import Peer, peer
from recording import Record, arguments, parse
from shapes import arrays, lens_settings, lens_weights
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from micrographia.core.dictionaries.dictionary import About, Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.core.pretrained import load
from micrographia.core.runtime import generator, settings
from micrographia.core.sites import Site
from micrographia.methods.dictionaries.evaluation.reading import Counted
from micrographia.methods.dictionaries.features.build import build_bundle
from micrographia.methods.dictionaries.features.bundle import Bundle

SIZES = {"d": 576, "layers": 2, "heads": 9, "vocab": 50257, "latents": 16384, "rows": 512, "n_ctx": 128, "l0": 50}
SMOKE = {"d": 32, "layers": 2, "heads": 4, "vocab": 60, "latents": 64, "rows": 12, "n_ctx": 16, "l0": 6}
BATCH, SMOKE_BATCH = 128, 16
SITE = Site("resid_post", 1)
COUNTED = Counted(skip_first=1)
TARGET, FLOOR_TARGET = 3.0, None
AGREE = 1e-3
READ = 300


def module_of(sizes: Mapping[str, int]) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=sizes["d"], n_layer=sizes["layers"], n_head=sizes["heads"], vocab_size=sizes["vocab"],
        n_positions=sizes["n_ctx"], bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


def dictionary_of(sizes: Mapping[str, int], x: Tensor) -> Dictionary:
    """Unit directions; one threshold for all, above which L0 latents of a token are active."""
    directions = torch.randn(sizes["latents"], sizes["d"], generator=generator(1))
    W_dec = torch.nn.functional.normalize(directions, dim=1)
    pre = x[:: max(1, len(x) // 512)] @ W_dec.T
    threshold = pre.flatten().kthvalue(pre.numel() - sizes["l0"] * len(pre)).values
    weights = DictionaryWeights(
        W_enc=W_dec.T.contiguous(), W_dec=W_dec, b_enc=torch.zeros(len(W_dec)), b_dec=torch.zeros(sizes["d"]),
        threshold=threshold.clamp(min=1e-3).expand(len(W_dec)).contiguous(),
    )  # fmt: skip
    return Dictionary(weights, Form(activation="jumprelu", subtract_b_dec=False), About(model="gpt2", site=SITE))


class Built:
    """Whole bundles, each in a new folder; the last one is kept."""

    def __init__(self, dictionary: Dictionary, model: Any, tokens: Tensor, place: Path, *, labels: bool) -> None:
        self.given = (dictionary, model, tokens, SITE)
        self.folder, self.labels, self.n = place, labels, dictionary.n_latents

    def run(self, latents: int) -> None:
        for _ in range(latents // self.n):
            shutil.rmtree(self.folder, ignore_errors=True)
            build_bundle(*self.given, self.folder, generator=generator(2), counted=COUNTED, labels=self.labels)


def floor(dictionary: Dictionary, model: Any, tokens: Tensor) -> Callable[[int], None]:
    def run(latents: int) -> None:
        for _ in range(latents // dictionary.n_latents):
            for some in tokens.split(16):
                dictionary.encode(model.run(some, keep=SITE, stop=SITE).cache[SITE])

    return run


def agreed(bundle: Bundle, other: Peer, n_tokens: int) -> dict[str, float]:
    """The largest differences of one batch. Ends the program where they are too large."""
    other.ask("compare")
    theirs = other.arrays("compared")
    pages = bundle.pages(theirs["latents"].tolist())
    largest = np.array([page["max"] for page in pages])
    share = np.array([page["n_fires"] / n_tokens for page in pages])
    found = {"max": float(np.abs(largest - theirs["max"]).max()), "share": float(np.abs(share - theirs["share"]).max())}
    if found["max"] > AGREE * max(largest.max(), 1.0) or found["share"] > 2 / n_tokens + 1e-5:  # written in 0.001 %
        raise SystemExit(f"Latents differ by {found}. Nothing was timed.")
    return found


def read_pages(folder: Path) -> dict[str, float]:
    """Seconds to open a bundle and show its first page, and of pages at random."""
    start = time.perf_counter()
    bundle = Bundle.open(folder)
    bundle.index()
    bundle.page(0)
    first, found = time.perf_counter() - start, []
    for latent in torch.randint(bundle.n_latents, (READ,), generator=generator(3)).tolist():
        start = time.perf_counter()
        bundle.page(latent)
        found.append(time.perf_counter() - start)
    size = sum(file.stat().st_size for file in folder.iterdir())
    return {
        "first_page": first, "page_median": float(np.median(found)), "page_95": float(np.quantile(found, 0.95)),
        "bundle_mb": size / 1e6,
    }  # fmt: skip


def measure(chosen: Any, record: Record, place: Path) -> None:
    sizes, batch = (SMOKE, SMOKE_BATCH) if chosen.smoke else (SIZES, BATCH)
    module = module_of(sizes)
    model = load(module)
    tokens = torch.randint(1, sizes["vocab"], (sizes["rows"], sizes["n_ctx"]), generator=generator(0))
    x = model.run(tokens[:8], keep=SITE, stop=SITE).cache[SITE].flatten(0, 1)
    dictionary = dictionary_of(sizes, x)
    n = sizes["latents"]
    alone = Built(dictionary, model, tokens, place / "alone", labels=False)
    before = memory.reset_peak("cpu")
    alone.run(n)
    peak = memory.peak("cpu") - before
    ours = Contender("micrographia", alone.run, whole=n, chunk=n)
    labelled = Contender(
        "micrographia, with labels", Built(dictionary, model, tokens, place / "labelled", labels=True).run, n, n
    )
    least = Contender("a run and dense encoding", floor(dictionary, model, tokens), n, n)
    matches = [Match(ours, least, "latent", FLOOR_TARGET)]
    record.put(sizes=sizes, peak_above_mib=peak)
    with ExitStack() as stack:
        if chosen.dash_python is None:
            print("SAEDashboard was left out: name the Python of an environment that has it.")
        else:
            chosen.device, chosen.dtype, chosen.shape = "cpu", "float32", "gpt2"
            config = {**lens_settings(chosen, module.config), "batch": batch, "hook": "blocks.1.hook_resid_post"}
            data = {"tokens": arrays({"tokens": tokens}), "weights": lens_weights(module)}
            other = stack.enter_context(
                peer(
                    chosen.dash_python, "dashboard_worker.py", config, data,
                    lambda folder: dictionary.save(folder / "sae", "saelens"),
                )
            )  # fmt: skip
            record.put(peer=other.ready, agreement=agreed(Bundle.open(place / "alone"), other, tokens.numel()))
            dashboard = Contender("SAEDashboard", lambda n: other.ask(n), whole=batch, chunk=chosen.part * batch)
            matches += [Match(each, dashboard, "latent", TARGET) for each in (ours, labelled)]
        record.compare(matches)
    record.finish(reading=read_pages(place / "alone"), part=chosen.part, batches=n // batch)


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.set_defaults(rounds=5)
    parser.add_argument("--dash-python", type=Path, help="Python of an environment with sae-dashboard 0.8.0")
    parser.add_argument("--part", type=int, default=1, help="batches of latents that SAEDashboard makes a round")
    chosen = parse(parser)
    with settings(chosen.threads), tempfile.TemporaryDirectory() as place:
        measure(chosen, Record("feature_bundle", chosen), Path(place))


if __name__ == "__main__":
    main()
