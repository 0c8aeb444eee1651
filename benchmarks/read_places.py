"""Reading every layer's residual stream at the last token of 500 prompts, for probes, beside the bare passes.

A model of SmolLM2-135M's shape with random weights; prompts of 12 to 24 tokens. Ours is the reading half of `mg.probe`
and of lab `facts --model`: one pass of all layers, the chosen token of each kept. The floor is the bare module of
transformers on the same batches with the logits of the last token alone, nothing kept.

Usage: uv run python benchmarks/read_places.py [--rounds 7]
"""

from collections.abc import Callable
from typing import Any

import torch
from paired import Contender, Match
from recording import Record, arguments, parse
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from micrographia.core.pretrained import load
from micrographia.core.runtime import generator, settings
from micrographia.core.sites import Site
from micrographia.methods.probes.read import TOKENS, PlaceReader

SIZES = {"d": 576, "mlp": 1536, "layers": 30, "heads": 9, "shared": 3, "vocab": 49152, "prompts": 500}
SMOKE = {"d": 32, "mlp": 64, "layers": 2, "heads": 4, "shared": 2, "vocab": 90, "prompts": 12}
LENGTHS = (12, 16, 20, 24)
TARGET = 1 / 1.1


def module_of(sizes: dict[str, int]) -> LlamaForCausalLM:
    config = LlamaConfig(
        hidden_size=sizes["d"], intermediate_size=sizes["mlp"], num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"], num_key_value_heads=sizes["shared"], vocab_size=sizes["vocab"],
        max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def prompts_of(sizes: dict[str, int]) -> Tensor:
    """Rows of every length in turn, their beginnings filled with token 0."""
    n = sizes["prompts"]
    ids = torch.randint(1, sizes["vocab"], (n, LENGTHS[-1]), generator=generator(1))
    for i in range(n):
        ids[i, : LENGTHS[-1] - LENGTHS[i % len(LENGTHS)]] = 0
    return ids


def reading(module: LlamaForCausalLM, ids: Tensor, n_layers: int) -> Callable[[], Tensor]:
    model, sites = load(module), [Site("resid_post", layer) for layer in range(n_layers)]
    lengths = [LENGTHS[i % len(LENGTHS)] for i in range(len(ids))]
    groups = [torch.tensor([i for i, length in enumerate(lengths) if length == each]) for each in LENGTHS]
    rows = [ids[own, LENGTHS[-1] - length :] for own, length in zip(groups, LENGTHS)]

    def run() -> Tensor:
        stacks = [
            stack.x
            for own in rows
            for stack in PlaceReader(
                inputs=own, text=torch.arange(len(own)), pos=torch.full((len(own),), own.shape[1] - 1)
            ).stacks(model, sites)
        ]
        return torch.cat(stacks, 1)

    return run


def bare(module: LlamaForCausalLM, ids: Tensor) -> Callable[[], Tensor]:
    lengths = [LENGTHS[i % len(LENGTHS)] for i in range(len(ids))]
    batches = [
        part
        for length in LENGTHS
        for part in ids[torch.tensor([each == length for each in lengths]), LENGTHS[-1] - length :].split(
            TOKENS // length
        )
    ]

    def run() -> Tensor:
        with torch.no_grad():
            return torch.cat([module(input_ids=own, use_cache=False, logits_to_keep=1).logits for own in batches])

    return run


def timed(name: str, run: Callable[[], Any]) -> Contender:
    def rounds(n: int) -> None:
        for _ in range(n):
            run()

    return Contender(name, rounds)


def check(module: LlamaForCausalLM, ids: Tensor, found: Tensor) -> None:
    """Against the hidden states that transformers gives: the first rows' last layer but one, before any timing."""
    first = ids[: len(LENGTHS)][:1]
    length = LENGTHS[0]
    theirs = module(input_ids=first[:, LENGTHS[-1] - length :], output_hidden_states=True).hidden_states
    assert theirs is not None
    apart = float((found[0, 0] - theirs[1][0, -1]).abs().max())
    if apart > 1e-4:
        raise SystemExit(f"What was read differs by {apart:.2g}. Nothing was timed.")


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.set_defaults(rounds=7)
    chosen = parse(parser)
    sizes = SMOKE if chosen.smoke else SIZES
    with settings(chosen.threads):
        module, ids, record = module_of(sizes), prompts_of(sizes), Record("read_places", chosen)
        read = reading(module, ids, sizes["layers"])
        check(module, ids, read())
        ours, theirs = timed("micrographia, all layers", read), timed("bare passes", bare(module, ids))
        record.put(sizes=sizes)
        record.compare([Match(ours, theirs, "reading", TARGET)])
        record.finish()


if __name__ == "__main__":
    main()
