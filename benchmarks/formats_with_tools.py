"""Dictionaries that we write, read by the tools that they are written for: the same latents and reconstructions?

No timing. Every kind that a format can hold is made of random weights, written by `Dictionary.save`, loaded by the
tool's own loader in an environment of its own (`formats_worker.py`), and compared: the largest difference over the
largest value, and whether the same latents are on. Inputs have unkind rows: large, zero, negated, small.

    uv run python benchmarks/formats_with_tools.py --saelens-python ../saelens/bin/python ...

OpenAI's code is on no package index and is not run.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer import peer
from recording import Record, arguments, parse
from torch import Tensor

from micrographia.core.dictionaries.dictionary import About, Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import COUNTED, THRESHOLDED, Form
from micrographia.core.dictionaries.formats.load import load
from micrographia.core.dictionaries.several import (
    AnyDictionary,
    CrossLayerTranscoder,
    CrossLayerWeights,
    DictionarySet,
)
from micrographia.core.runtime import generator, settings
from micrographia.core.sites import Site

D, N, OUT, LAYERS, K = 16, 64, 12, 3, 5
LIMIT = 2e-6
"""Of the largest value: rounding in float32."""


def rows(seed: int) -> Tensor:
    x = torch.randn(32, D, generator=generator(seed))
    x[20], x[21], x[22], x[23] = 12 * x[20], 0, -x[21 - 1], 1e-3 * x[23]
    return x


def made(
    activation: str, seed: int, *, out: int = D, skips: bool = False, transcodes: bool = False, **form: Any
) -> Dictionary:
    g = generator(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    gated, transcodes = activation == "gated", transcodes or out != D or skips
    weights = DictionaryWeights(
        W_enc=0.5 * draw(D, N), W_dec=0.3 * draw(N, out), b_dec=draw(out), b_enc=None if gated else 0.3 * draw(N),
        threshold=draw(N).abs() if activation in THRESHOLDED else None,
        b_gate=draw(N) if gated else None, b_mag=draw(N) if gated else None, r_mag=0.3 * draw(N) if gated else None,
        W_skip=0.3 * draw(D, out) if skips else None,
    )  # fmt: skip
    k = (8 if activation == "groupmax" else K) if activation in COUNTED else None
    form = {"subtract_b_dec": not transcodes, **form}
    site = Site("mlp_norm", 1) if transcodes else Site("z", 1) if form.get("heads") else Site("resid_post", 1)
    target = Site("mlp_out", 1) if transcodes else None
    return Dictionary(weights, Form(activation=activation, k=k, **form), About(model="toy", site=site, target=target))


def layered(activation: str, *, skips: bool = False) -> DictionarySet:
    """A transcoder for each layer; the output is as wide as the input."""
    return DictionarySet({i: made(activation, i, skips=skips, transcodes=True) for i in range(LAYERS)})


def across(activation: str) -> CrossLayerTranscoder:
    g = generator(9)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    every = range(LAYERS)
    weights = CrossLayerWeights(
        W_enc=tuple(0.5 * draw(D, N) for _ in every), b_enc=tuple(draw(N) for _ in every),
        W_dec=tuple(0.3 * draw(N, LAYERS - i, D) for i in every), b_dec=tuple(draw(D) for _ in every),
        threshold=tuple(draw(N) for _ in every) if activation in THRESHOLDED else None,
    )  # fmt: skip
    return CrossLayerTranscoder(weights, Form(activation=activation, subtract_b_dec=False))


def cases() -> dict[str, dict[str, tuple[AnyDictionary, str]]]:
    """Tool -> case -> what is written, and in which format."""
    kinds = {kind: made(kind, i) for i, kind in enumerate(("relu", "gated", "topk", "abstopk", "jumprelu", "groupmax"))}
    unsubtracted = {f"{kind}-no-b-dec": made(kind, 10 + i, subtract_b_dec=False) for i, kind in enumerate(kinds)}
    scaled = {
        "layer-norm": made("relu", 20, normalise="layer-norm"),
        "topk-by-norms": made("topk", 22, decoder_norms=True),
        "jumprelu-by-norms": made("jumprelu", 23, decoder_norms=True),
        "heads": made("relu", 24, heads=True),
    }
    transcoders = {
        f"{kind}{'-skip' if skips else ''}-transcoder": made(kind, 30, out=OUT, skips=skips)
        for kind in ("relu", "jumprelu")
        for skips in (False, True)
    }
    skipping = {
        f"{kind}-skip": made(kind, 40, skips=True, subtract_b_dec=True) for kind in ("topk", "groupmax", "relu")
    }
    square = made("jumprelu", 50, skips=True)
    every = kinds | unsubtracted | scaled | transcoders | skipping
    held = {
        "saelens": lambda name, one: one.form.activation != "groupmax" and name not in ("topk-skip",),
        "sparsify": lambda name, one: one.form.activation in ("topk", "groupmax"),
        "dictionary_learning": lambda name, one: one.form.activation in ("relu", "gated", "topk", "jumprelu")
        and "skip" not in name and "transcoder" not in name and name != "layer-norm",
    }  # fmt: skip
    found: dict[str, dict[str, tuple[AnyDictionary, str]]] = {
        tool: {name: (one, tool) for name, one in every.items() if fits(name, one)} for tool, fits in held.items()
    }
    plain = {name: one for name, one in (kinds | unsubtracted).items() if one.form.activation in ("relu", "jumprelu")}
    found["circuit_tracer"] = {
        **{f"gemma-scope-{name}": (one, "gemma_scope") for name, one in plain.items()},
        **{f"gemma-scope-2-{name}": (one, "gemma_scope_2") for name, one in plain.items()},
        "gemma-scope-2-affine": (square, "gemma_scope_2"),
        "set-relu": (layered("relu"), "circuit_tracer"),
        "set-jumprelu": (layered("jumprelu"), "circuit_tracer"),
        "set-jump-skip": (layered("jump", skips=True), "circuit_tracer"),
        "across-relu": (across("relu"), "circuit_tracer"),
        "across-jump": (across("jump"), "circuit_tracer"),
    }
    return found


def inputs(one: AnyDictionary) -> Tensor:
    if not isinstance(one, Dictionary):
        return torch.stack([rows(i) for i in range(LAYERS)])
    return rows(0).unflatten(-1, (2, D // 2)) if one.form.heads else rows(0)


def difference(ours: Tensor, theirs: np.ndarray) -> float:
    """The largest, over the largest value."""
    return float((ours.double() - torch.from_numpy(theirs).double()).abs().max() / ours.abs().max())


def compared(
    tool: str, python: Path, todo: Mapping[str, tuple[AnyDictionary, str]]
) -> tuple[list[str], dict[str, Any]]:
    """The tool's versions, and for each case the differences and whether all is well."""
    x = {name: inputs(one) for name, (one, _) in todo.items()}
    if tool == "dictionary_learning":  # it has no heads
        x = {name: each.flatten(-2) if each.ndim == 3 else each for name, each in x.items()}

    def written(folder: Path) -> None:
        for name, (one, format) in todo.items():
            one.save(folder / name, format)
            load(folder / name, allow_pickle=True)  # that we can read it is tested elsewhere, with numbers

    found = {}
    arrays = {"inputs": {name: each.numpy() for name, each in x.items()}}
    with peer(python, "formats_worker.py", {"tool": tool}, arrays, written) as worker:
        for name, (one, format) in todo.items():
            worker.ask(name)
            theirs = worker.arrays(name)
            latents, out = one.encode(x[name]), one.reconstruct(x[name])
            off = difference(latents, theirs["latents"]), difference(out, theirs["reconstruction"])
            support = bool(((latents != 0).numpy() == (theirs["latents"] != 0)).all())
            found[name] = {"format": format, "latents": off[0], "reconstruction": off[1], "same_support": support,
                           "agrees": max(off) <= LIMIT and support}  # fmt: skip
        return worker.ready, found


def main() -> None:
    parser = arguments(__doc__ or "")
    pythons = {tool: f"--{tool.replace('_', '-')}-python" for tool in cases()}
    for flag in pythons.values():
        parser.add_argument(flag, type=Path, default=None, help="the Python of an environment with this tool")
    chosen = parse(parser)
    with settings(1), torch.no_grad():
        record, all_agree, tools = Record("formats_with_tools", chosen), True, {}
        for tool, todo in cases().items():
            if (python := getattr(chosen, f"{tool}_python")) is None:
                print(f"{tool}: not run, no {pythons[tool]}")
                continue
            versions, found = compared(tool, python, todo)
            tools[tool] = {"versions": versions, "cases": found}
            worst = max(max(each["latents"], each["reconstruction"]) for each in found.values())
            bad = [name for name, each in found.items() if not each["agrees"]]
            all_agree &= not bad
            print(
                f"{' '.join(versions)}: {len(found)} dictionaries, largest difference {worst:.1e}; differ: "
                f"{bad or 'none'}"
            )
            record.put(limit=LIMIT, tools=tools)
        record.put(finished=True)
    if not all_agree:
        sys.exit("Some differ: see above.")


if __name__ == "__main__":
    main()
