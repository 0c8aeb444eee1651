"""Attribution of all heads by position, all neurons, residual streams and MLP outputs: GPT-2 small's shape, 8 pairs.

Against three others on the same work, random weights and 15-token prompts:
- the floor that a careful user of the bare module could reach without instrument: two plain forwards and one backward
  to the embeddings alone (parameters frozen), all logits computed; it scores nothing;
- TransformerLens 3.9's way, two filtered caches and their gradients (`--tl-python`), parameters as they come, and
  frozen.
Before anything is timed, our scores must agree with TransformerLens' to 1e-5 of the largest of their kind. Peak memory
is taken in a process of its own for ours and for the floor, above what is resident once the model is loaded.

Usage: uv run python benchmarks/attribution.py [--tl-python PATH] [--rounds 30]
A round takes about 20 s on two quiet cores, with TransformerLens three such.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import memory
import numpy as np
import torch
from paired import Contender, arguments, compare, machine, parse, write_result
from patching_sweep import gpt2, lens_config, lens_weights, some_tokens
from torch import Tensor

from micrographia.core.answers import logit_difference
from micrographia.core.pairs import Pairs
from micrographia.core.pretrained import load
from micrographia.core.runtime import allowed_cores, settings
from micrographia.methods.attribution.attribute import attribute

SITES = ("L*.z", "L*.neurons", "L*.resid_pre", "L*.mlp_out")
AGREE = 1e-5
FLOOR_TARGET = 1 / 0.9
MEMORY_TARGET = 0.1


def ours(module: Any, tokens: dict[str, Tensor]) -> Callable[[], dict[str, np.ndarray]]:
    model = load(module)
    pairs = Pairs(tokens["clean"], tokens["corrupt"], tokens["right"], tokens["wrong"])
    metric = logit_difference(tokens["right"], tokens["wrong"])

    def run() -> dict[str, np.ndarray]:
        scores = attribute(model, pairs, metric, SITES).scores
        return {str(site): score.numpy() for site, score in scores.items()}

    return run


def floor(module: Any, tokens: dict[str, Tensor]) -> Callable[[], Tensor]:
    """Two forwards with all logits, one of them with a graph from the embeddings on, and the backward pass."""
    rows = torch.arange(len(tokens["right"]))

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


CONTENDERS: dict[str, Callable[[Any, dict[str, Tensor]], Callable[[], object]]] = {"ours": ours, "floor": floor}


def times(run: Callable[[], object]) -> Callable[[int], None]:
    def repeat(count: int) -> None:
        for _ in range(count):
            run()

    return repeat


def peaks(chosen: Any) -> dict[str, dict[str, float]]:
    """Resident with the model loaded and peak above it, of each in a process of its own."""
    found = {}
    for name in ("ours",) if chosen.smoke else CONTENDERS:
        command = [sys.executable, __file__, "--peak", name, "--threads", str(chosen.threads)]
        command += ["--smoke"] if chosen.smoke else []
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


def own_peak(name: str, *, smoke: bool, threads: int) -> dict[str, float]:
    with settings(threads):
        module = gpt2(smoke=smoke)
        run = CONTENDERS[name](module, some_tokens(module.config.vocab_size))
        before = memory.reset_peak()
        for _ in range(3):
            run()
        return {"resident_mib": before, "peak_above_mib": memory.peak() - before}


class Worker:
    """TransformerLens in its own process."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder
        _, self.version, self.torch, resident = self._line().split()
        self.resident = float(resident)

    def run(self, how: str, count: int) -> float:
        """Its peak memory in MiB above what was resident before."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{how} {count}\n")
        self._process.stdin.flush()
        return float(self._line().split()[1])

    def scores(self) -> dict[str, np.ndarray]:
        return dict(np.load(self._folder / "theirs.npz"))

    def _line(self) -> str:
        assert self._process.stdout is not None
        while not (line := self._process.stdout.readline()).startswith(("ready", "done")):
            if not line:
                raise SystemExit("TransformerLens' process ended; what it said stands above.")
        return line


@contextmanager
def worker(python: Path, module: Any, tokens: dict[str, Tensor], threads: int, *, write: bool) -> Iterator[Worker]:
    """TransformerLens with the same weights and prompts; `write` has it write its scores down."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "weights.npz", **lens_weights(module))
        np.savez(folder / "tokens.npz", **{key: value.numpy() for key, value in tokens.items()})
        config = {"threads": threads, "model": lens_config(module.config), "write": write}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        command = [str(python), str(Path(__file__).with_name("attribution_worker.py")), name]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            yield Worker(process, folder)
        finally:
            process.kill()
            process.wait()


