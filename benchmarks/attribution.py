"""Attribution of all heads by position, all neurons, residual streams and MLP outputs: GPT-2 small's shape, 8 pairs.

Beside ours, on the same random weights and 15-token prompts, in common rounds:
- the floor that a careful user of the bare module could reach without instrument: two plain forwards and one backward
  to the embeddings alone (parameters frozen), all logits computed; it scores nothing;
- TransformerLens 3.9's way, two filtered caches and their gradients (`--tl-python`), parameters as they come, and
  frozen;
- TransformerLens 4.3's own tool, `attribution_patch` (`--tl4-python`), which scores embeddings, heads and MLP outputs
  alone; held against all that ours scores, and against ours asked for heads and MLP outputs.
Before anything is timed, scores must agree to 1e-5 of the largest of their kind (float32; otherwise they are told).
Peak memory is taken in a process of its own for ours and for the floor, above what is held once the model is loaded.

Usage: uv run python benchmarks/attribution.py [--tl-python PATH] [--tl4-python PATH] [--rounds 30]
"""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import memory
import numpy as np
import torch
from paired import Contender, Match
from peer import Peer, peer
from recording import Record, arguments, in_own_process, parse
from shapes import (
    add_flags,
    arrays,
    chosen_model,
    lens_python,
    lens_settings,
    lens_weights,
    save,
    some_tokens,
    timed,
    title,
    wait,
    words,
)
from torch import Tensor

from micrographia.core.metrics import logit_difference
from micrographia.core.pretrained import load
from micrographia.core.prompts import Pairs
from micrographia.core.runtime import settings
from micrographia.methods.attribution.attribute import attribute

SITES = ("L*.z", "L*.neurons", "L*.resid_pre", "L*.mlp_out")
TOOL_SITES = ("L*.z", "L*.mlp_out")  # of those, what TransformerLens 4.3's tool scores
TOOL_PART = {
    "part": "TransformerLens 4.3's attribution_patch scores embeddings, heads and MLP outputs by position, not neurons "
    "nor residual streams. It takes one pair after the other; it is called once a pair, as its own loop does, since "
    "answers differ and it gives means alone."
}
AGREE = 1e-5
FLOOR_TARGET = 1 / 0.9

Run = Callable[[], Any]


def ours(module: Any, tokens: dict[str, Tensor], sites: Sequence[str] = SITES) -> Run:
    model = load(module)
    pairs = Pairs(tokens["clean"], tokens["corrupt"], tokens["right"], tokens["wrong"])
    metric = logit_difference(tokens["right"], tokens["wrong"])
    return lambda: attribute(model, pairs, metric, sites).scores


def floor(module: Any, tokens: dict[str, Tensor]) -> Run:
    """Two forwards with all logits, one of them with a graph from the embeddings on, and the backward pass."""
    rows = torch.arange(len(tokens["right"]), device=tokens["right"].device)

    def run() -> Tensor:
        module.requires_grad_(False)
        with torch.no_grad():
            module(input_ids=tokens["clean"], use_cache=False)
            begun = module.get_input_embeddings()(tokens["corrupt"])
        begun.requires_grad_()
        logits = module(inputs_embeds=begun, use_cache=False).logits
        gap = logits[rows, -1, tokens["right"]] - logits[rows, -1, tokens["wrong"]]
        return torch.autograd.grad(gap.sum(), [begun])[0]

    return run


CONTENDERS: dict[str, Callable[..., Run]] = {"ours": ours, "floor": floor}


def own_peak(name: str, chosen: Any) -> dict[str, float]:
    """Held with the model loaded, and the peak above it."""
    with settings(chosen.threads, chosen.device):
        module = chosen_model(chosen)
        tokens = some_tokens(module.config.vocab_size, chosen.device)
        run = ours(module, tokens, chosen.sites) if name == "ours" else floor(module, tokens)
        before = memory.reset_peak(chosen.device)
        for _ in range(3):
            run()
        wait(chosen.device)
        return {"resident_mib": before, "peak_above_mib": memory.peak(chosen.device) - before}


def peaks(chosen: Any) -> dict[str, dict[str, float]]:
    """That of each in a process of its own, so that nothing of the other is counted."""
    if chosen.smoke:
        return {"ours": own_peak("ours", chosen)}
    found = {}
    for name in CONTENDERS:
        found[name] = in_own_process(__file__, "--peak", name, *words(chosen), "--sites", *chosen.sites)
        print(name, found[name], flush=True)
    return found


def agreement(mine: dict[str, np.ndarray], theirs: dict[str, np.ndarray], *, judged: bool) -> dict[str, float]:
    """The largest difference by kind, as a share of its largest score. Ends the program where that is too large."""
    apart = {}
    for kind in sorted({name.partition(".")[2] for name in mine} & {name.partition(".")[2] for name in theirs}):
        names = [name for name in mine if name.endswith(f".{kind}")]
        largest = max(float(np.abs(theirs[name]).max()) for name in names)
        apart[kind] = max(float(np.abs(mine[name] - theirs[name]).max()) for name in names) / largest
    if judged and max(apart.values()) > AGREE:
        raise SystemExit(f"Scores differ by {apart} of the largest of their kind. Nothing was timed.")
    return apart


