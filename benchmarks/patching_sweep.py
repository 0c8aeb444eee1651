"""Exact patching sweeps against TransformerLens 3.9, on a GPT-2-small-shaped model of random weights.

Pairs of 15-token prompts, 8 of them, denoised: every layer x position of resid_pre (180 patches), and every head of
every layer at every position (2,160). Ours is always a whole sweep. Theirs is `generic_activation_patch`, what
`get_act_patch_resid_pre` calls: one full forward a patch, whichever it is, so that `--tl-part` may take a part of them,
spread evenly over the grid, and time is told by the patch; the result says how many, and the time of all that follows.
Before anything is timed, both maps must agree to 1e-5 of their largest value (theirs at `--check` cells spread evenly
over the grid; in float32, otherwise the difference is told). Peak memory is told above what was held before the sweep.

Usage: uv run python benchmarks/patching_sweep.py --tl-python PATH [--rounds 30] [--task resid_pre heads]
"""

import time
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any, cast

import memory
import numpy as np
from paired import Comparison, Contender, Match
from peer import Peer, peer
from record import Record, arguments, parse
from shapes import (
    N_POS,
    add_flags,
    arrays,
    chosen_model,
    lens_python,
    lens_settings,
    lens_weights,
    some_tokens,
    title,
)
from torch import Tensor

from micrographia.core.answers import logit_difference
from micrographia.core.model import Cache
from micrographia.core.pretrained import Pretrained, load
from micrographia.core.runtime import settings
from micrographia.core.sweep import Grid, grids, sweep

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
        self.grid: Grid = grids(model, pattern, by, N_POS)[0]
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
        theirs = Contender(f"TransformerLens, {self.name}", lambda n: other.ask(self.name, n), chunk=part)
        return Match(self.contender(), theirs, "cell", TARGET, about)


@contextmanager
def lens(chosen: Any, module: Any, tasks: Sequence[Task]) -> Any:
    """The other contender, with the same weights and prompts."""
    config = {**lens_settings(chosen, module.config), "cells": {task.name: task.cells for task in tasks}}
    given = {"weights": lens_weights(module), "tokens": arrays(tasks[0].tokens)}
    with peer(chosen.tl_python, "sweep_worker.py", config, given) as other:
        yield other


def check(task: Task, other: Peer, chosen: Any) -> dict[str, float]:
    """Both maps, compared; and both peaks."""
    count = min(chosen.check, task.whole)
    ours, alone = whole_sweep(task, chosen.device)
    their_above = float(other.ask(task.name, count)[0])
    found = other.arrays("theirs")
    apart = float(np.abs(ours[found["which"]] - found["values"]).max())
    largest = float(np.abs(found["values"]).max())
    if chosen.dtype == "float32" and apart > AGREE * max(1.0, largest):
        raise SystemExit(
            f"The {task.name} maps differ by {apart:.2g} (largest value {largest:.3g}). Nothing was timed."
        )
    return {
        **alone,
        "largest_difference": apart,
        "largest_value": largest,
        "cells_compared": count,
        "their_resident_mib": float(other.ready[2]),
        "their_peak_above_mib": their_above,
    }


def alone(tasks: Sequence[Task], chosen: Any, record: Record) -> None:
    """Ours with nobody to compare with: so many sweeps, the first of which warms up."""
    found = {task.name: {"patches": task.whole, **whole_sweep(task, chosen.device)[1]} for task in tasks}
    for each in found.values():
        each |= {"first_seconds": each.pop("seconds"), "seconds": []}
    for _ in range(chosen.rounds):
        for task in tasks:
            each = found[task.name]
            if each["seconds"] and time.monotonic() + max(each["seconds"]) > chosen.deadline:
                continue
            each["seconds"].append(whole_sweep(task, chosen.device)[1]["seconds"])
            record.put(alone=found)
    record.finish()


def whole_sweep(task: Task, device: str) -> tuple[np.ndarray, dict[str, float]]:
    """One sweep of ours, its time and its memory."""
    before = memory.reset_peak(device)
    began = time.perf_counter()
    found = task.sweep()
    seconds = time.perf_counter() - began
    print(f"{task.name}: {task.whole} patches in {seconds:.2f} s", flush=True)
    return found, {"seconds": seconds, "peak_above_mib": memory.peak(device) - before, "resident_mib": before}


def measure(chosen: Any, record: Record) -> None:
    module = chosen_model(chosen)
    model = cast(Pretrained, load(module))
    tokens = some_tokens(module.config.vocab_size, chosen.device)
    tasks = [Task(model, name, tokens, chosen.at_once) for name in chosen.task]
    record.put(shape=chosen.shape)
    if chosen.tl_python is None:
        print("TransformerLens was left out: give --tl-python, the Python of an environment that has it.")
        alone(tasks, chosen, record)
        return
    with lens(chosen, module, tasks) as other:
        record.put(transformer_lens=other.ready[0], their_torch=other.ready[1], checks={})
        checks = {}
        for task in tasks:
            checks[task.name] = check(task, other, chosen)
            print(task.name, checks[task.name], flush=True)
            record.put(checks=checks)
        parts = chosen.tl_part or [None] * len(tasks)
        matches = [
            task.match(other, min(part or task.whole, task.whole)) for task, part in zip(tasks, parts, strict=True)
        ]
        found = record.compare(matches)
    record.finish(seconds_of_all={each.about["task"]: scaled(each) for each in found})


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
    parser.add_argument("--task", nargs="+", choices=sorted(TASKS), default=["resid_pre"])
    parser.add_argument(
        "--tl-part", nargs="+", type=int, help="patches that TransformerLens does, for each task; else all"
    )
    parser.add_argument("--check", type=int, default=180, help="cells at which both maps are compared")
    parser.add_argument("--at-once", type=int, help="tokens of a wave instead of the default")
    chosen = parse(parser)
    if chosen.tl_part and len(chosen.tl_part) != len(chosen.task):
        parser.error(f"--tl-part has {len(chosen.tl_part)} numbers for {len(chosen.task)} tasks; give one for each.")
    with settings(chosen.threads, chosen.device):
        name = title("_".join(["patching", *chosen.task]), chosen)
        measure(chosen, Record(name, chosen, device=chosen.device, dtype=chosen.dtype))


if __name__ == "__main__":
    main()
