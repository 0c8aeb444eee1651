"""A training step of lab `othello`: ours beside the same model in plain PyTorch, and beside its matrix products alone.

The quick preset's model, 64 games of 6x6 a step, made beforehand. Ours is the fused plan with the lab's AdamW, and with
its Muon; theirs is nn.TransformerEncoder (norm first, a causal mask, dropout 0) between embeddings and a head, with
torch's cross-entropy and AdamW. The products are those of one step, forward and backward, each as one matmul.

Usage: uv run python benchmarks/othello_training.py
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from paired import Contender, Match
from recording import Record, arguments, parse
from torch import Tensor, nn

from micrographia.core.config import with_fields
from micrographia.core.runtime import settings
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.next_token import NextToken
from micrographia.core.training import Layout, fresh_state, train
from micrographia.labs.othello.config import Config, quick, tiny
from micrographia.labs.othello.network import architecture, batch, fresh, update_rule

KEPT, TARGET, FLOOR_TARGET = 8, 1.3, None


def ours(config: Config) -> Callable[[int], None]:
    arch = architecture(config)
    layout = Layout(arch.weight_shapes())
    batches = [batch(config, step) for step in range(KEPT)]
    objective = NextToken(arch, [lambda step: batches[step % KEPT]])
    rule, state = update_rule(config, layout), fresh_state(fresh(arch, 0, "cpu"))

    def run(n: int) -> None:
        nonlocal state
        for now, _ in train(state, objective, rule, steps=state.step + n):
            state = now

    return run


class Plain(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.tokens = nn.Embedding(arch.d_vocab, arch.d_model)
        self.positions = nn.Embedding(arch.n_ctx, arch.d_model)
        layer = nn.TransformerEncoderLayer(
            arch.d_model, arch.n_heads, arch.d_mlp, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(arch.d_model)
        self.blocks = nn.TransformerEncoder(layer, arch.n_layers, norm, enable_nested_tensor=False)
        self.head = nn.Linear(arch.d_model, arch.d_vocab_out, bias=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(arch.n_ctx))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        return self.head(self.blocks(x, mask=self.mask, is_causal=True))


def plain(config: Config) -> Callable[[int], None]:
    model = Plain(architecture(config))
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1)
    batches = [batch(config, step).tokens for step in range(KEPT)]

    def run(n: int) -> None:
        for step in range(n):
            tokens = batches[step % KEPT]
            loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=0)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return run


def products(config: Config) -> Callable[[int], None]:
    """Every product of a step over all positions: three a weight, and those of attention."""
    arch = architecture(config)
    rows, d, m = config.games * arch.n_ctx, arch.d_model, arch.d_mlp
    shapes = [(d, 3 * d), (d, d), (d, m), (m, d)] * arch.n_layers + [(d, arch.d_vocab_out)]
    pairs = [(torch.randn(rows, i), torch.randn(i, o), torch.randn(rows, o)) for i, o in shapes]
    q = torch.randn(config.games * arch.n_heads, arch.n_ctx, arch.d_head)
    scores = torch.randn(len(q), arch.n_ctx, arch.n_ctx)

    def run(n: int) -> None:
        for _ in range(n):
            for x, w, y in pairs:
                _ = x @ w, y @ w.T, x.T @ y
            for _ in range(3 * arch.n_layers):
                _ = q @ q.mT, scores @ q

    return run


def measure(chosen: Any, record: Record) -> None:
    config = with_fields(tiny() if chosen.smoke else quick(), threads=chosen.threads, targets="moves")
    lab = Contender("micrographia, AdamW", ours(with_fields(config, optimiser="adamw")))
    muon = Contender("micrographia, Muon", ours(with_fields(config, optimiser="muon")))
    theirs = Contender("nn.TransformerEncoder, AdamW", plain(config))
    floor = Contender("its products", products(config))
    record.put(games=config.games, positions=config.n_ctx)
    record.compare(
        [Match(lab, theirs, "step", TARGET), Match(muon, theirs, "step"), Match(lab, floor, "step", FLOOR_TARGET)]
    )
    record.finish()


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.set_defaults(rounds=15)
    chosen = parse(parser)
    with settings(chosen.threads):
        measure(chosen, Record("othello_training", chosen))


if __name__ == "__main__":
    main()