class Bench:
    """The contenders that are there, agreed with before they are timed."""

    def __init__(self, chosen: Any, record: Record, stack: ExitStack) -> None:
        self.chosen, self.record, self.stack = chosen, record, stack
        self.module = chosen_model(chosen)
        self.tokens = some_tokens(self.module.config.vocab_size, chosen.device)
        self.run = ours(self.module, self.tokens, chosen.sites)
        self.mine = timed("micrographia", self.run, chosen.device)
        self.judged = chosen.dtype == "float32" and not chosen.smoke  # a miniature's scores are nearer to rounding
        self.apart: dict[str, dict[str, float]] = {}
        self.peers: dict[str, dict[str, Any]] = {}

    def match(
        self, theirs: Contender, target: float | None = None, ours: Contender | None = None, **about: str
    ) -> Match:
        return Match(ours or self.mine, theirs, "attribution", target, about)

    def plain(self) -> list[Match]:
        run = floor(self.module, self.tokens)
        return [self.match(timed("two plain forwards and a backward", run, self.chosen.device), FLOOR_TARGET)]

    def lens(self) -> list[Match]:
        """TransformerLens 3.9, in both ways."""
        chosen = lens_settings(self.chosen, self.module.config)
        given = {"weights": lens_weights(self.module), "tokens": arrays(self.tokens)}
        other = self.stack.enter_context(peer(self.chosen.tl_python, "attribution_worker.py", chosen, given))
        above = {how: float(other.ask("write", how, 1)[0]) for how in ("frozen", "default")}
        self._agree("TransformerLens 3.9", other, above)
        ways = {how: partial(other.ask, "time", how) for how in above}
        return [self.match(Contender(f"TransformerLens, {how}", run)) for how, run in ways.items()]

    def tool(self) -> list[Match]:
        """TransformerLens 4.3's tool, against all of ours and against ours for what the tool scores."""
        chosen = {"threads": self.chosen.threads, "device": self.chosen.device, "dtype": self.chosen.dtype}
        given = {"tokens": arrays(self.tokens)}
        fill = partial(save, self.module)
        other = self.stack.enter_context(peer(self.chosen.tl4_python, "tool_worker.py", chosen, given, fill))
        self._agree("TransformerLens 4.3", other, {"tool": float(other.ask("write", "tool", 1)[0])})
        theirs = Contender("TransformerLens 4.3, attribution_patch", partial(other.ask, "time", "tool"))
        some = ours(self.module, self.tokens, TOOL_SITES)
        same = timed("micrographia, heads and MLP outputs", some, self.chosen.device)
        return [self.match(theirs, **TOOL_PART), self.match(theirs, ours=same, **TOOL_PART)]

    def _agree(self, name: str, other: Peer, above: dict[str, float]) -> None:
        version, their_torch, held = other.ready
        self.peers[name] = {"version": version, "torch": their_torch, "resident_mib": float(held)}
        self.peers[name]["peak_above_mib"] = above
        mine = {str(site): score.float().cpu().numpy() for site, score in self.run().items()}
        self.apart[name] = agreement(mine, other.arrays("theirs"), judged=self.judged)
        print(name, self.peers[name], self.apart[name], flush=True)
        self.record.put(peers=self.peers, apart=self.apart)


def measure(chosen: Any, record: Record) -> None:
    record.put(shape=chosen.shape, sites=chosen.sites, memory=peaks(chosen))
    with ExitStack() as stack:
        bench = Bench(chosen, record, stack)
        matches = bench.plain()
        for python, others in ((chosen.tl_python, bench.lens), (chosen.tl4_python, bench.tool)):
            if python is None:
                print("A TransformerLens was left out: see --tl-python and --tl4-python.")
            else:
                matches += others()
        record.compare(matches)
    record.finish()


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.set_defaults(rounds=30)
    add_flags(parser)
    lens_python(parser)
    parser.add_argument("--tl4-python", type=Path, help="Python of an environment with transformer-lens 4.3")
    parser.add_argument("--sites", nargs="+", default=list(SITES), help="what is attributed")
    parser.add_argument("--peak", choices=sorted(CONTENDERS), help="only print this contender's memory")
    chosen = parse(parser)
    if chosen.peak:
        print(json.dumps(own_peak(chosen.peak, chosen)))
        return
    with settings(chosen.threads, chosen.device):
        measure(chosen, Record(title("attribution", chosen), chosen, device=chosen.device, dtype=chosen.dtype))


if __name__ == "__main__":
    main()
