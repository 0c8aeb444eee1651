"""A training step of sparse autoencoders, against the matrix products that a dense one needs and against other tools.

d = 512, 4,096 latents, batches of 4,096 rows, float32. The floor is five products of rows x d x latents alone: encoder,
decoder, and their three gradients, into tensors that exist. Ours are whole steps of the Trainer with the plan that it
chooses: `relu` and `jumprelu` as at the start of training, half of the latents active; `jumprelu at L0 50` with
thresholds that leave 50. The others do their own whole steps on the same batches: SAELens (`--saelens-python`),
dictionary_learning (`--dl-python`), sparsify (`--sparsify-python`), and a lean TopK loop of embedding bags.
Twelve equal dictionaries on one harvest are held against twelve floors and that harvest.

Usage: uv run python benchmarks/dictionary_training.py --saelens-python PATH --dl-python PATH --sparsify-python PATH
"""

import argparse
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lean_topk import LeanTopK
from paired import Contender, Match
from peer import peer
from recording import Record, arguments, parse
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from micrographia.core.pretrained import load
from micrographia.core.runtime import generator, settings
from micrographia.core.stream.batches import Activations
from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.stack import stacks
from micrographia.methods.dictionaries.training.trainer import Trainer, first_batches, fresh_state

SIZES = {"d": 512, "latents": 4096, "rows": 4096, "k": 32, "l0": 50, "members": 12, "batches": 4}
SMOKE = {"d": 16, "latents": 128, "rows": 64, "k": 4, "l0": 6, "members": 2, "batches": 2}
CONTEXT = 128  # positions of a harvested sequence
LR = 1e-6  # so low that no L0 moves while it is timed
FLOOR = "five dense products"
TARGETS: Mapping[str, float] = {"relu": 0.7, "jumprelu": 0.7, "topk": 1.3, "batchtopk": 1.3, "jumprelu at L0 50": 1.1}
"""Floor's time over ours."""
AGAINST: Mapping[tuple[str, str], float | None] = {
    ("saelens", "relu"): 2.0,
    ("saelens", "jumprelu"): 2.0,
    ("saelens", "topk"): 3.0,
    ("saelens", "batchtopk"): 3.0,
    ("dictionary_learning", "relu"): None,
    ("dictionary_learning", "jumprelu"): None,
    ("dictionary_learning", "topk"): None,
    ("dictionary_learning", "batchtopk"): None,
    ("sparsify", "topk"): 1.6,
}
TWELVE_TARGET = 1 / 1.2


class Floor:
    """The five products, as a dense step meets them, and nothing else."""

    def __init__(self, x: Tensor, n: int) -> None:
        rows, d = x.shape
        self.x, self.p, self.out = x, x.new_empty(rows, n), x.new_empty(rows, d)
        self.encoder, self.decoder = torch.randn(n, d), torch.randn(n, d)
        self.slope = torch.empty(n, d)
        self.flops = 10 * rows * d * n

    def run(self, steps: int) -> None:
        for _ in range(steps):
            torch.mm(self.x, self.encoder.T, out=self.p)
            torch.mm(self.p, self.decoder, out=self.out)
            torch.mm(self.p.T, self.out, out=self.slope)
            torch.mm(self.out, self.decoder.T, out=self.p)
            torch.mm(self.p.T, self.x, out=self.slope)


class Ours:
    """Whole steps of a Trainer; `l0` is that of the last one."""

    def __init__(self, recipes: list[Recipe], given: list[Activations], *, l0: int | None = None) -> None:
        d = given[0].x.shape[-1]
        (stack,) = stacks(recipes, d, d, False)
        batches = lambda step: given[step % len(given)]  # noqa: E731
        self.trainer = Trainer(
            stack, fresh_state(stack, first_batches(batches, stack.recipe.steps), torch.zeros(())), batches
        )
        self.given, self.l0 = given, math.nan
        if l0 is not None:
            self._leave(l0)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step(self.given[self.trainer.state.step % len(self.given)])

    def step(self, batch: Activations) -> None:
        self.l0 = float(self.trainer.step(batch)["l0"].mean())

    def _leave(self, l0: int) -> None:
        """Thresholds, one for all latents, above which that many of a row are active."""
        weights, x = self.trainer.weights, self.trainer.scaled(self.given[0]).x[0]
        p = (x - weights["b_dec"][0]) @ weights["encoder"][0].T + weights["b_enc"][0]
        weights["threshold"].fill_(float(p.flatten().sort(descending=True).values[l0 * len(x)]))


def mixtures(sizes: Mapping[str, int]) -> list[Activations]:
    """Sums of few of 4 d random directions, with uniform strengths: activations in superposition."""
    random = generator(0)
    n = 4 * sizes["d"]
    directions = torch.nn.functional.normalize(torch.randn(n, sizes["d"], generator=random), dim=1)
    found = []
    for _ in range(sizes["batches"]):
        strengths = torch.rand(sizes["rows"], n, generator=random)
        on = torch.rand(sizes["rows"], n, generator=random) < 20 / n
        found.append(Activations((strengths * on) @ directions))
    return found


