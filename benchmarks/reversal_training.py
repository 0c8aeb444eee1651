"""Training the networks of lab `reversal`: many in one program, beside one after the other in plain PyTorch.

The program of one layer of the quick preset: every arm of that shape, one seed, 256 facts a step. A unit is one step of
one network. Ours stacks the networks and scores the last position alone; theirs is a Module of torch's own layers with
its cross-entropy and AdamW, each network with its own batches, one after the other. Beside them ours, one at a time.

Usage: uv run python benchmarks/reversal_training.py
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from paired import Contender, Match
from recording import Record, arguments, parse
from torch import Tensor, nn

from micrographia.core.config import flat, with_fields
from micrographia.core.runtime import settings
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.stacked import Stacked, StackedRows
from micrographia.core.training import AdamW, fresh_state, train
from micrographia.labs.reversal.config import Config, quick, tiny
from micrographia.labs.reversal.train import NetworkProgram, make_program

KEPT, TARGET = 8, 1.5


def kept_batches(program: NetworkProgram) -> list[StackedRows]:
    """Made beforehand, the same for all contenders."""
    assert isinstance(program.objective, Stacked)
    return [program.objective.batches(step) for step in range(KEPT)]


def stacked(config: Config, program: NetworkProgram, members: slice) -> Callable[[int], None]:
    """n units: n / members steps of all these members at once."""
    assert isinstance(program.objective, Stacked)
    batches = [StackedRows(tokens[members], targets[members]) for tokens, targets in kept_batches(program)]
    objective = Stacked(program.objective.arch, lambda step: batches[step % KEPT], program.objective.columns)
    rule, state = AdamW(**flat(config.optim)), fresh_state(program.fresh()[members])

    def run(n: int) -> None:
        nonlocal state
        for now, _ in train(state, objective, rule, steps=state.step + n // len(state.weights)):
            state = now

    return run


class Block(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.heads = arch.n_heads
        self.qkv = nn.Linear(arch.d_model, 3 * arch.n_heads * arch.d_head, bias=False)
        self.out = nn.Linear(arch.n_heads * arch.d_head, arch.d_model, bias=False)
        self.mlp = nn.Sequential(nn.Linear(arch.d_model, arch.d_mlp), nn.ReLU(), nn.Linear(arch.d_mlp, arch.d_model))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(z.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class Plain(nn.Module):
    """The same network: no norm, no biases in attention, learned positions."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(arch.d_vocab, arch.d_model), nn.Embedding(arch.n_ctx, arch.d_model)
        self.blocks = nn.Sequential(*(Block(arch) for _ in range(arch.n_layers)))
        self.head = nn.Linear(arch.d_model, arch.d_vocab_out, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        return self.head(self.blocks(x))


def plain(config: Config, program: NetworkProgram) -> Callable[[int], None]:
    """n units: each network in turn takes its steps."""
    assert isinstance(program.objective, Stacked)
    arch, batches, n_members = program.objective.arch, kept_batches(program), len(program.learners)
    (column,) = program.objective.columns
    o = config.optim
    rates = {"lr": o.lr, "betas": (o.beta1, o.beta2), "weight_decay": o.weight_decay}
    networks = [Plain(arch) for _ in range(n_members)]
    optimisers = [torch.optim.AdamW(each.parameters(), **rates) for each in networks]

    def run(n: int) -> None:
        for k, (model, optimiser) in enumerate(zip(networks, optimisers)):
            for step in range(n // n_members):
                rows = batches[step % KEPT]
                loss = F.cross_entropy(model(rows.tokens[k])[:, column], rows.targets[k, :, 0])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

    return run


def measure(chosen: Any, record: Record) -> None:
    config = with_fields(tiny() if chosen.smoke else quick(), threads=chosen.threads, seeds=1, many=1)
    program = make_program(config, "one layer")
    n = len(program.learners)
    ours = Contender("micrographia, all networks at once", stacked(config, program, slice(None)), whole=n)
    alone = Contender("micrographia, one network", stacked(config, program, slice(1)))
    theirs = Contender("plain PyTorch, one after the other", plain(config, program), whole=n)
    record.put(networks=n, rows=config.batch, entities=config.entities)
    record.compare([Match(ours, theirs, "network-step", TARGET), Match(ours, alone, "network-step")])
    record.finish()


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.set_defaults(rounds=15)
    chosen = parse(parser)
    with settings(chosen.threads):
        measure(chosen, Record("reversal_training", chosen))


if __name__ == "__main__":
    main()
