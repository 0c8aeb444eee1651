"""Many mainline networks in one program against the same networks one after the other, per model and epoch.

Members differ in seed, split, learning rate and decay. On a CPU the target is: not slower per model. On an accelerator
(`--device cuda`) the whole table of E is timed, and 64 models x 40,000 epochs should take about five minutes, that is
0.1 ms per model and epoch. Without one at hand `--estimate` counts the step's FLOPs, bytes and launches and divides.
Usage: uv run python benchmarks/ensemble.py [--modulus 113] [--members 1 2 4 8] [--device cuda] [--estimate]
"""

import math
from typing import Any

import numpy as np
import torch
from paired import Comparison, Contender, Match
from recording import Record, arguments, parse
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from micrographia.core.config import with_fields
from micrographia.core.runtime import settings
from micrographia.core.small.last_position import LastPosition
from micrographia.core.training import AdamW, fresh_state, train
from micrographia.labs.grokking.config import Config, paper
from micrographia.labs.grokking.task import architecture, make_pairs
from micrographia.labs.grokking.train import fresh_weights

TARGET_MS = 0.1  # per model and epoch on an accelerator
JOB = (64, 40_000)  # models, epochs
# NVIDIA's data sheet of the H200 SXM: float32 (no tensor cores: TF32 stays off) and memory bandwidth.
H200 = {"flops_per_second": 67e12, "bytes_per_second": 4.8e12}
REACHED = (0.85, 0.6)  # shares of the data sheet that thin products and passes reach, at best and with little luck
LAUNCH_SECONDS = 5e-6  # per kernel, launched from Python
PRODUCTS = [torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm, torch.ops.aten.baddbmm]


class Ensemble:
    """`run(n)` takes n epochs with every member of one program."""

    def __init__(self, configs: list[Config], device: str) -> None:
        pairs = [make_pairs(config) for config in configs]
        tokens = torch.stack([p.tokens[p.train] for p in pairs]).to(device)
        labels = torch.stack([p.labels[p.train] for p in pairs]).to(device)
        self.device = device
        self.plan = LastPosition(architecture(configs[0]), tokens, labels, members=len(configs))
        self.optimiser = AdamW(lr=[c.optim.lr for c in configs], weight_decay=[c.optim.weight_decay for c in configs])
        self.state = fresh_state(torch.cat([fresh_weights(config) for config in configs]).to(device))

    def run(self, epochs: int) -> None:
        for state, _ in train(self.state, self.plan, self.optimiser, steps=self.state.step + epochs):
            self.state = state
        if self.device != "cpu":
            torch.cuda.synchronize()


class InTurn:
    """`run(n)` takes n epochs with each of several programs, one after the other."""

    def __init__(self, parts: list[Ensemble]) -> None:
        self.parts = parts

    def run(self, epochs: int) -> None:
        for part in self.parts:
            part.run(epochs)


def members(count: int, modulus: int) -> list[Config]:
    """Networks that share nothing but their shape."""
    return [
        with_fields(paper(), modulus=modulus, seed=seed, lr=1e-3 * (1 + seed / 100), weight_decay=1 + seed / 10)
        for seed in range(count)
    ]