def harvester(sizes: Mapping[str, int]) -> Callable[[], Activations]:
    """One batch from a one-layer GPT-2 of that width, without its logits."""
    context = min(CONTEXT, sizes["rows"])
    config = GPT2Config(n_embd=sizes["d"], n_layer=1, n_head=8, n_positions=context)
    model = load(GPT2LMHeadModel(config).eval())
    tokens = torch.randint(0, config.vocab_size, (sizes["rows"] // context, context), generator=generator(1))

    def harvest() -> Activations:
        return Activations(
            model.run(tokens, keep=["L0.resid_post"], logits="last").cache["L0.resid_post"].flatten(0, 1)
        )

    return harvest


def repeated(run: Callable[[], object]) -> Callable[[int], None]:
    def times(n: int) -> None:
        for _ in range(n):
            run()

    return times


def recipes(sizes: Mapping[str, int]) -> dict[str, Recipe]:
    shared: dict[str, Any] = {"n_latents": sizes["latents"], "steps": 10**6, "lr": LR, "b_dec_start": "mean"}
    jump = Recipe(kind="jumprelu", penalty="l0", sparsity=1e-3, **shared)  # an L0 asked for would move thresholds
    return {
        "relu": Recipe(kind="relu", sparsity=0.1, **shared),
        "jumprelu": jump,
        "jumprelu at L0 50": jump,
        "topk": Recipe(kind="topk", k=sizes["k"], **shared),
        "batchtopk": Recipe(kind="batchtopk", k=sizes["k"], **shared),
    }


def twelve(sizes: Mapping[str, int], floor: Floor, name: str) -> tuple[Ours, Match]:
    """As many equal dictionaries, each of its seed, stepped together on one harvest."""
    harvest, recipe = harvester(sizes), recipes(sizes)[name]
    first = [harvest()]
    together = Ours([Recipe(**{**_fields(recipe), "seed": seed}) for seed in range(sizes["members"])], first)

    def floors() -> None:
        harvest()
        floor.run(sizes["members"])

    ours = Contender(f"{sizes['members']} {name} on a harvest", repeated(lambda: together.step(harvest())), chunk=1)
    theirs = Contender(f"{sizes['members']} floors and a harvest", repeated(floors), chunk=1)
    return together, Match(ours, theirs, "step", TWELVE_TARGET)


def _fields(recipe: Recipe) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in Recipe.__slots__}


def measure(chosen: Any, record: Record) -> None:
    sizes = SMOKE if chosen.smoke else SIZES
    given = mixtures(sizes)
    floor = Floor(given[0].x, sizes["latents"])
    alone = Contender(FLOOR, floor.run)
    programs = {
        name: Ours([recipe], given, l0=sizes["l0"] if "L0" in name else None)
        for name, recipe in recipes(sizes).items()
        if name in chosen.kinds
    }
    ours = {name: Contender(f"micrographia {name}", each.run) for name, each in programs.items()}
    matches = [Match(ours[name], alone, "step", TARGETS[name]) for name in ours]
    if "topk" in ours:
        lean = LeanTopK(given, sizes["latents"], sizes["k"], LR)
        matches.append(Match(ours["topk"], Contender("a lean loop, topk", lean.run), "step"))
    if chosen.twelve:
        programs["twelve"], match = twelve(sizes, floor, "batchtopk")
        matches.append(match)
    config = {**sizes, "threads": chosen.threads, "lr": LR}
    data = {"x": {"x": torch.stack([each.x for each in given]).numpy()}}
    pythons = {
        "saelens": chosen.saelens_python,
        "dictionary_learning": chosen.dl_python,
        "sparsify": chosen.sparsify_python,
    }
    versions = {}
    with ExitStack() as stack:
        for tool, python in pythons.items():
            wanted = [kind for name, kind in AGAINST if name == tool and kind in ours]
            if python is None or not wanted:
                print(f"{tool} was left out: name the Python of an environment that has it.")
                continue
            other = stack.enter_context(
                peer(python, "dictionary_worker.py", {**config, "tool": tool, "kinds": wanted}, data)
            )
            versions[tool] = other.ready
            for kind in wanted:
                run = lambda n, kind=kind, other=other: other.ask(kind, n)  # noqa: E731
                matches.append(Match(ours[kind], Contender(f"{tool} {kind}", run), "step", AGAINST[tool, kind]))
        record.put(sizes=sizes, peers=versions, floor_gflop=floor.flops / 1e9)
        found = record.compare(matches)
    rates = {}
    for each in found:
        for name, seconds in ((each.ours, each.ours_seconds), (each.theirs, each.theirs_seconds)):
            rates[name] = sizes["rows"] / sorted(seconds)[len(seconds) // 2]
    record.finish(rows_a_second=rates, l0={name: each.l0 for name, each in programs.items()})


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.set_defaults(rounds=7, seconds=0.5, minutes=4.5)
    parser.add_argument("--saelens-python", type=Path, help="Python of an environment with sae-lens 6.54.12")
    parser.add_argument("--dl-python", type=Path, help="Python of an environment with dictionary-learning 0.1.0")
    parser.add_argument("--sparsify-python", type=Path, help="Python of an environment with eai-sparsify 1.3.3")
    parser.add_argument("--kinds", nargs="+", default=[*TARGETS], choices=[*TARGETS], help="which of ours to time")
    parser.add_argument("--twelve", default=True, action=argparse.BooleanOptionalAction, help="twelve on one harvest")
    chosen = parse(parser)
    with settings(chosen.threads):
        measure(chosen, Record("dictionary_training", chosen))


if __name__ == "__main__":
    main()
