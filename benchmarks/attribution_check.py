"""What the default check adds to attribution of all heads, neurons, residual streams and MLP outputs: one pair.

Of SmolLM2-135M itself with `--model smollm2` (or its file), on the pair of the README; without, of random weights of
that shape, 15 tokens. One unit is an attribution in one direction; with its check it should take three times as long at
most. The check's bootstrap and its two runs of the prompts are in it, loading is not.

Usage: uv run python benchmarks/attribution_check.py [--model smollm2] [--threads 1] [--rounds 9]
"""

import argparse
from collections.abc import Callable
from typing import Any

from attribution import SITES
from paired import Match
from recording import Record, arguments, parse
from shapes import add_flags, chosen_model, some_tokens, timed, title

from micrographia.core.load import load_any
from micrographia.core.metrics import logit_difference
from micrographia.core.pretrained import load
from micrographia.core.prompts import Pairs, PairText, from_texts
from micrographia.core.runtime import generator, settings
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.attribution.calibrate import Calibration, calibrate

TARGET = 1 / 3
IOI = PairText(
    "When Mary and John went to the store, John gave a drink to",
    "When Mary and John went to the store, Mary gave a drink to",
    " Mary",
    " John",
)


def model_and_pair(chosen: argparse.Namespace) -> tuple[Any, Pairs]:
    if chosen.model and not chosen.smoke:
        model = load_any(chosen.model)
        return model, from_texts(model, [IOI])
    module = chosen_model(chosen)
    tokens = some_tokens(module.config.vocab_size, chosen.device, n_prompts=1)
    return load(module), Pairs(tokens["clean"], tokens["corrupt"], tokens["right"], tokens["wrong"])


def contenders(model: Any, pairs: Pairs) -> tuple[Callable[[], Any], Callable[[], Calibration]]:
    """The attribution alone, and with its check."""
    assert pairs.wrong is not None
    metric = logit_difference(pairs.answer, pairs.wrong)

    def alone() -> Any:
        return attribute(model, pairs, metric, SITES)

    def checked() -> Calibration:
        return calibrate(model, pairs, metric, alone(), generator=generator(0), whole=True)

    return alone, checked


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.set_defaults(rounds=9)
    add_flags(parser)
    parser.set_defaults(shape="smollm2")
    parser.add_argument("--model", help="a model to take instead of random weights: a name, a folder, a wheel")
    chosen = parse(parser)
    with settings(chosen.threads, chosen.device):
        name = title("attribution_check", chosen) + ("_itself" if chosen.model else "")
        record = Record(name, chosen, device=chosen.device, dtype=chosen.dtype)
        model, pairs = model_and_pair(chosen)
        alone, checked = contenders(model, pairs)
        found = checked()
        counts = {kind: len(each.patches) for kind, each in found.kinds.items()}
        record.put(model=str(model), sites=list(SITES), places=counts, patched_runs=found.n_patches)
        one = timed("attribution", alone, chosen.device)
        both = timed("attribution and its check", checked, chosen.device)
        record.compare([Match(both, one, "attribution", TARGET)])
        record.finish()


if __name__ == "__main__":
    main()