def agreement(mine: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest difference by kind, as a share of its largest score. Ends the program where that is too large."""
    kinds = sorted({name.partition(".")[2] for name in mine})
    apart = {}
    for kind in kinds:
        names = [name for name in mine if name.endswith(f".{kind}")]
        largest = max(float(np.abs(theirs[name]).max()) for name in names)
        apart[kind] = max(float(np.abs(mine[name] - theirs[name]).max()) for name in names) / largest
    if max(apart.values()) > AGREE:
        raise SystemExit(f"Scores differ by {apart} of the largest of their kind. Nothing was timed.")
    return apart


def measure(chosen: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"memory": peaks(chosen), "comparisons": []}
    for name, peak in found["memory"].items():
        print(f"{name}: {peak['resident_mib']:.0f} MiB with the model loaded, peak {peak['peak_above_mib']:+.0f} MiB")
    module = gpt2(smoke=chosen.smoke)
    tokens = some_tokens(module.config.vocab_size)
    mine = ours(module, tokens)
    one = Contender("micrographia", times(mine))
    others = [(Contender("two plain forwards and a backward", times(floor(module, tokens))), FLOOR_TARGET)]
    if chosen.tl_python is None:
        print("TransformerLens was left out: give --tl-python, the Python of an environment that has it.")
        found["comparisons"] = [_timed(one, *other, chosen) for other in others]
        return found
    with worker(chosen.tl_python, module, tokens, chosen.threads, write=True) as other:
        found["transformer_lens"], found["their_torch"] = other.version, other.torch
        found["their_peak_above_mib"] = {how: other.run(how, 1) for how in ("frozen", "default")}
        found["their_resident_mib"] = other.resident
        found["apart"] = agreement(mine(), other.scores())
        print(found["apart"], found["their_peak_above_mib"])
    with worker(chosen.tl_python, module, tokens, chosen.threads, write=False) as other:
        for how in ("default", "frozen"):
            others.append((Contender(f"TransformerLens, {how}", lambda count, how=how: other.run(how, count)), None))
        found["comparisons"] = [_timed(one, *each, chosen) for each in others]
    return found


def _timed(one: Contender, other: Contender, target: float | None, chosen: Any) -> dict[str, Any]:
    comparison = compare(
        one,
        other,
        unit="attribution",
        rounds=chosen.rounds,
        seconds=chosen.seconds,
        target=None if chosen.smoke else target,
        busy=chosen.busy,
    )
    print(comparison)
    return comparison.as_json()


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.set_defaults(seconds=4.0, rounds=30)
    parser.add_argument("--tl-python", type=Path, help="Python of an environment with transformer-lens 3.9")
    parser.add_argument("--peak", choices=sorted(CONTENDERS), help="only print this contender's memory")
    chosen = parse(parser)
    chosen.threads = chosen.threads or allowed_cores()
    if chosen.peak:
        print(json.dumps(own_peak(chosen.peak, smoke=chosen.smoke, threads=chosen.threads)))
        return
    with settings(chosen.threads):
        about = machine(chosen.threads)
        found = measure(chosen)
    write_result("attribution", found, out=chosen.out, smoke=chosen.smoke, machine=about)


if __name__ == "__main__":
    main()
