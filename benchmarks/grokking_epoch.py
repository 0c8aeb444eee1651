"""One full-batch training epoch of grokking's mainline (p = 113, 3,830 rows): ours, the obvious way, and peers.

Ours is what a Run does: `LastPosition` and `AdamW` under `training.train`. It is held against (a) the obvious
implementation, train only; (b) the paper's loop, train and test loss every epoch, ours taking a test loss every 25; (c)
TransformerLens' HookedTransformer, train only, in an environment of its own (`--tl-python`); and the floor: the step's
own matrix products alone; all in common rounds. Every contender starts from the same weights and must show the same
first loss.
Usage: uv run python benchmarks/grokking_epoch.py [--tl-python PATH] [--threads 2]
"""

from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import torch
from obvious import Obvious, ObviousLoop
from paired import Contender, Match, seconds_of
from peer import Peer, peer
from products import Products, square_rate
from recording import Record, arguments, parse
from torch.profiler import ProfilerActivity, profile

from micrographia.core.config import flat, with_fields
from micrographia.core.runtime import settings
from micrographia.core.small.last_position import LastPosition
from micrographia.core.training import AdamW, Layout, fresh_state, train
from micrographia.labs.grokking.config import Config, paper
from micrographia.labs.grokking.task import architecture, make_pairs
from micrographia.labs.grokking.train import fresh_weights

TEST_EVERY = 25
TARGETS = {"obvious": 4.0, "paper loop": 10.0, "transformer-lens": 3.0, "floor": 0.55}
SAME_LOSS = 1e-4  # relative: first losses further apart than this are not the same work


class Problem:
    """The mainline's rows and first weights, once for all contenders."""

    def __init__(self, config: Config) -> None:
        self.config, self.arch = config, architecture(config)
        pairs = make_pairs(config)
        self.train = pairs.tokens[pairs.train], pairs.labels[pairs.train]
        self.test = pairs.tokens[~pairs.train], pairs.labels[~pairs.train]
        self.flat = fresh_weights(config)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return Layout(self.arch.weight_shapes()).member(self.flat, 0)

    @property
    def optimiser(self) -> dict[str, Any]:
        """The choices of AdamW, under the names of `ObviousLoop`."""
        c = self.config.optim
        return {"lr": c.lr, "weight_decay": c.weight_decay, "betas": (c.beta1, c.beta2), "warmup": c.warmup}


class Ours:
    """`run(n)` takes n epochs, with a test loss every `test_every`."""

    def __init__(self, problem: Problem, *, test_every: int | None = None) -> None:
        config = problem.config
        self.plan = LastPosition(problem.arch, problem.train[0][None], problem.train[1][None])
        self.test = LastPosition(problem.arch, problem.test[0][None], problem.test[1][None]) if test_every else None
        self.test_every = test_every
        self.optimiser = AdamW(**flat(config.optim))
        self.state = fresh_state(problem.flat)
        self.losses: list[float] = []

    def run(self, epochs: int) -> None:
        for state, loss in train(self.state, self.plan, self.optimiser, steps=self.state.step + epochs):
            self.state = state
            self.losses.append(loss.item())
            if self.test and self.test_every and state.step % self.test_every == 0:
                self.test.evaluate(state.weights)


class Lens:
    """The worker of `lens_worker`, asked for n epochs at a time."""

    def __init__(self, other: Peer) -> None:
        self._other = other
        self.versions = other.ready
        self.losses: list[float] = []

    def run(self, epochs: int) -> None:
        self.losses.append(float(self._other.ask(epochs)[0]))


