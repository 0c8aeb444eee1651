"""The full analysis of one checkpoint at p = 113: seconds and peak memory, in a process of its own.

The analysis is the lab's `findings.find`: frequencies, every measure, the closed form, replacements and ablations. It
is given a snapshot of a grokked network (`--snapshot`), or trains one first, which is not timed. Targets: under 2 s on
two cores, under 1 GB. Memory is that of the whole process, torch included, and beside it what the analysis added.
Usage: uv run python benchmarks/analysis.py [--snapshot RUN/snapshots/00001200.safetensors]
"""

import dataclasses
import json
import resource
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from paired import interval, seconds_of
from recording import Record, arguments, in_own_process, parse

from micrographia.core.config import flat, with_fields
from micrographia.core.runtime import generator, settings
from micrographia.core.small.last_position import LastPosition
from micrographia.core.small.transformer import Transformer
from micrographia.core.store import read_tensors, write_tensors
from micrographia.core.training import AdamW, Layout, fresh_state, train
from micrographia.labs.grokking.config import Config, paper, quick, tiny
from micrographia.labs.grokking.measure import measure
from micrographia.labs.grokking.network import tensors_of
from micrographia.labs.grokking.quantities import present_frequencies
from micrographia.labs.grokking.task import architecture, make_pairs
from micrographia.labs.grokking.train import fresh_weights

TARGET_SECONDS, TARGET_GB = 2.0, 1.0


def trained(config: Config, place: Path) -> Path:
    """The weights of a network trained as the config says."""
    pairs, arch = make_pairs(config), architecture(config)
    plan = LastPosition(arch, pairs.tokens[pairs.train][None], pairs.labels[pairs.train][None])
    state = fresh_state(fresh_weights(config))
    optimiser = AdamW(**flat(config.optim))
    state, _ = deque(train(state, plan, optimiser, steps=config.epochs), maxlen=1).pop()
    write_tensors(place, Layout(arch.weight_shapes()).member(state.weights, 0))
    return place


def analyse(config: Config, snapshot: Path, *, repeats: int, threads: int) -> dict[str, Any]:
    """Seconds of each repeat after the first, and of the first; bytes at their peak and before."""
    with settings(threads):
        arch, weights = architecture(config), read_tensors(snapshot)
        pairs = make_pairs(config)

        def key_frequencies() -> list[int]:
            network = tensors_of(Transformer(arch, weights), pairs)
            frequencies = present_frequencies(network)
            results, _ = measure(network, frequencies, phases={}, generator=generator(0))
            return results["key_frequencies"]

        before = peak_bytes()
        began = time.perf_counter()
        found = key_frequencies()
        first, after = time.perf_counter() - began, peak_bytes()
        later = seconds_of(key_frequencies, repeats=repeats)
    return {
        "first_seconds": first,
        "seconds": later,
        "peak_gb": after / 1e9,
        "added_gb": (after - before) / 1e9,
        "key_frequencies": found,
    }


def peak_bytes() -> int:
    """The most memory this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--snapshot", type=Path, help="weights of a mainline network; by default one is trained")
    parser.add_argument("--worker", type=Path, help="for the script's own use: analyse this config here, print JSON")
    chosen = parse(parser)
    threads = chosen.threads
    if chosen.worker:
        config = with_fields(paper(), **json.loads(chosen.worker.read_text(encoding="utf-8")))
        print(json.dumps(analyse(config, chosen.snapshot, repeats=chosen.rounds, threads=threads)))
        return
    config = dataclasses.replace(tiny(), epochs=5) if chosen.smoke else quick()
    record = Record("analysis", chosen)
    with tempfile.TemporaryDirectory() as folder:
        found = analysed(config, chosen, threads, Path(folder))
    report(found)
    record.finish(modulus=config.modulus, target_seconds=TARGET_SECONDS, target_gb=TARGET_GB, **found)


def analysed(config: Config, chosen: Any, threads: int, folder: Path) -> dict[str, Any]:
    with settings(threads):
        snapshot = chosen.snapshot or trained(config, folder / "snapshot.safetensors")
    if chosen.smoke:
        return analyse(config, snapshot, repeats=1, threads=threads)
    place = folder / "config.json"
    place.write_text(json.dumps(flat(config)), encoding="utf-8")
    words = ("--worker", place, "--snapshot", snapshot, "--threads", threads, "--rounds", chosen.rounds)
    return in_own_process(__file__, *words)


def report(found: dict[str, Any]) -> None:
    seconds, (low, high) = float(np.median(found["seconds"])), interval(found["seconds"])
    verdict = "met" if seconds < TARGET_SECONDS and found["peak_gb"] < TARGET_GB else "NOT MET"
    print(
        f"one checkpoint, key frequencies {found['key_frequencies']}: {seconds:.2f} s [{low:.2f}, {high:.2f}], the "
        f"first time {found['first_seconds']:.2f} s; at most {found['peak_gb']:.2f} GB, of which the analysis added "
        f"{found['added_gb']:.2f} GB; target {TARGET_SECONDS} s and {TARGET_GB} GB: {verdict}"
    )


if __name__ == "__main__":
    main()
