"""One full-batch training epoch of grokking's mainline (p = 113, 3,830 rows): ours, the obvious way, and peers.

Ours is what a Run does: `LastPosition` and `AdamW` under `training.train`. It is held against (a) the obvious
implementation, train only; (b) the paper's loop, train and test loss every epoch, ours taking a test loss every 25; (c)
TransformerLens' HookedTransformer, train only, in an environment of its own (`--tl-python`); and the floor: the step's
own matrix products alone. Every contender starts from the same weights and must show the same first loss.
Usage: uv run python benchmarks/grokking_epoch.py [--tl-python PATH] [--threads 2]
"""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from obvious import Obvious, ObviousLoop
from paired import Comparison, Contender, arguments, compare, machine, parse, seconds_of, write_result
from products import Products, square_rate
from torch.profiler import ProfilerActivity, profile

from micrographia.core.last_position import LastPosition
from micrographia.core.runtime import allowed_cores, settings
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
        c = self.config
        return {"lr": c.lr, "weight_decay": c.weight_decay, "betas": (c.beta1, c.beta2), "warmup": c.warmup}


class Ours:
    """`run(n)` takes n epochs, with a test loss every `test_every`."""

    def __init__(self, problem: Problem, *, test_every: int | None = None) -> None:
        config = problem.config
        self.plan = LastPosition(problem.arch, problem.train[0][None], problem.train[1][None])
        self.test = LastPosition(problem.arch, problem.test[0][None], problem.test[1][None]) if test_every else None
        self.test_every = test_every
        self.optimiser = AdamW(lr=config.lr, weight_decay=config.weight_decay, warmup=config.warmup)
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

    def __init__(self, problem: Problem, python: Path, threads: int, folder: Path) -> None:
        sets = {"train": problem.train, "test": problem.test}
        arrays = {f"{s}_{part}": x.numpy() for s, pair in sets.items() for part, x in zip(("tokens", "labels"), pair)}
        np.savez(folder / "data.npz", **arrays, **{name: w.numpy() for name, w in problem.weights.items()})
        theirs = ("n_layers", "d_model", "n_heads", "d_head", "d_mlp", "d_vocab", "d_vocab_out", "n_ctx")
        shape = {name: getattr(problem.arch.shape, name) for name in theirs}
        model = {**shape, "act_fn": "relu", "normalization_type": None, "seed": 0}
        chosen = {"threads": threads, "model": model, "optimiser": problem.optimiser}
        (folder / "config.json").write_text(json.dumps(chosen), encoding="utf-8")
        command = [python, Path(__file__).with_name("lens_worker.py"), folder / "data.npz", folder / "config.json"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions = self._answer("ready")
        self.losses: list[float] = []

    def run(self, epochs: int) -> None:
        assert self.process.stdin
        print(epochs, file=self.process.stdin, flush=True)
        self.losses.append(float(self._answer("done")))

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()

    def _answer(self, word: str) -> str:
        """The worker's next answer, past what the library itself prints."""
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith(word):
                return line.removeprefix(word).strip()
        raise RuntimeError(f"Waited for {word!r} from {self.process.args}; the worker ended. See its error above.")


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


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--tl-python", type=Path, help="Python of an environment with transformer-lens 3.9")
    chosen = parse(parser)
    threads = chosen.threads or allowed_cores()
    config = paper() if not chosen.smoke else Config(modulus=13, d_model=32, d_mlp=64, n_heads=2, d_head=16)
    with settings(threads), tempfile.TemporaryDirectory() as folder:
        found = measure(Problem(config), chosen, threads, Path(folder))
        about = machine(threads)
    write_result("grokking_epoch", found, out=chosen.out, smoke=chosen.smoke, machine=about)


def measure(problem: Problem, chosen: Any, threads: int, folder: Path) -> dict[str, Any]:
    ours, ours_tested = Ours(problem), Ours(problem, test_every=TEST_EVERY)
    obvious, loop = (
        ObviousLoop(Obvious(problem.weights), problem.train, problem.test, **problem.optimiser, test_each_epoch=each)
        for each in (False, True)
    )
    products = Products(problem.arch, len(problem.train[0]))
    peers: dict[str, Any] = {"obvious": obvious, "paper loop": loop}
    versions: dict[str, str] = {}
    if chosen.tl_python:
        peers["transformer-lens"] = Lens(problem, chosen.tl_python, threads, folder)
        versions["transformer-lens, torch"] = peers["transformer-lens"].versions
    else:
        print("TransformerLens was left out: give --tl-python, the Python of an environment that has it.")
    for each in (ours, *peers.values()):
        each.run(1)
    check_same_work({"micrographia": ours.losses[0], **{name: peer.losses[0] for name, peer in peers.items()}})

    def against(name: str) -> Comparison:
        tested = name == "paper loop"
        mine = Contender("micrographia, test every 25", ours_tested.run, TEST_EVERY) if tested else None
        return compare(
            mine or Contender("micrographia", ours.run),
            Contender(name, peers[name].run),
            unit="epoch",
            rounds=chosen.rounds,
            seconds=chosen.seconds,
            busy=chosen.busy,
            target=TARGETS[name],
        )

    comparisons = []
    for name in peers:
        comparisons.append(against(name))
        print(comparisons[-1], flush=True)
    floor = compare(
        Contender("micrographia", ours.run),
        Contender("floor", products.run),
        unit="epoch",
        rounds=chosen.rounds,
        seconds=chosen.seconds,
        busy=chosen.busy,
        target=TARGETS["floor"],
    )
    print(f"share of the floor: {floor}", flush=True)
    if "transformer-lens" in peers:
        peers["transformer-lens"].close()
    repeats = 2 if chosen.smoke else 30
    return {
        "problem": {"modulus": problem.config.modulus, "train_rows": len(problem.train[0])},
        "comparisons": [each.as_json() for each in (*comparisons, floor)],
        "peer_versions": versions,
        "flops_of_products": products.flops,
        "gflops_by_product": products.rates(seconds_of, repeats=repeats),
        "gflops_square_2048": square_rate(seconds_of, size=64 if chosen.smoke else 2048, repeats=repeats // 2),
        "where_time_goes": [] if chosen.smoke else where_time_goes(ours, epochs=20),
    }


if __name__ == "__main__":
    main()