class Traffic(TorchDispatchMode):
    """Notes the FLOPs and the bytes read and written of each operation that does work, nothing fused or cached."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.name() and "view" not in func.name():
            seen = {id(x): x for x in tree_leaves((args, kwargs, found)) if isinstance(x, Tensor)}
            flops = _flops(*args[-2:]) if func.overloadpacket in PRODUCTS else 0
            self.operations.append((flops, sum(_n_bytes(x) for x in seen.values())))
        return found


def count(configs: list[Config]) -> list[tuple[int, int]]:
    """FLOPs and bytes of each operation in one epoch of all members, counted while it runs on the CPU."""
    ensemble = Ensemble(configs, "cpu")
    ensemble.run(1)
    with Traffic() as traffic:
        ensemble.run(1)
    return traffic.operations


def estimate(modulus: int, *, counted: int = 2) -> dict[str, Any]:
    """Milliseconds per model and epoch on an H200, by arithmetic: no such machine was used.

    Each operation takes the longer of its FLOPs and its bytes (roofline, Williams et al. 2009), one after the other.
    With many members the launches hide behind the work; the higher figure adds them all the same.
    """
    models, epochs = JOB
    operations = count(members(counted, modulus))
    work = [sum(_roofline(*each) for each in operations) / counted / share for share in REACHED]
    launches = len(operations) * LAUNCH_SECONDS / models
    seconds = [work[0], work[1] + launches]
    return {
        "is_an_estimate": True,
        "gflop_per_model_epoch": sum(flops for flops, _ in operations) / counted / 1e9,
        "mb_per_model_epoch": sum(moved for _, moved in operations) / counted / 1e6,
        "launches_of_a_step": len(operations),
        "assumed": {**H200, "shares_reached": REACHED, "launch_seconds": LAUNCH_SECONDS, "models": models},
        "ms_per_model_epoch": [1e3 * x for x in seconds],
        "minutes_for_the_job": [x * models * epochs / 60 for x in seconds],
        "job": f"{models} models x {epochs} epochs",
        "target_ms": TARGET_MS,
    }


def print_estimate(found: dict[str, Any]) -> None:
    (low, high), minutes = found["ms_per_model_epoch"], found["minutes_for_the_job"]
    print(
        f"estimate for an H200 (none was used): {found['gflop_per_model_epoch']:.2f} GFLOP and "
        f"{found['mb_per_model_epoch']:.0f} MB a model and epoch, {found['launches_of_a_step']} launches a step: "
        f"{low:.3f} to {high:.3f} ms, target {found['target_ms']}; {found['job']} in {minutes[0]:.1f} to "
        f"{minutes[1]:.1f} minutes",
        flush=True,
    )


def match(count_of: int, chosen: Any) -> Match:
    """So many networks in one program against the same one after the other."""
    configs = members(count_of, chosen.modulus)
    together = Ensemble(configs, chosen.device)
    alone = InTurn([Ensemble([config], chosen.device) for config in configs])
    return Match(
        Contender(f"{count_of} in one program", together.run),
        Contender(f"{count_of} one at a time", alone.run),
        f"epoch of {count_of}",
        1.0,
        {"members": count_of},
    )


def ms_per_model(found: Comparison) -> float:
    return 1e3 * float(np.median(found.ours_seconds)) / found.about["members"]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--modulus", type=int, default=113)
    parser.add_argument("--members", type=int, nargs="+", default=None, help="default: 1 2 4 8, on CUDA to 64")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--estimate", action="store_true", help="only count, and divide by an H200's data sheet")
    chosen = parse(parser)
    chosen.members = chosen.members or [2**i for i in range(4 if chosen.device == "cpu" else 1 + int(math.log2(64)))]
    if chosen.smoke:
        chosen.modulus, chosen.members = 11, [2]
    name = "ensemble_estimate" if chosen.estimate else f"ensemble_{chosen.device}_p{chosen.modulus}"
    with settings(chosen.threads, chosen.device):
        record = Record(name, chosen, device=chosen.device)
        arithmetic = estimate(chosen.modulus)
        print_estimate(arithmetic)
        record.put(modulus=chosen.modulus, h200=arithmetic)
        found = [] if chosen.estimate else record.compare([match(each, chosen) for each in chosen.members])
        each_ms = {each.about["members"]: ms_per_model(each) for each in found}
        record.finish(ms_per_model_epoch=each_ms)
        print(f"ms per model and epoch, by members: {each_ms}")


def _roofline(flops: int, moved: int) -> float:
    """Seconds on an H200 at the full rates of its data sheet."""
    return max(flops / H200["flops_per_second"], moved / H200["bytes_per_second"])


def _flops(left: Tensor, right: Tensor) -> int:
    terms = left.values().numel() if left.layout == torch.sparse_csr else left.numel()
    return 2 * terms * right.shape[-1]


def _n_bytes(x: Tensor) -> int:
    """Bytes of the elements; of a sparse tensor, of its parts."""
    if x.layout == torch.sparse_csr:
        return sum(_n_bytes(part) for part in (x.crow_indices(), x.col_indices(), x.values()))
    return x.numel() * x.element_size()


if __name__ == "__main__":
    main()
