"""What exact patching and attribution of every neuron cost, by formula, from GPT-2 small's shape to GPT-3's.

FLOPs count a product of m x k by k x n as 2 m k n, and nothing else; attention is counted in full, not halved for the
causal mask. Bytes count each weight once a pass, as long as a pass lasts. The sizes come from the models' own configs
(built without memory), pairs and positions are those of the benchmarks. Beside them, what was measured at GPT-2 small's
shape (the latest files in benchmarks/results), and the rate that follows from both. Markdown on standard output.

Usage: uv run python benchmarks/formulas.py [--prompts 8] [--positions 15] > benchmarks/results/formulas.md
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from recording import RESULTS
from shapes import N_POS, N_PROMPTS, config_of, model

from micrographia.core.model import ModelShape
from micrographia.core.sweep.engine import AT_ONCE
from micrographia.methods.attribution.attribute import saved_bytes

TITLES = {"gpt2": "GPT-2 small", "xl": "GPT-2 XL", "7b": "7B (Llama's shape)", "gpt3": "GPT-3"}
BYTES = {"gpt2": 4}  # of a number: float32 for what was measured on a CPU
HALF = 2  # bfloat16 for the others
DAY = 86_400


class Job(NamedTuple):
    """A model of some shape and the prompts it is asked about. Legend: L layers, N tokens, T positions, d d_model."""

    shape: ModelShape
    parameters: int
    layer_weights: int
    """Entries of one layer's matrices."""
    mlp_weights: int
    n_bytes: int
    n_prompts: int = N_PROMPTS
    n_pos: int = N_POS

    @property
    def n_tokens(self) -> int:
        return self.n_prompts * self.n_pos

    @property
    def n_neurons(self) -> int:
        return self.shape.n_layers * self.shape.d_mlp

    @property
    def n_heads(self) -> int:
        return self.shape.n_layers * self.shape.n_heads

    @property
    def weights(self) -> int:
        """Bytes of all parameters."""
        return self.parameters * self.n_bytes


def job(name: str, *, n_prompts: int = N_PROMPTS, n_pos: int = N_POS, smoke: bool = False) -> Job:
    """The sizes of that shape, counted on the model itself, which is built without its weights."""
    module, config = model(name, smoke=smoke, device="meta"), config_of(name, smoke=smoke)
    block = (module.transformer.h if config.model_type == "gpt2" else module.model.layers)[0]
    d_mlp = config.intermediate_size if config.model_type == "llama" else config.n_inner or 4 * config.n_embd
    shape = ModelShape(
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_heads=config.num_attention_heads,
        n_kv_heads=config.num_attention_heads,
        d_head=config.hidden_size // config.num_attention_heads,
        d_mlp=d_mlp,
        d_vocab=config.vocab_size,
        d_vocab_out=config.vocab_size,
        n_ctx=config.max_position_embeddings,
    )
    matrices, mlp = (sum(p.numel() for p in part.parameters() if p.ndim > 1) for part in (block, block.mlp))
    parameters = sum(p.numel() for p in module.parameters())
    return Job(shape, parameters, matrices, mlp, BYTES.get(name, HALF), n_prompts, n_pos)


def layer(job: Job, n_tokens: int) -> int:
    """One layer forward on so many tokens, each of which sees all T positions: 2 N W + 4 N T d."""
    return n_tokens * (2 * job.layer_weights + 4 * job.n_pos * job.shape.d_model)


def logits(job: Job, n_logits: int) -> int:
    return 2 * n_logits * job.shape.d_model


def all_logits(job: Job) -> int:
    return job.n_tokens * job.shape.d_vocab_out


def answers(job: Job) -> int:
    """Two logits a prompt are all that a logit difference reads."""
    return 2 * job.n_prompts


def forward(job: Job, n_logits: int) -> int:
    return job.shape.n_layers * layer(job, job.n_tokens) + logits(job, n_logits)


def backward(job: Job, n_logits: int) -> int:
    """To activations alone: each product of weights once more, those of attention twice."""
    attention = 4 * job.n_tokens * job.n_pos * job.shape.d_model
    return forward(job, n_logits) + job.shape.n_layers * attention


