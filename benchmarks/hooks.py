"""What it costs to look: one forward of GPT-2 small's shape, 8 x 64 tokens, with seven Sites a layer kept.

Against the bare module (and logits of the last position alone, or of two answers there, against it as well),
against nnsight 0.8 (`--nnsight-python`), which wraps the very same module, and against TransformerLens 3.9
(`--tl-python`), which has its own. Random weights, scaled dot-product attention, no gradient. The three must agree on
every activation that is kept to 1e-4 of its largest value before anything is timed.

Usage: uv run python benchmarks/hooks.py [--nnsight-python PATH] [--tl-python PATH] [--rounds 15]
"""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from paired import Contender, arguments, compare, machine, parse, write_result
from patching_sweep import gpt2, lens_config, lens_weights
from torch import Tensor

from micrographia.core.model import Readout
from micrographia.core.pretrained import load
from micrographia.core.runtime import allowed_cores, settings

KINDS = ("resid_pre", "resid_mid", "resid_post", "z", "neurons", "attn_out", "mlp_out")
SHAPE, SMOKE_SHAPE = (8, 64), (2, 5)
AGREE = 1e-4
KEPT_TARGET, ASKED_TARGET, PEER_TARGET = 1 / 1.1, 1.0, 1.0


def ours(module: Any, tokens: Tensor, **asked: Any) -> Callable[[], Any]:
    model = load(module)
    return lambda: model.run(tokens, **asked)


def bare(module: Any, tokens: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.no_grad():
            return module(input_ids=tokens, use_cache=False).logits

    return run


def times(run: Callable[[], object]) -> Callable[[int], None]:
    def repeat(count: int) -> None:
        for _ in range(count):
            run()

    return repeat


class Worker:
    """A peer in its own process, which answers "done" when it has run so often."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self.versions = self._line().split()[1:]

    def run(self, count: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        self._line()

    def kept(self) -> dict[str, np.ndarray]:
        return dict(np.load(self._folder / "kept.npz"))

    def _line(self) -> str:
        assert self._process.stdout is not None
        while not (line := self._process.stdout.readline()).startswith(("ready", "done")):
            if not line:
                raise SystemExit("A peer's process ended; what it said stands above.")
        return line


@contextmanager
def worker(python: Path, peer: str, module: Any, tokens: Tensor, threads: int) -> Iterator[Worker]:
    """The peer with the same weights and tokens; it writes down what it kept at first."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if peer == "nnsight":
            module.save_pretrained(folder / "model")
        else:
            np.savez(folder / "weights.npz", **lens_weights(module))
        np.save(folder / "tokens.npy", tokens.numpy())
        config = {"peer": peer, "threads": threads, "model": lens_config(module.config)}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        command = [str(python), str(Path(__file__).with_name("hooks_worker.py")), name]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            yield Worker(process, folder)
        finally:
            process.kill()
            process.wait()


def apart(mine: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """The largest difference as a share of the largest value of that Site. Ends the program where that is too large."""
    found = max(float(np.abs(mine[name] - theirs[name]).max() / np.abs(mine[name]).max()) for name in mine)
    if found > AGREE:
        raise SystemExit(f"What was kept differs by {found:.2g} of its largest value. Nothing was timed.")
    return found


def measure(chosen: Any) -> dict[str, Any]:
    module = gpt2(smoke=chosen.smoke).requires_grad_(False)
    shape = SMOKE_SHAPE if chosen.smoke else SHAPE
    tokens = torch.randint(0, module.config.vocab_size, shape, generator=torch.Generator().manual_seed(1))
    sites = [f"L*.{kind}" for kind in KINDS]
    two = tokens[:, :2]
    keeping = Contender("micrographia, 7 Sites a layer", times(ours(module, tokens, keep=sites)))
    last = Contender("micrographia, logits at the end", times(ours(module, tokens, logits="last")))
    answers = Contender("micrographia, logits of two answers", times(ours(module, tokens, logits=Readout(two, -1))))
    plain = Contender("bare module", times(bare(module, tokens)))
    pairs = [(keeping, plain, KEPT_TARGET), (last, plain, ASKED_TARGET), (answers, plain, ASKED_TARGET)]
    found: dict[str, Any] = {"peers": {}, "apart": {}}
    mine = {str(site): value.numpy() for site, value in ours(module, tokens, keep=sites)().cache.items()}
    with ExitStack() as stack:
        for peer, python in (("nnsight", chosen.nnsight_python), ("TransformerLens", chosen.tl_python)):
            if python is None:
                print(f"{peer} was left out: name the Python of an environment that has it.")
                continue
            other = stack.enter_context(worker(python, peer, module, tokens, chosen.threads))
            other.run(1)
            found["peers"][peer], found["apart"][peer] = other.versions, apart(mine, other.kept())
            pairs.append((keeping, Contender(f"{peer}, 7 Sites a layer", other.run), PEER_TARGET))
        found["comparisons"] = [_timed(*pair, chosen) for pair in pairs]
    return found


def _timed(one: Contender, other: Contender, target: float, chosen: Any) -> dict[str, Any]:
    comparison = compare(
        one,
        other,
        unit="run",
        rounds=chosen.rounds,
        seconds=chosen.seconds,
        target=None if chosen.smoke else target,
        busy=chosen.busy,
    )
    print(comparison)
    return comparison.as_json()


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--tl-python", type=Path, help="Python of an environment with transformer-lens 3.9")
    parser.add_argument("--nnsight-python", type=Path, help="Python of an environment with nnsight 0.8")
    chosen = parse(parser)
    chosen.threads = chosen.threads or allowed_cores()
    with settings(chosen.threads):
        about = machine(chosen.threads)
        found = measure(chosen)
    write_result("hooks", found, out=chosen.out, smoke=chosen.smoke, machine=about)


if __name__ == "__main__":
    main()
