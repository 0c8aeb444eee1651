"""The grokking mainline's model, written once more and as plainly as can be, against ours.

The reference follows the model of Nanda et al. (2023) as its authors published it: one layer, matrices as (out, in),
einsums over three positions, no norm. It shares no line with the package.
"""

import math

import pytest
import torch
from torch import Generator, Tensor

from micrographia.core.small.architecture import Architecture
from micrographia.core.small.ensemble import PlainObjective
from micrographia.core.small.last_position import LastPosition
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.training import AdamW, Layout, fresh_state, train

P, D, HEADS, D_HEAD, D_MLP = 7, 12, 3, 4, 20
ARCH = Architecture(d_vocab=P + 1, d_vocab_out=P + 1, n_ctx=3, d_model=D, n_heads=HEADS, d_head=D_HEAD, d_mlp=D_MLP)


class Reference(torch.nn.Module):
    """The published model, in its own layout."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        g = Generator().manual_seed(seed)

        def draw(*shape: int, fan: int = D) -> torch.nn.Parameter:
            return torch.nn.Parameter((torch.randn(*shape, generator=g) / math.sqrt(fan)).double())

        self.W_E = draw(D, P + 1)
        self.W_pos = draw(3, D)
        self.W_K = draw(HEADS, D_HEAD, D)
        self.W_Q = draw(HEADS, D_HEAD, D)
        self.W_V = draw(HEADS, D_HEAD, D)
        self.W_O = draw(D, D_HEAD * HEADS)
        self.W_in = draw(D_MLP, D)
        self.b_in = torch.nn.Parameter(torch.zeros(D_MLP, dtype=torch.float64))
        self.W_out = draw(D, D_MLP)
        self.b_out = torch.nn.Parameter(torch.zeros(D, dtype=torch.float64))
        self.W_U = draw(D, P + 1, fan=P + 1)

    def forward(self, tokens: Tensor) -> Tensor:
        x = torch.einsum("dbp->bpd", self.W_E[:, tokens]) + self.W_pos
        k = torch.einsum("ihd,bpd->biph", self.W_K, x)
        q = torch.einsum("ihd,bpd->biph", self.W_Q, x)
        v = torch.einsum("ihd,bpd->biph", self.W_V, x)
        scores = torch.einsum("biph,biqh->biqp", k, q) / math.sqrt(D_HEAD)
        masked = scores.tril() - 1e10 * (1 - torch.ones(3, 3, dtype=torch.float64).tril())
        z = torch.einsum("biph,biqp->biqh", v, masked.softmax(-1))
        x = x + torch.einsum("df,bqf->bqd", self.W_O, z.transpose(1, 2).reshape(len(tokens), 3, -1))
        h = (torch.einsum("md,bpd->bpm", self.W_in, x) + self.b_in).relu()
        x = x + torch.einsum("dm,bpm->bpd", self.W_out, h) + self.b_out
        return x @ self.W_U

    def ours(self) -> dict[str, Tensor]:
        """Its weights under our names and in our shapes."""
        attention = {f"blocks.0.attn.{name}": getattr(self, name).transpose(1, 2) for name in ("W_K", "W_Q", "W_V")}
        found = {
            "embed.W_E": self.W_E.T,
            "pos_embed.W_pos": self.W_pos,
            **attention,
            "blocks.0.attn.W_O": self.W_O.T.reshape(HEADS, D_HEAD, D),
            "blocks.0.mlp.W_in": self.W_in.T,
            "blocks.0.mlp.b_in": self.b_in,
            "blocks.0.mlp.W_out": self.W_out.T,
            "blocks.0.mlp.b_out": self.b_out,
            "unembed.W_U": self.W_U,
        }
        return {name: weight.detach().clone() for name, weight in found.items()}


@pytest.fixture
def pairs() -> tuple[Tensor, Tensor]:
    a, b = torch.cartesian_prod(torch.arange(P), torch.arange(P)).unbind(1)
    return torch.stack([a, b, torch.full_like(a, P)], 1), (a + b) % P


def test_the_seed_gives_the_same_weights():
    theirs, ours = Reference(3).ours(), init_weights(ARCH, Generator().manual_seed(3), dtype=torch.float64)
    assert list(theirs) == list(ours)
    for name, weight in ours.items():  # drawn and divided in float32 there, here
        assert torch.equal(weight, theirs[name]), name


def test_the_logits_agree_at_every_position(pairs):
    reference = Reference(0)
    for name in ("b_in", "b_out"):
        torch.nn.init.normal_(getattr(reference, name), generator=Generator().manual_seed(1))
    model = Transformer(ARCH, reference.ours())
    torch.testing.assert_close(model.run(pairs[0]).logits, reference(pairs[0]).detach(), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("plan", ["plain", "fast"])
def test_thirty_steps_of_training_agree(plan, pairs):
    """The published loop: full batch, float64 log-softmax, AdamW on everything, ten steps of warm-up."""
    tokens, labels = pairs
    reference, losses = Reference(0), []
    start = Layout(ARCH.weight_shapes()).pack([reference.ours()])
    optimiser = torch.optim.AdamW(reference.parameters(), lr=1e-3, weight_decay=1.0, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(step / 10, 1))
    for _ in range(30):
        log_shares = torch.log_softmax(reference(tokens)[:, -1], -1)
        loss = -log_shares.gather(1, labels[:, None]).mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    data = tokens[None], labels[None]
    objective = PlainObjective(ARCH, *data) if plan == "plain" else LastPosition(ARCH, *data, dtype=torch.float64)
    steps = list(train(fresh_state(start), objective, AdamW(lr=1e-3, weight_decay=1.0), steps=30))
    assert [loss.item() for _, loss in steps] == pytest.approx(losses, rel=1e-10)
    final = Layout(ARCH.weight_shapes()).member(steps[-1][0].weights, 0)
    for name, weight in reference.ours().items():
        torch.testing.assert_close(final[name], weight, rtol=1e-8, atol=1e-10)
    assert losses[-1] < losses[0] - 0.1