def lens(problem: Problem, python: Path, threads: int) -> AbstractContextManager[Peer]:
    """TransformerLens' model in its own process, with the same weights and rows."""
    sets = {"train": problem.train, "test": problem.test}
    data = {f"{s}_{part}": x.numpy() for s, pair in sets.items() for part, x in zip(("tokens", "labels"), pair)}
    data |= {name: w.numpy() for name, w in problem.weights.items()}
    theirs = ("n_layers", "d_model", "n_heads", "d_head", "d_mlp", "d_vocab", "d_vocab_out", "n_ctx")
    shape = {name: getattr(problem.arch.shape, name) for name in theirs}
    model = {**shape, "act_fn": "relu", "normalization_type": None, "seed": 0}
    config = {"threads": threads, "model": model, "optimiser": problem.optimiser}
    return peer(python, "lens_worker.py", config, {"data": data})


def where_time_goes(ours: Ours, *, epochs: int, top: int = 14) -> list[dict[str, Any]]:
    """Milliseconds an epoch spent in each operation itself, the largest first."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        ours.run(epochs)
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    return [
        {"operation": e.key, "ms": e.self_cpu_time_total / 1e3 / epochs, "calls": e.count / epochs}
        for e in events[:top]
    ]


def check_same_work(first: dict[str, float]) -> None:
    """Refuse to compare programs whose loss at the common first weights differs."""
    reference = first["micrographia"]
    odd = {name: loss for name, loss in first.items() if abs(loss / reference - 1) > SAME_LOSS}
    if odd:
        raise SystemExit(f"Asked to compare the same work, but the first losses differ: {odd} against {reference}.")


def matches(ours: Ours, ours_tested: Ours, peers: dict[str, Any], products: Products) -> list[Match]:
    """Each peer, and the floor, beside ours; beside the paper's loop ours takes test losses too."""
    mine = Contender("micrographia", ours.run)
    tested = Contender("micrographia, test every 25", ours_tested.run, TEST_EVERY)
    named = {**{name: each.run for name, each in peers.items()}, "floor": products.run}
    return [
        Match(tested if name == "paper loop" else mine, Contender(name, run), "epoch", TARGETS[name])
        for name, run in named.items()
    ]


def measure(problem: Problem, chosen: Any, record: Record, stack: ExitStack) -> None:
    ours, ours_tested = Ours(problem), Ours(problem, test_every=TEST_EVERY)
    obvious, loop = (
        ObviousLoop(Obvious(problem.weights), problem.train, problem.test, **problem.optimiser, test_each_epoch=each)
        for each in (False, True)
    )
    products = Products(problem.arch, len(problem.train[0]))
    peers: dict[str, Any] = {"obvious": obvious, "paper loop": loop}
    record.put(problem={"modulus": problem.config.modulus, "train_rows": len(problem.train[0])})
    if chosen.tl_python:
        peers["transformer-lens"] = Lens(stack.enter_context(lens(problem, chosen.tl_python, chosen.threads)))
        record.put(peer_versions={"transformer-lens, torch": peers["transformer-lens"].versions})
    else:
        print("TransformerLens was left out: give --tl-python, the Python of an environment that has it.")
    for each in (ours, *peers.values()):
        each.run(1)
    check_same_work({"micrographia": ours.losses[0], **{name: each.losses[0] for name, each in peers.items()}})
    record.compare(matches(ours, ours_tested, peers, products))
    repeats = 2 if chosen.smoke else 30
    record.finish(
        flops_of_products=products.flops,
        gflops_by_product=products.rates(seconds_of, repeats=repeats),
        gflops_square_2048=square_rate(seconds_of, size=64 if chosen.smoke else 2048, repeats=repeats // 2),
        where_time_goes=[] if chosen.smoke else where_time_goes(ours, epochs=20),
    )


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--tl-python", type=Path, help="Python of an environment with transformer-lens 3.9")
    chosen = parse(parser)
    small = {"modulus": 13, "d_model": 32, "d_mlp": 64, "n_heads": 2, "d_head": 16}
    config = with_fields(paper(), **small) if chosen.smoke else paper()
    with settings(chosen.threads), ExitStack() as stack:
        measure(Problem(config), chosen, Record("grokking_epoch", chosen), stack)


if __name__ == "__main__":
    main()
