"""The obvious implementation of the grokking network: every position, einsum by einsum, torch's own AdamW.

It is what one writes down from the paper's description, and the measure of what the fast plan saves. With
`test_each_epoch` it is the loop of the paper: train and test loss every epoch, both with a graph, one backward pass.
Suffixes: B batch, P pos, Q query, K key, H head, E d_head, D d_model, M neuron, V vocab.
"""

import torch
from torch import Tensor, nn


class Obvious(nn.Module):
    """One block without norms, all positions."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        for name, weight in weights.items():
            self.register_parameter(name.rpartition(".")[2], nn.Parameter(weight.clone()))
        n_ctx = len(self.W_pos)
        self.register_buffer("ahead", torch.ones(n_ctx, n_ctx, dtype=torch.bool).triu(1))

    def forward(self, tokens_BP: Tensor) -> Tensor:
        x_BPD = self.W_E[tokens_BP] + self.W_pos
        q_BPHE = torch.einsum("bpd,hde->bphe", x_BPD, self.W_Q)
        k_BPHE = torch.einsum("bpd,hde->bphe", x_BPD, self.W_K)
        v_BPHE = torch.einsum("bpd,hde->bphe", x_BPD, self.W_V)
        scores_BHQK = torch.einsum("bqhe,bkhe->bhqk", q_BPHE, k_BPHE) / q_BPHE.shape[-1] ** 0.5
        pattern_BHQK = scores_BHQK.masked_fill(self.ahead, -1e10).softmax(-1)
        z_BPHE = torch.einsum("bhqk,bkhe->bqhe", pattern_BHQK, v_BPHE)
        x_BPD = x_BPD + torch.einsum("bphe,hed->bpd", z_BPHE, self.W_O)
        neurons_BPM = torch.relu(torch.einsum("bpd,dm->bpm", x_BPD, self.W_in) + self.b_in)
        x_BPD = x_BPD + torch.einsum("bpm,md->bpd", neurons_BPM, self.W_out) + self.b_out
        return torch.einsum("bpd,dv->bpv", x_BPD, self.W_U)


def loss_of(logits_BPV: Tensor, labels_B: Tensor) -> Tensor:
    """Mean cross-entropy at the last position, from a float64 log-softmax."""
    logprobs = logits_BPV[:, -1].double().log_softmax(-1)
    return -logprobs.gather(-1, labels_B[:, None]).mean()


class ObviousLoop:
    """Full-batch training as the paper describes it. `run(n)` takes n epochs."""

    def __init__(
        self,
        model: nn.Module,
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        *,
        lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        warmup: int,
        test_each_epoch: bool = False,
    ) -> None:
        self.model, self.train, self.test = model, train, test
        self.test_each_epoch = test_each_epoch
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, betas=betas)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, lambda step: min(step / warmup, 1))
        self.losses: list[float] = []

    def run(self, epochs: int) -> None:
        for _ in range(epochs):
            loss = loss_of(self.model(self.train[0]), self.train[1])
            if self.test_each_epoch:
                loss_of(self.model(self.test[0]), self.test[1]).item()
            loss.backward()
            self.losses.append(loss.item())
            self.optimiser.step()
            self.schedule.step()
            self.optimiser.zero_grad()
