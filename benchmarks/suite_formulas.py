"""What the suites of Gemma Scope cost by formula, on Gemma 2 2B and 9B: FLOPs, GPU-days, bytes; recompute or store.

FLOPs count a product of m x k by k x n as 2 m k n. A token costs 2 parameters to read (embedding and attention's own
products left out: below 3 % at 1,024 tokens), and 10 d latents in each dictionary, whose products are five (encode,
decode, and the gradients of both and of the latents). The tests hold both to what torch counts on a toy suite, within
5 %. Sizes are those of Lieberum et al. (2408.05147), table 1, at all layers and sites; five sparsities each is ours to
assume, and their dictionaries of 2^18 to 2^20 latents are left out. Markdown on standard output.

Usage: uv run python benchmarks/suite_formulas.py > benchmarks/results/suite_formulas.md
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from formulas import number

SPARSITIES = 5
H100 = 0.4 * 989e12
"""FLOPs a second: 40 % of the peak of dense bfloat16 products."""
DAY = 86_400
FLOAT = 4
GPT3 = 3.14e23
"""FLOPs of its training (Brown et al. 2020, table D.1)."""


class SuiteJob(NamedTuple):
    """A suite at every layer: `tokens` by width, at sites of these widths."""

    n_layers: int
    sites: tuple[int, ...]
    parameters: float
    """Of all layers."""
    tokens: Mapping[int, float]
    sparsities: int = SPARSITIES

    @property
    def longest(self) -> float:
        """Tokens of one harvest that serves all."""
        return max(self.tokens.values())


SUITES = {
    "Gemma 2 2B": SuiteJob(26, (2304, 2048, 2304), 2.02e9, {2**14: 4e9, 2**16: 8e9}),
    "Gemma 2 9B": SuiteJob(42, (3584, 4096, 3584), 8.32e9, {2**14: 4e9, 2**17: 8e9}),
}


def harvest(job: SuiteJob) -> float:
    """FLOPs of one pass over the tokens of the longest training."""
    return 2 * job.parameters * job.longest


def training(job: SuiteJob) -> float:
    """FLOPs of all dictionaries."""
    each = sum(10 * width * tokens for width, tokens in job.tokens.items())
    return job.n_layers * sum(job.sites) * each * job.sparsities


def dictionaries(job: SuiteJob) -> int:
    return job.n_layers * len(job.sites) * len(job.tokens) * job.sparsities


def stored(job: SuiteJob) -> float:
    """Bytes of the activations of all sites, in float32."""
    return job.longest * job.n_layers * sum(job.sites) * FLOAT


def weights(job: SuiteJob) -> float:
    """Bytes of the finished suite."""
    return sum(2 * d * width for d in job.sites for width in job.tokens) * job.n_layers * job.sparsities * FLOAT


ROWS: dict[str, tuple[str, Callable[[SuiteJob], float]]] = {
    "dictionaries": ("", dictionaries),
    "one harvest for all": ("FLOP", harvest),
    "the same on an H100 at 40 %, days": ("", lambda job: harvest(job) / H100 / DAY),
    "training of all": ("FLOP", training),
    "the same, days of one H100": ("", lambda job: training(job) / H100 / DAY),
    "the harvest, % of the training": ("", lambda job: 100 * harvest(job) / training(job)),
    "the same with a harvest for each dictionary, %": (
        "",
        lambda job: 100 * harvest(job) * dictionaries(job) / training(job),
    ),
    "activations stored, float32": ("B", stored),
    "the finished suite, float32": ("B", weights),
    "reads of the store by every dictionary": (
        "B",
        lambda job: FLOAT * job.n_layers * sum(job.sites) * sum(job.tokens.values()) * job.sparsities,
    ),
}


def page() -> str:
    lines = [f"| | {' | '.join(SUITES)} |", f"| --- |{' ---: |' * len(SUITES)}"]
    lines += [
        f"| {name} | {' | '.join(number(value(job), unit) for job in SUITES.values())} |"
        for name, (unit, value) in ROWS.items()
    ]
    both, one = sum(map(stored, SUITES.values())), 8e9 * 3584 * FLOAT
    return "\n".join(
        [
            *lines,
            "",
            f"Stored for both: {both / 2**50:.1f} PiB, where the report says about 17 PiB; one site of 9B, 8 billion "
            f"tokens: {one / 2**40:.0f} TiB, where it says about 100. Training of both: "
            f"{100 * sum(map(training, SUITES.values())) / GPT3:.0f} % of GPT-3's, where it says more than 20 % of all "
            "that it trained, the widest among them.",
        ]
    )


if __name__ == "__main__":
    print(page())