def two_passes_and_back(job: Job, n_logits: int) -> int:
    return 2 * forward(job, n_logits) + backward(job, n_logits)


def attribution(job: Job) -> int:
    """Whatever the number of neurons; the products of scores are left out."""
    return two_passes_and_back(job, answers(job))


def restarted(job: Job, per_layer: int, skipped: int, begun: int) -> int:
    """`per_layer` places at every layer l and position t, each run from its place on.

    L - l - `skipped` layers on positions t to T, after `begun` FLOPs in the layer of the patch itself.
    """
    whole = sum(job.shape.n_layers - each - skipped for each in range(job.shape.n_layers))
    later = sum(layer(job, job.n_prompts * (job.n_pos - t)) for t in range(job.n_pos))
    own = job.shape.n_layers * job.n_pos * (begun + logits(job, answers(job)))
    return per_layer * (whole * later + own)


def resid_sweep(job: Job) -> int:
    return restarted(job, 1, 0, 0)


def head_sweep(job: Job) -> int:
    """After a head's output: its layer's output matrix and MLP, at that position."""
    out = job.shape.d_model * job.shape.n_heads * job.shape.d_head
    return restarted(job, job.shape.n_heads, 1, 2 * job.n_prompts * (out + job.mlp_weights))


def neuron_sweep(job: Job) -> int:
    """After a neuron: its layer's second matrix, at that position."""
    return restarted(job, job.shape.d_mlp, 1, 2 * job.n_prompts * job.shape.d_mlp * job.shape.d_model)


def neuron_tokens(job: Job) -> float:
    """Tokens that go through the layers in that sweep, in all."""
    return job.n_neurons * job.n_prompts * sum(job.n_pos - t for t in range(job.n_pos))


def neuron_sweep_bytes(job: Job) -> float:
    """Waves of the engine's size for an accelerator read half the layers each on average."""
    return neuron_tokens(job) / AT_ONCE["cuda"] * job.shape.n_layers * job.layer_weights * job.n_bytes / 2


def one_site_each(job: Job) -> int:
    """One tensor of all neurons at all tokens, in bytes."""
    return job.n_tokens * job.n_neurons * job.n_bytes


def graph(job: Job) -> int:
    """What one backward pass saves and the readers hold, all pairs at once."""
    return job.n_tokens * saved_bytes(job.shape) * job.n_bytes // 4


ROWS: dict[str, tuple[str, Callable[[Job], float]]] = {
    "parameters": ("", lambda job: job.parameters),
    "neurons": ("", lambda job: job.n_neurons),
    "one forward, all logits": ("FLOP", lambda job: forward(job, all_logits(job))),
    "exact, every neuron, all positions together: a forward each": (
        "FLOP",
        lambda job: job.n_neurons * forward(job, all_logits(job)),
    ),
    "exact, every neuron at every position: a forward each": (
        "FLOP",
        lambda job: job.n_neurons * job.n_pos * forward(job, all_logits(job)),
    ),
    "the same: weights read": ("B", lambda job: job.n_neurons * job.n_pos * job.weights),
    "the same, restarted at layer and position": ("FLOP", neuron_sweep),
    f"the same, restarted, in waves of {AT_ONCE['cuda']:,} tokens: weights read": ("B", neuron_sweep_bytes),
    "attribution of every neuron at every position": ("FLOP", attribution),
    "attribution: weights read": ("B", lambda job: 3 * job.weights),
    "exact and restarted, over attribution": ("times", lambda job: neuron_sweep(job) / attribution(job)),
    "held: weights": ("B", lambda job: job.weights),
    "held: neurons of both runs and their gradients (cached way)": ("B", lambda job: 3 * one_site_each(job)),
    "held: neurons of one run (streamed)": ("B", one_site_each),
    "held: graph and readers, all pairs at once": ("B", graph),
    "held: residual streams alone (checkpointed)": (
        "B",
        lambda job: 2 * job.n_tokens * job.shape.n_layers * job.shape.d_model * job.n_bytes,
    ),
    "held: the scores, in float32": ("B", lambda job: 4 * job.n_tokens * job.n_neurons),
}


