"""The fast training plan: one block without norms, read at its last position, with a constant last token.

Such a model has one query; keys and values are functions of (token, position), so both are tables of a few hundred rows
instead of products over every row; and W_O W_in, W_out W_U, W_O W_U are merged once per step. A training step of the
grokking mainline then costs 3.2 GFLOP instead of 14.6. Gradients of the heavy part are written by hand into buffers
made once; the small part (tables and merged matrices) is left to autograd.
It agrees with the plain forward to 1e-10 in float64 and 1e-4 in float32 (loss and gradients); bits differ.
Suffixes: E member, N row, J operand position, V vocab, H head, A d_head, Z = H*A, D d_model, M neuron, C output.
"""

import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.errors import BadConfig, BadShape
from micrographia.core.gradients import with_gradients
from micrographia.core.losses import stable_cross_entropy
from micrographia.core.small.architecture import Architecture
from micrographia.core.training import Flat, Layout, LossAndGradient


def supports(arch: Architecture) -> bool:
    """Whether this plan computes what the plain forward of `arch` computes."""
    return (
        arch.n_layers == 1
        and arch.attention
        and arch.mlp
        and arch.norm == "none"
        and not arch.unembed_bias
        and arch.act in ("relu", "gelu")
        and arch.positions == "learned"
    )


class Merged(NamedTuple):
    """Tables and merged matrices, small functions of the weights. J counts the operands; `last` is the final token."""

    scores_EJVH: Tensor
    values_EJVZ: Tensor
    score_last_EH: Tensor
    value_last_EZ: Tensor
    W_ZM: Tensor  # W_O W_in, with member axis first, as all below
    c_M: Tensor
    W_MZC: Tensor  # W_out W_U above W_O W_U: [neurons, z] -> logits
    c_C: Tensor


def merge(arch: Architecture, weights: dict[str, Tensor], last: int) -> Merged:
    """Tables and merged matrices of every member. Differentiable; about 0.1 GFLOP per member at the mainline's size."""
    w = {name.rpartition(".")[2]: value for name, value in weights.items()}
    members = len(w["W_E"])
    x_EJVD = w["W_E"][:, None] + w["W_pos"][:, :-1, None]
    x_ED = w["W_E"][:, last] + w["W_pos"][:, -1]
    q_EHA = torch.einsum("ed,ehda->eha", x_ED, w["W_Q"]) / arch.d_head**0.5
    if arch.attn_bias:
        q_EHA = q_EHA + w["b_Q"] / arch.d_head**0.5
    reader_EDH = torch.einsum("ehda,eha->edh", w["W_K"], q_EHA)
    W_DZ = w["W_V"].transpose(1, 2).flatten(2)
    scores, score_last = x_EJVD @ reader_EDH[:, None], (x_ED[:, None] @ reader_EDH)[:, 0]
    values, value_last = x_EJVD @ W_DZ[:, None], (x_ED[:, None] @ W_DZ)[:, 0]
    rest_E1D = x_ED[:, None]
    if arch.attn_bias:
        shift = (w["b_K"] * q_EHA).sum(-1)
        scores, score_last = scores + shift[:, None, None], score_last + shift
        values, value_last = values + w["b_V"].flatten(1)[:, None, None], value_last + w["b_V"].flatten(1)
        rest_E1D = rest_E1D + w["b_O"][:, None]
    W_ZD = w["W_O"].flatten(1, 2)
    W_DC = w["W_E"][:, : arch.d_vocab_out].transpose(1, 2) if arch.tied else w["W_U"]
    c_M, out_E1D = rest_E1D @ w["W_in"], rest_E1D
    if arch.mlp_bias:
        c_M, out_E1D = c_M + w["b_in"][:, None], out_E1D + w["b_out"][:, None]
    W_MZC = torch.cat([w["W_out"], W_ZD], 1) @ W_DC
    assert W_MZC.shape[0] == members
    return Merged(scores, values, score_last, value_last, W_ZD @ w["W_in"], c_M, W_MZC, out_E1D @ W_DC)


