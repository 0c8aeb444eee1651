"""What it costs to look: one forward of GPT-2 small's shape, 8 x 64 tokens, with seven Sites a layer kept.

Against the bare module (and logits of the last position alone, or of two answers there, against it as well),
against nnsight 0.8 (`--nnsight-python`), which wraps the very same module, and against TransformerLens 3.9
(`--tl-python`), which has its own; all in common rounds. Random weights, scaled dot-product attention, no gradient.
The three must agree on every activation that is kept to 1e-4 of its largest value before anything is timed (float32).

Usage: uv run python benchmarks/hooks.py [--nnsight-python PATH] [--tl-python PATH] [--rounds 30]
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import memory
import numpy as np
import torch
from paired import Contender, Match
from peer import Peer, peer
from recording import Record, arguments, parse
from shapes import add_flags, arrays, chosen_model, lens_python, lens_settings, lens_weights, timed, title, wait
from torch import Tensor

from micrographia.core.model import Readout
from micrographia.core.pretrained import load
from micrographia.core.runtime import settings

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


def worker(chosen: Any, name: str, python: Path, module: Any, tokens: Tensor) -> Any:
    """The peer with the same weights and tokens; it writes down what it kept at first."""
    config = {"peer": name, "threads": chosen.threads, "device": chosen.device, "dtype": chosen.dtype}
    given = {"tokens": arrays({"tokens": tokens})}
    if name == "nnsight":
        return peer(python, "hooks_worker.py", config, given, lambda folder: module.save_pretrained(folder / "model"))
    config |= lens_settings(chosen, module.config)
    return peer(python, "hooks_worker.py", config, {**given, "weights": lens_weights(module)})


def apart(mine: dict[str, np.ndarray], other: Peer, *, judged: bool) -> float:
    """The largest difference as a share of the largest value of that Site. Ends the program where that is too large."""
    theirs = other.arrays("kept")
    found = max(float(np.abs(mine[name] - theirs[name]).max() / np.abs(mine[name]).max()) for name in mine)
    if judged and found > AGREE:
        raise SystemExit(f"What was kept differs by {found:.2g} of its largest value. Nothing was timed.")
    return found


def peak(run: Callable[[], object], device: str) -> dict[str, float]:
    before = memory.reset_peak(device)
    run()
    wait(device)
    return {"resident_mib": before, "peak_above_mib": memory.peak(device) - before}


def measure(chosen: Any, record: Record) -> None:
    module = chosen_model(chosen).requires_grad_(False)
    shape = SMOKE_SHAPE if chosen.smoke else SHAPE
    tokens = torch.randint(0, module.config.vocab_size, shape, generator=torch.Generator().manual_seed(1))
    tokens = tokens.to(chosen.device)
    sites, two = [f"L*.{kind}" for kind in KINDS], tokens[:, :2]
    keep = ours(module, tokens, keep=sites)
    keeping, last, answers, plain = (
        timed(name, run, chosen.device)
        for name, run in {
            "micrographia, 7 Sites a layer": keep,
            "micrographia, logits at the end": ours(module, tokens, logits="last"),
            "micrographia, logits of two answers": ours(module, tokens, logits=Readout(two, -1)),
            "bare module": bare(module, tokens),
        }.items()
    )
    targets = ((keeping, KEPT_TARGET), (last, ASKED_TARGET), (answers, ASKED_TARGET))
    matches = [Match(each, plain, "run", target) for each, target in targets]
    mine = arrays({str(site): value for site, value in keep().cache.items()})
    record.put(shape=chosen.shape, memory=peak(keep, chosen.device))
    versions, differences = {}, {}
    with ExitStack() as stack:
        for name, python in (("nnsight", chosen.nnsight_python), ("TransformerLens", chosen.tl_python)):
            if python is None:
                print(f"{name} was left out: name the Python of an environment that has it.")
                continue
            other = stack.enter_context(worker(chosen, name, python, module, tokens))
            versions[name] = other.ready
            differences[name] = apart(mine, other, judged=chosen.dtype == "float32")
            matches.append(Match(keeping, Contender(f"{name}, 7 Sites a layer", other.ask), "run", PEER_TARGET))
        del mine
        record.put(peers=versions, apart=differences)
        record.compare(matches)
    record.finish()


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.set_defaults(rounds=30)
    add_flags(parser)
    lens_python(parser)
    parser.add_argument("--nnsight-python", type=Path, help="Python of an environment with nnsight 0.8")
    chosen = parse(parser)
    with settings(chosen.threads, chosen.device):
        measure(chosen, Record(title("hooks", chosen), chosen, device=chosen.device, dtype=chosen.dtype))


if __name__ == "__main__":
    main()
