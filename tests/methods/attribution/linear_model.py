"""A network without a bend: attention patterns are constants and neurons the identity, so that estimates are exact."""

import torch
from torch import Tensor

from micrographia.core.model import ModelShape, Output, Readout, run_tapped
from micrographia.core.sites import Site
from micrographia.core.tokens import ids_of

N_LAYERS, N_HEADS, D_MODEL, D_HEAD, D_MLP, VOCAB, N_POS = 2, 2, 6, 3, 5, 8, 4
KINDS = ("resid_pre", "v", "z", "attn_out", "resid_mid", "neurons", "mlp_out", "resid_post")


class LinearModel:
    """Meets the Model protocol as far as attribution needs it."""

    tokenizer = None
    weights = None
    fused = property(lambda self: self)
    shape = ModelShape(
        n_layers=N_LAYERS,
        d_model=D_MODEL,
        n_heads=N_HEADS,
        n_kv_heads=N_HEADS,
        d_head=D_HEAD,
        d_mlp=D_MLP,
        d_vocab=VOCAB,
        d_vocab_out=VOCAB,
        n_ctx=N_POS,
    )
    sites = (Site("embed"), *(Site(kind, layer) for layer in range(N_LAYERS) for kind in KINDS), Site("logits"))

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.embed, self.W_U = draw(VOCAB, D_MODEL), draw(D_MODEL, VOCAB)
        self.pattern = draw(N_LAYERS, N_HEADS, N_POS, N_POS).tril().softmax(-1).tril()
        self.v, self.o = draw(N_LAYERS, N_HEADS, D_MODEL, D_HEAD), draw(N_LAYERS, N_HEADS, D_HEAD, D_MODEL)
        self.into, self.out = draw(N_LAYERS, D_MODEL, D_MLP), draw(N_LAYERS, D_MLP, D_MODEL)

    def run(self, inputs, *, keep=(), edits=(), logits="all", grad=False, start=None, stop=None) -> Output:
        with torch.set_grad_enabled(grad):
            return run_tapped(
                self.sites, lambda tap: self._forward(tap, inputs, logits, start, stop), keep, edits, grad=grad
            )

    def unembed(self, residual: Tensor) -> Tensor:
        return residual @ self.W_U

    def _forward(self, tap, inputs, logits, start, stop):
        x = tap("embed", None, self.embed[ids_of(inputs)]) if start is None else start.residual
        for i in range(start.layer if start else 0, N_LAYERS if stop is None else stop):
            x = tap("resid_pre", i, x)
            v = tap("v", i, torch.einsum("bpd,hde->bphe", x, self.v[i]))
            z = tap("z", i, torch.einsum("hqk,bkhe->bqhe", self.pattern[i], v))
            x = tap("resid_mid", i, x + tap("attn_out", i, torch.einsum("bphe,hed->bpd", z, self.o[i])))
            x = x + tap("mlp_out", i, tap("neurons", i, x @ self.into[i]) @ self.out[i])
            x = tap("resid_post", i, x)
        if stop is not None:
            return None
        assert isinstance(logits, Readout)
        return torch.einsum("bd,dbn->bn", x[:, logits.pos], self.W_U[:, logits.tokens])[:, None]