def number(value: float, unit: str) -> str:
    """Three digits and a prefix; powers of a thousand."""
    for prefix, size in (("Z", 1e21), ("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size and unit != "times":
            return _spaced(f"{value / size:,.3g}", f"{prefix}{unit}")
    return _spaced(f"{value:,.0f}", unit)


def _spaced(value: str, unit: str) -> str:
    return f"{value} {unit}".strip()


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def costs(jobs: dict[str, Job]) -> str:
    head = ["", *(f"{TITLES[name]}, {8 * job.n_bytes} bit" for name, job in jobs.items())]
    rows = ([name, *(number(count(job), unit) for job in jobs.values())] for name, (unit, count) in ROWS.items())
    return table(head, rows)


MEASURED: dict[str, Callable[[Job], float]] = {
    "micrographia": attribution,
    "two plain forwards and a backward": lambda job: two_passes_and_back(job, all_logits(job)),
}
SWEEPS: dict[str, tuple[Callable[[Job], float], Callable[[Job], int]]] = {
    "resid_pre": (resid_sweep, lambda job: job.shape.n_layers * job.n_pos),
    "heads": (head_sweep, lambda job: job.n_heads * job.n_pos),
}


def stored(results: Path, pattern: str) -> Iterator[dict[str, Any]]:
    """Results at GPT-2 small's shape on a CPU, the oldest first; no smoke tests."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in results.glob(pattern)]
    for each in sorted(found, key=lambda each: each["date"]):
        if not each["smoke"] and each.get("shape", "gpt2") == "gpt2" and each["machine"]["device"] == "cpu":
            yield each


def measured(job: Job, results: Path) -> str:
    """Median seconds beside the formula, of the latest result each; the benchmarks ran on the pairs of this job."""
    rows, memory, days = {}, {}, 0.0
    for found in stored(results, "attribution-*.json"):
        for each in found["comparisons"]:
            seconds = {each["ours"]: each["ours_seconds"], each["theirs"]: each["theirs_seconds"]}
            rows |= {name: _row(name, seconds[name], 1, MEASURED[name](job)) for name in seconds if name in MEASURED}
        for name, peak in found["memory"].items():
            memory[name] = f"{name} {peak['peak_above_mib']:.0f} MiB above {peak['resident_mib']:.0f} MiB"
    for each in (each for found in stored(results, "patching_*.json") for each in found.get("comparisons", ())):
        flops, count = SWEEPS[each["task"]]
        ours, theirs = (f"{who}, {each['task']} by position" for who in ("micrographia", "TransformerLens"))
        rows[ours] = _row(ours, each["ours_seconds"], count(job), flops(job))
        whole = count(job) * forward(job, all_logits(job))
        rows[theirs] = _row(theirs, each["theirs_seconds"], count(job), whole)
        days = float(np.median(each["theirs_seconds"])) * job.n_neurons * job.n_pos / DAY
    if not rows:
        return "Nothing is stored in benchmarks/results."
    told = table(["", "seconds", "FLOP by formula", "FLOP a second"], rows.values())
    said = [f"Peak memory of attribution: {'; '.join(memory.values())}."] if memory else []
    if days:
        said.append(f"With TransformerLens, every neuron at every position would take {days:.2g} days (not run).")
    return "\n\n".join([told, " ".join(said)])


def _row(name: str, seconds: list[float], units: int, flops: float) -> list[str]:
    taken = float(np.median(seconds)) * units
    return [name, f"{taken:.3g}", number(flops, "FLOP"), number(flops / taken, "FLOP/s")]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, default=N_PROMPTS)
    parser.add_argument("--positions", type=int, default=N_POS)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the measurements lie")
    chosen = parser.parse_args()
    jobs = {name: job(name, n_prompts=chosen.prompts, n_pos=chosen.positions) for name in TITLES}
    print(f"By formula, for {chosen.prompts} pairs of {chosen.positions} tokens:\n\n{costs(jobs)}\n")
    if (chosen.prompts, chosen.positions) == (N_PROMPTS, N_POS):
        print(f"Measured at GPT-2 small's shape (benchmarks/results):\n\n{measured(jobs['gpt2'], chosen.results)}")


if __name__ == "__main__":
    main()
