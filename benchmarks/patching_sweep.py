"""Exact patching sweeps against TransformerLens, on models of random weights.

Pairs of 15-token prompts, 8 of them unless `--prompts` says otherwise, denoised: every layer x position of resid_pre
(180 patches at GPT-2 small's shape), and every head of every layer at every position (2,160). TransformerLens is 3.9's
HookedTransformer (`--tl-python`) or 4.3's TransformerBridge (`--tl4-python`). Ours is always a whole sweep. Theirs is
`generic_activation_patch`, what `get_act_patch_resid_pre` calls: one full forward a patch, whichever it is, so that
`--tl-part` may take a part of them, spread evenly over the grid, and time is told by the patch; the result says how
many, and the time of all that follows. Before anything is timed, both maps must agree to 1e-5 of their largest value
(theirs at `--check` cells spread evenly over the grid; in float32, otherwise the difference is told). Peak memory is
taken in a process of its own, above what is held once the model is loaded.

Usage: uv run python benchmarks/patching_sweep.py --tl-python PATH [--rounds 30] [--task resid_pre heads]
       uv run python benchmarks/patching_sweep.py --tl4-python PATH --shape smollm2 --task heads --prompts 1
"""

import json
import time
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import memory
import numpy as np
from paired import Comparison, Contender, Match
from peer import Peer, peer
from recording import Record, arguments, in_own_process, parse
from shapes import (
    N_POS,
    N_PROMPTS,
    add_flags,
    arrays,
    chosen_model,
    lens_python,
    lens_settings,
    lens_weights,
    save,
    some_tokens,
    title,
    words,
)
from torch import Tensor

from micrographia.core.metrics import logit_difference
from micrographia.core.model import Cache
from micrographia.core.pretrained import Pretrained, load
from micrographia.core.runtime import settings
from micrographia.core.sweep import PatchGrid, grids, sweep

TARGET = 10.0
TASKS = {"resid_pre": ("L*.resid_pre", ("layer", "pos")), "heads": ("L*.z", ("layer", "pos", "head"))}
AGREE = 1e-5


class Task:
    """One grid over one model, ready to be swept."""

    def __init__(self, model: Pretrained, name: str, tokens: dict[str, Tensor], at_once: int | None) -> None:
        pattern, by = TASKS[name]
        self.name = name
        self.model = model
        self.tokens = tokens
        self.at_once = at_once
        self.grid: PatchGrid = grids(model, pattern, by, N_POS)[0]
        self.donor: Cache = model.run(tokens["clean"], keep=pattern, logits="last").cache
        self.metric = logit_difference(tokens["right"], tokens["wrong"])
        self.whole = len(self.grid.patches)

    @property
    def cells(self) -> list[list[int]]:
        """Layer, position and head of every patch."""
        return np.stack(np.unravel_index(np.arange(self.whole), self.grid.lengths), 1).tolist()

    def sweep(self, count: int | None = None) -> np.ndarray:
        """The mean metric of every patch, or of the first few."""
        patches = self.grid.patches[:count]
        found = sweep(
            self.model, self.tokens["corrupt"], patches, self.donor, [self.metric], tokens_at_once=self.at_once
        )
        return found.mean((1, 2)).float().cpu().numpy()

    def contender(self) -> Contender:
        return Contender(f"micrographia, {self.name}", self.sweep, chunk=self.whole)

    def match(self, other: Peer, part: int) -> Match:
        about = {
            "task": self.name,
            "part": {
                "of_patches": self.whole,
                "theirs_patched": part,
                "why": "one full forward a patch, whichever it is: evenly spread ones tell the time of each",
            },
        }
        theirs = Contender(
            f"TransformerLens {other.ready[0]}, {self.name}", lambda n: other.ask(self.name, n), chunk=part
        )
        return Match(self.contender(), theirs, "cell", TARGET, about)


@contextmanager
def lens(chosen: Any, module: Any, tasks: Sequence[Task]) -> Any:
    """The other contender, with the same weights and prompts: 4.3 reads the module's folder, 3.9 arrays."""
    cells, given = {task.name: task.cells for task in tasks}, {"tokens": arrays(tasks[0].tokens)}
    if chosen.tl4_python is not None:
        config = {"threads": chosen.threads, "device": chosen.device, "dtype": chosen.dtype, "cells": cells}
        with peer(chosen.tl4_python, "sweep_worker.py", config, given, partial(save, module)) as other:
            yield other
        return
    config = {**lens_settings(chosen, module.config), "cells": cells}
    with peer(chosen.tl_python, "sweep_worker.py", config, {**given, "weights": lens_weights(module)}) as other:
        yield other


def own_sweep(name: str, chosen: Any) -> dict[str, Any]:
    """One sweep of ours, its donors included: values, time, memory held with the model loaded and the peak above it."""
    with settings(chosen.threads, chosen.device):
        model = cast(Pretrained, load(chosen_model(chosen)))
        tokens = some_tokens(model.shape.d_vocab, chosen.device, chosen.prompts)
        before = memory.reset_peak(chosen.device)
        task = Task(model, name, tokens, chosen.at_once)
        began = time.perf_counter()
        values = task.sweep().tolist()
        seconds = time.perf_counter() - began
        above = memory.peak(chosen.device) - before
    return {"values": values, "first_seconds": seconds, "resident_mib": before, "peak_above_mib": above}