class LastPosition:
    """Mean cross-entropy at the last position of a fixed set of rows, and its gradient, for every member.

    `tokens` (member or 1, batch, pos), `labels` (member or 1, batch), a leading 1 sharing the data. Holds about
    3 * batch * (neurons + d_model) numbers a member (47 MB for the mainline's train rows in float32).
    Raises BadConfig for an architecture or last token that the plan does not cover, BadShape for data that do not fit.
    """

    def __init__(
        self,
        arch: Architecture,
        tokens: Int[Tensor, "data batch pos"],
        labels: Int[Tensor, "data batch"],
        *,
        members: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        last = tokens[..., -1].unique()
        if not supports(arch) or len(last) != 1:
            raise BadConfig(
                "The fast plan needs one block with attention and MLP, learned positions, ReLU or GELU, no norm, no "
                f"unembedding bias and one last token. Found {arch} and last tokens {last.tolist()[:5]}. "
                "Use the plain plan."
            )
        _check_data(arch, tokens, labels, members)
        self.arch, self.layout, self.last = arch, Layout(arch.weight_shapes()), int(last)
        device = tokens.device
        E, N, J = members, tokens.shape[1], tokens.shape[2] - 1
        M, Z, C, V = arch.d_mlp, arch.n_heads * arch.d_head, arch.d_vocab_out, arch.d_vocab
        self.labels = labels.expand(E, N)
        rows_EJN = tokens[..., :-1].transpose(1, 2).expand(E, J, N)
        offset = torch.arange(E * J, device=device).reshape(E, J, 1) * V
        self.index = (rows_EJN + offset).flatten()  # into the tables, viewed as (E*J*V, ...)
        self.collect = _one_hot_csr(self.index, E * J * V, dtype)  # its transpose: sums rows into the tables
        self.hidden = torch.empty(E, N, M + Z, dtype=dtype, device=device)  # [neurons, z]
        self.d_hidden = torch.empty_like(self.hidden)
        self.pre = torch.empty(E, N, M, dtype=dtype, device=device)
        self.logits = torch.empty(E, N, C, dtype=dtype, device=device)
        self.sizes = (E, N, J, arch.n_heads, arch.d_head, M)

    @with_gradients
    def __call__(self, weights: Flat, step: int = 0) -> LossAndGradient:
        leaves = {name: view.detach().requires_grad_() for name, view in self.layout.views(weights).items()}
        merged = merge(self.arch, leaves, self.last)
        with torch.no_grad():
            pattern, values = self._forward(Merged(*(part.detach() for part in merged)))
            loss, d_logits = stable_cross_entropy(self.logits, self.labels, out=self.logits)
            d_logits.div_(loss.shape[1])
            d_merged = self._backward(merged, pattern, values, d_logits)
        found = torch.autograd.grad(merged, list(leaves.values()), grad_outputs=d_merged)
        return LossAndGradient(loss.double().mean(1), self.layout.join(dict(zip(leaves, found))))

    @torch.no_grad()
    def logits_of(self, weights: Flat) -> Float[Tensor, "member batch vocab"]:
        """Logits of every row; overwritten by the next call."""
        self._forward(merge(self.arch, self.layout.views(weights), self.last))
        return self.logits

    @torch.no_grad()
    def evaluate(self, weights: Flat) -> tuple[Float[Tensor, "member"], list[float]]:
        """Loss and accuracy of every member; one forward."""
        logits = self.logits_of(weights)
        right = (logits.argmax(-1) == self.labels).double().mean(1)
        return stable_cross_entropy(logits, self.labels, out=logits).loss.double().mean(1), right.tolist()

    def _forward(self, m: Merged) -> tuple[Tensor, Tensor]:
        """Fill `logits`; return the attention pattern (E, J+1, N, H) and gathered values (E, J, N, H, A)."""
        E, N, J, H, A, M = self.sizes
        scores = m.scores_EJVH.reshape(-1, H).index_select(0, self.index).view(E, J, N, H)
        last = m.score_last_EH[:, None, None].expand(E, 1, N, H)
        pattern = torch.cat([scores, last], 1).softmax(1)
        values = m.values_EJVZ.reshape(-1, H * A).index_select(0, self.index).view(E, J, N, H, A)
        z = self.hidden[..., M:].unflatten(2, (H, A))
        torch.mul(pattern[:, -1, ..., None], m.value_last_EZ.view(E, 1, H, A), out=z)
        for j in range(J):
            z.addcmul_(pattern[:, j, ..., None], values[:, j])
        torch.baddbmm(m.c_M, self.hidden[..., M:], m.W_ZM, out=self.pre)
        if self.arch.act == "relu":
            torch.clamp(self.pre, min=0, out=self.hidden[..., :M])
        else:
            self.hidden[..., :M] = torch.nn.functional.gelu(self.pre)
        torch.baddbmm(m.c_C, self.hidden, m.W_MZC, out=self.logits)
        return pattern, values

    def _backward(self, m: Merged, pattern: Tensor, values: Tensor, d_logits: Tensor) -> Merged:
        """The gradient with respect to each part of `Merged`, by the chain rule through `_forward`."""
        E, N, J, H, A, M = self.sizes
        d_W_MZC = self.hidden.transpose(1, 2) @ d_logits
        torch.bmm(d_logits, m.W_MZC.detach().transpose(1, 2), out=self.d_hidden)
        d_pre = self._through_activation(self.d_hidden[..., :M])
        d_W_ZM = self.hidden[..., M:].transpose(1, 2) @ d_pre
        d_z = torch.baddbmm(self.d_hidden[..., M:], d_pre, m.W_ZM.detach().transpose(1, 2)).view(E, N, H, A)
        d_pattern = torch.empty_like(pattern)
        last = m.value_last_EZ.detach().view(E, 1, H, A)
        d_pattern[:, -1] = (d_z * last).sum(-1)
        d_tables = torch.empty(E, J, N, H * A + H, dtype=d_z.dtype, device=d_z.device)
        for j in range(J):
            d_pattern[:, j] = (d_z * values[:, j]).sum(-1)
            torch.mul(d_z, pattern[:, j, ..., None], out=d_tables[:, j, :, : H * A].unflatten(2, (H, A)))
        d_scores = pattern * (d_pattern - (pattern * d_pattern).sum(1, keepdim=True))
        d_tables[..., H * A :] = d_scores[:, :-1]
        summed = (self.collect @ d_tables.flatten(0, 2)).view(E, J, -1, H * A + H)
        return Merged(
            scores_EJVH=summed[..., H * A :],
            values_EJVZ=summed[..., : H * A],
            score_last_EH=d_scores[:, -1].sum(1),
            value_last_EZ=(d_z * pattern[:, -1, ..., None]).sum(1).flatten(1),
            W_ZM=d_W_ZM,
            c_M=d_pre.sum(1, keepdim=True),
            W_MZC=d_W_MZC,
            c_C=d_logits.sum(1, keepdim=True),
        )

    def _through_activation(self, d_neurons: Tensor) -> Tensor:
        if self.arch.act == "relu":
            backward, seen = torch.ops.aten.threshold_backward.grad_input, self.hidden[..., : self.arch.d_mlp]
            return backward(d_neurons, seen, 0, grad_input=self.pre)
        return torch.ops.aten.gelu_backward(d_neurons, self.pre)


def _check_data(arch: Architecture, tokens: Tensor, labels: Tensor, members: int) -> None:
    """Check shapes and ranges: an index out of range would silently read another member's row of the flat tables."""
    data, _, pos = tokens.shape
    if tokens.shape[:2] != labels.shape or data not in (1, members) or pos != arch.n_ctx:
        raise BadShape(
            f"The fast plan needs tokens (1 or {members}, batch, {arch.n_ctx}) and labels (1 or {members}, batch). "
            f"Found {tuple(tokens.shape)} and {tuple(labels.shape)}."
        )
    for what, ids, size in (("Tokens", tokens, arch.d_vocab), ("Labels", labels, arch.d_vocab_out)):
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < size:
            raise BadShape(f"{what} must lie in 0..{size - 1}. Found {int(ids.min())}..{int(ids.max())}.")


def _one_hot_csr(index: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """(size, len(index)) with a one at (index[n], n): a product with it sums rows of one index, in a fixed order."""
    order = index.argsort(stable=True)
    starts = torch.zeros(size + 1, dtype=torch.int32, device=index.device)
    starts[1:] = index.bincount(minlength=size).cumsum(0)
    ones = torch.ones(len(index), dtype=dtype, device=index.device)
    with warnings.catch_warnings():
        # torch 2.11 warns of unchecked invariants even when told not to check them; they hold by construction.
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support is in beta|invariant checks)")
        return torch.sparse_csr_tensor(starts, order.int(), ones, (size, len(index)), check_invariants=False)
