"""Exact patching sweeps against TransformerLens 3.9, on a GPT-2-small-shaped model of random weights.

Pairs of 15-token prompts, 8 of them, denoised: every layer x position of resid_pre (180 patches), and every head of
every layer at every position (2,160). Theirs is `generic_activation_patch`, what `get_act_patch_resid_pre` calls: one
full forward a patch, so its time a patch is the same for any of them, and a chunk takes a share of the grid; ours is
always a whole sweep. Before anything is timed, both maps must agree to 1e-5 of their largest value (theirs at
`--check` cells spread evenly over the grid). Peak memory is told above what was resident before the sweep.

Usage: uv run python benchmarks/patching_sweep.py --tl-python PATH [--rounds 30] [--task resid_pre heads]
A round of resid_pre takes about 25 s on two quiet cores, one of heads about 2 minutes, the check about 0.5 s a cell.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import memory
import numpy as np
import torch
from paired import Contender, arguments, compare, machine, parse, write_result
from torch import Tensor

from micrographia.core.answers import logit_difference
from micrographia.core.model import Cache
from micrographia.core.pretrained import Pretrained, load
from micrographia.core.runtime import allowed_cores, settings
from micrographia.core.sweep import Grid, grids, sweep

N_PROMPTS, N_POS = 8, 15
SCALE = 2.5  # of the usual random weights, so that patches matter
TARGET = 10.0
TASKS = {"resid_pre": ("L*.resid_pre", ("layer", "pos")), "heads": ("L*.z", ("layer", "pos", "head"))}
AGREE = 1e-5


def gpt2(*, smoke: bool) -> Any:
    """GPT-2 small's shape, random weights; with `smoke` a miniature of it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = (
        GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, bos_token_id=0, eos_token_id=0)
        if smoke
        else GPT2Config()
    )
    module = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(SCALE)
    return module


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

    @property
    def cells(self) -> list[list[int]]:
        """Layer, position and head of every patch."""
        return np.stack(np.unravel_index(np.arange(len(self.grid.patches)), self.grid.lengths), 1).tolist()

    def sweep(self, count: int | None = None) -> np.ndarray:
        """The mean metric of every patch, or of the first few."""
        patches = self.grid.patches[:count]
        found = sweep(
            self.model, self.tokens["corrupt"], patches, self.donor, [self.metric], tokens_at_once=self.at_once
        )
        return found.mean((1, 2)).numpy()

    def contender(self) -> Contender:
        whole = len(self.grid.patches)
        return Contender(
            "micrographia", lambda n: [self.sweep(min(n, whole)) for _ in range(max(1, n // whole))], whole
        )


class Worker:
    """TransformerLens in its own process."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder
        _, self.version, self.torch, resident = self._line().split()
        self.resident = float(resident)

    def patch(self, task: str, count: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Which cells were patched, their values, and the peak memory above what was resident."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{task} {count}\n")
        self._process.stdin.flush()
        above = float(self._line().split()[1])
        found = np.load(self._folder / "theirs.npz")
        return found["which"], found["values"], above

    def _line(self) -> str:
        assert self._process.stdout is not None
        while not (line := self._process.stdout.readline()).startswith(("ready", "done")):
            if not line:
                raise SystemExit("TransformerLens' process ended; what it said stands above.")
        return line


@contextmanager
def worker(python: Path, module: Any, tasks: Sequence[Task], threads: int) -> Iterator[Worker]:
    """The other contender, with the same weights and prompts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "weights.npz", **lens_weights(module))
        np.savez(folder / "tokens.npz", **{key: value.numpy() for key, value in tasks[0].tokens.items()})
        chosen = {"threads": threads, "model": lens_config(module.config)}
        chosen["cells"] = {task.name: task.cells for task in tasks}
        (folder / "config.json").write_text(json.dumps(chosen), encoding="utf-8")
        command = [str(python), str(Path(__file__).with_name("sweep_worker.py")), name]
        quiet = {**os.environ, "TQDM_DISABLE": "1"}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet)
        try:
            yield Worker(process, folder)
        finally:
            process.kill()
            process.wait()


def lens_config(config: Any) -> dict[str, Any]:
    return {
        "n_layers": config.n_layer,
        "d_model": config.n_embd,
        "n_ctx": config.n_positions,
        "d_head": config.n_embd // config.n_head,
        "n_heads": config.n_head,
        "d_mlp": 4 * config.n_embd,
        "d_vocab": config.vocab_size,
        "act_fn": "gelu_new",
        "normalization_type": "LN",
        "eps": config.layer_norm_epsilon,
    }


def lens_weights(module: Any) -> dict[str, np.ndarray]:
    """GPT-2's weights under TransformerLens' names, nothing folded."""
    state = {name.removeprefix("transformer."): value for name, value in module.state_dict().items()}
    heads, width = module.config.n_head, module.config.n_embd
    found = {
        "embed.W_E": state["wte.weight"],
        "pos_embed.W_pos": state["wpe.weight"],
        "unembed.W_U": state["wte.weight"].T,
    }
    found |= {"unembed.b_U": torch.zeros(module.config.vocab_size)}
    found |= {f"ln_final.{ours}": state[f"ln_f.{theirs}"] for ours, theirs in (("w", "weight"), ("b", "bias"))}
    for i in range(module.config.n_layer):
        block, h = f"blocks.{i}.", f"h.{i}."
        for ours, theirs in (("ln1", "ln_1"), ("ln2", "ln_2")):
            found |= {f"{block}{ours}.w": state[f"{h}{theirs}.weight"], f"{block}{ours}.b": state[f"{h}{theirs}.bias"]}
        for j, name in enumerate("QKV"):
            part = slice(j * width, (j + 1) * width)
            found[f"{block}attn.W_{name}"] = (
                state[h + "attn.c_attn.weight"][:, part].unflatten(1, (heads, -1)).transpose(0, 1)
            )
            found[f"{block}attn.b_{name}"] = state[h + "attn.c_attn.bias"][part].unflatten(0, (heads, -1))
        found[f"{block}attn.W_O"] = state[h + "attn.c_proj.weight"].unflatten(0, (heads, -1))
        found[f"{block}attn.b_O"] = state[h + "attn.c_proj.bias"]
        for ours, theirs in (("in", "c_fc"), ("out", "c_proj")):
            found[f"{block}mlp.W_{ours}"] = state[f"{h}mlp.{theirs}.weight"]
            found[f"{block}mlp.b_{ours}"] = state[f"{h}mlp.{theirs}.bias"]
    return {name: value.contiguous().numpy() for name, value in found.items()}


def some_tokens(vocab: int) -> dict[str, Tensor]:
    """Pairs that differ at one position, and two answers for each."""
    generator = torch.Generator().manual_seed(1)
    clean, corrupt = (torch.randint(0, vocab, (N_PROMPTS, N_POS), generator=generator) for _ in range(2))
    corrupt = torch.cat([clean[:, :4], corrupt[:, 4:5], clean[:, 5:]], 1)
    right, wrong = (torch.randint(0, vocab, (N_PROMPTS,), generator=generator) for _ in range(2))
    return {"clean": clean, "corrupt": corrupt, "right": right, "wrong": wrong}


def check(task: Task, other: Worker, count: int) -> dict[str, float]:
    """Both maps, compared; and both peaks."""
    before = memory.reset_peak()
    ours = task.sweep()
    above = memory.peak() - before
    which, theirs, their_above = other.patch(task.name, count)
    apart = float(np.abs(ours[which] - theirs).max())
    largest = float(np.abs(theirs).max())
    if apart > AGREE * max(1.0, largest):
        raise SystemExit(
            f"The {task.name} maps differ by {apart:.2g} (largest value {largest:.3g}). Nothing was timed."
        )
    return {
        "largest_difference": apart,
        "largest_value": largest,
        "cells_compared": count,
        "resident_mib": before,
        "peak_above_mib": above,
        "their_resident_mib": other.resident,
        "their_peak_above_mib": their_above,
    }


def measure(chosen: Any) -> dict[str, Any]:
    module = gpt2(smoke=chosen.smoke)
    model = load(module)
    assert isinstance(model, Pretrained)
    tokens = some_tokens(module.config.vocab_size)
    tasks = [Task(model, name, tokens, chosen.at_once) for name in chosen.task]
    if chosen.tl_python is None:
        print("TransformerLens was left out: give --tl-python, the Python of an environment that has it.")
        return {"alone": {task.name: alone(task) for task in tasks}}
    found: dict[str, Any] = {"checks": {}, "comparisons": []}
    with worker(chosen.tl_python, module, tasks, chosen.threads) as other:
        found["transformer_lens"], found["their_torch"] = other.version, other.torch
        for task in tasks:
            found["checks"][task.name] = check(task, other, min(chosen.check, len(task.grid.patches)))
            print(task.name, found["checks"][task.name])
            theirs = Contender("TransformerLens", lambda n, task=task: other.patch(task.name, n))
            comparison = compare(
                task.contender(),
                theirs,
                unit="cell",
                rounds=chosen.rounds,
                seconds=chosen.seconds,
                target=None if chosen.smoke else TARGET,
                busy=chosen.busy,
            )
            print(comparison)
            found["comparisons"].append({"task": task.name, **comparison.as_json()})
    return found


def alone(task: Task) -> dict[str, float]:
    """Ours without anybody to compare with."""
    import time

    before = memory.reset_peak()
    began = time.perf_counter()
    task.sweep()
    seconds = time.perf_counter() - began
    print(f"{task.name}: {len(task.grid.patches)} patches in {seconds:.2f} s")
    return {"seconds": seconds, "peak_above_mib": memory.peak() - before, "resident_mib": before}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.set_defaults(seconds=8.0, rounds=30)
    parser.add_argument("--tl-python", type=Path, help="Python of an environment with transformer-lens 3.9")
    parser.add_argument("--task", nargs="+", choices=sorted(TASKS), default=["resid_pre"])
    parser.add_argument("--check", type=int, default=180, help="cells at which both maps are compared")
    parser.add_argument("--at-once", type=int, help="tokens of a wave instead of the default")
    chosen = parse(parser)
    chosen.threads = chosen.threads or allowed_cores()
    with settings(chosen.threads):
        about = machine(chosen.threads)
        found = measure(chosen)
    write_result("patching_sweep", found, out=chosen.out, smoke=chosen.smoke, machine=about)


if __name__ == "__main__":
    main()