def first_sweep(name: str, chosen: Any) -> dict[str, Any]:
    """That in a process of its own, so that nothing else is counted."""
    if chosen.smoke:
        return own_sweep(name, chosen)
    at_once = [] if chosen.at_once is None else ["--at-once", chosen.at_once]
    found = in_own_process(__file__, "--peak", name, *words(chosen), "--prompts", chosen.prompts, *at_once)
    print(name, {key: value for key, value in found.items() if key != "values"}, flush=True)
    return found


def check(task: Task, other: Peer, first: dict[str, Any], chosen: Any) -> dict[str, float]:
    """Both maps, compared; and both peaks."""
    count = min(chosen.check, task.whole)
    their_above = float(other.ask(task.name, count)[0])
    found, ours = other.arrays("theirs"), np.array(first.pop("values"))
    apart = float(np.abs(ours[found["which"]] - found["values"]).max())
    largest = float(np.abs(found["values"]).max())
    if chosen.dtype == "float32" and apart > AGREE * max(1.0, largest):
        raise SystemExit(
            f"The {task.name} maps differ by {apart:.2g} (largest value {largest:.3g}). Nothing was timed."
        )
    return {
        **first,
        "largest_difference": apart,
        "largest_value": largest,
        "cells_compared": count,
        "their_resident_mib": float(other.ready[2]),
        "their_peak_above_mib": their_above,
    }


def measure(chosen: Any, record: Record) -> None:
    firsts = {name: first_sweep(name, chosen) for name in chosen.task}
    model = cast(Pretrained, load(chosen_model(chosen)))
    tokens = some_tokens(model.shape.d_vocab, chosen.device, chosen.prompts)
    tasks = [Task(model, name, tokens, chosen.at_once) for name in chosen.task]
    record.put(shape=chosen.shape, prompts=chosen.prompts)
    if chosen.tl_python is None and chosen.tl4_python is None:
        print("TransformerLens was left out: give --tl-python or --tl4-python, the Python of an environment with it.")
        alone(tasks, firsts, chosen, record)
        return
    with lens(chosen, model.module, tasks) as other:
        record.put(transformer_lens=other.ready[0], their_torch=other.ready[1])
        checks = {}
        for task in tasks:
            checks[task.name] = check(task, other, firsts[task.name], chosen)
            print(task.name, checks[task.name], flush=True)
            record.put(checks=checks)
        parts = chosen.tl_part or [None] * len(tasks)
        found = record.compare(
            [task.match(other, min(part or task.whole, task.whole)) for task, part in zip(tasks, parts, strict=True)]
        )
    record.finish(seconds_of_all={each.about["task"]: scaled(each) for each in found})


def alone(tasks: Sequence[Task], firsts: dict[str, dict[str, Any]], chosen: Any, record: Record) -> None:
    """Ours with nobody to compare with: so many sweeps."""
    found: dict[str, dict[str, Any]] = {}
    for task in tasks:
        del firsts[task.name]["values"]
        found[task.name] = {"patches": task.whole, **firsts[task.name], "seconds": []}
    for _ in range(chosen.rounds):
        for task in tasks:
            taken = found[task.name]["seconds"]
            if not taken or time.monotonic() + max(taken) <= chosen.deadline:
                began = time.perf_counter()
                task.sweep()
                taken.append(time.perf_counter() - began)
                record.put(alone=found)
    for name, each in found.items():
        print(f"{name}: {each['patches']} patches in {np.median(each['seconds']):.3g} s, n={len(each['seconds'])}")
    record.finish()


def scaled(found: Comparison) -> dict[str, float]:
    """Median seconds of the whole grid; theirs scaled up from the part that was patched."""
    whole = found.about["part"]["of_patches"]
    ours, theirs = (float(np.median(each)) * whole for each in (found.ours_seconds, found.theirs_seconds))
    return {"ours": ours, "theirs_scaled": theirs}


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.set_defaults(rounds=30)
    add_flags(parser)
    lens_python(parser)
    parser.add_argument("--tl4-python", type=Path, help="Python of an environment with transformer-lens 4.3")
    parser.add_argument("--prompts", type=int, default=N_PROMPTS, help="pairs of prompts")
    parser.add_argument("--task", nargs="+", choices=sorted(TASKS), default=["resid_pre"])
    parser.add_argument(
        "--tl-part", nargs="+", type=int, help="patches that TransformerLens does, for each task; else all"
    )
    parser.add_argument("--check", type=int, default=180, help="cells at which both maps are compared")
    parser.add_argument("--at-once", type=int, help="tokens of a wave instead of the default")
    parser.add_argument("--peak", choices=sorted(TASKS), help="only print this sweep's memory and values")
    chosen = parse(parser)
    if chosen.tl_part and len(chosen.tl_part) != len(chosen.task):
        parser.error(f"--tl-part has {len(chosen.tl_part)} numbers for {len(chosen.task)} tasks; give one for each.")
    if chosen.peak:
        print(json.dumps(own_sweep(chosen.peak, chosen)))
        return
    with settings(chosen.threads, chosen.device):
        name = title("_".join(["patching", *chosen.task]), chosen)
        measure(chosen, Record(name, chosen, device=chosen.device, dtype=chosen.dtype))


if __name__ == "__main__":
    main()
