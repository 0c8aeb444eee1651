"""Architecture: the hyper-parameters of a small transformer; they determine the name and shape of every weight.

Names and shapes of the weights are TransformerLens'. The forward pass is in `transformer`, initialisation and views are
in `weights`.
"""

from dataclasses import dataclass
from typing import Literal

from micrographia.core.config import Blocks
from micrographia.core.errors import BadConfig
from micrographia.core.model import ModelShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture(Blocks):
    """A kind of small transformer, with the sizes that its task requires. Defaults: those of the grokking mainline."""

    d_vocab: int
    d_vocab_out: int
    n_ctx: int
    unembed_bias: bool = False
    joined: Literal["concatenated", "summed"] = "concatenated"
    """Without attention: embeddings are read side by side by the first MLP, or added into the residual stream."""
    causal: bool = True
    """False: every position attends to all, as in a model that fills in masked tokens."""

    def __post_init__(self) -> None:
        super(Architecture, self).__post_init__()
        if self.attention and self.joined != "concatenated":
            raise BadConfig(f"joined is for a model without attention. Found joined {self.joined!r} with attention.")
        if self.tied and self.d_vocab_out > self.d_vocab:
            raise BadConfig(f"Tied weights: {self.d_vocab_out} outputs need as many inputs. Found {self.d_vocab}.")

    @property
    def skips_first(self) -> bool:
        """The first MLP adds to the residual stream too: concatenated embeddings, of another width, end in it."""
        return self.attention or self.joined == "summed"

    @property
    def shape(self) -> ModelShape:
        return ModelShape(
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            n_kv_heads=self.n_heads,
            d_head=self.d_head,
            d_mlp=self.d_mlp,
            d_vocab=self.d_vocab,
            d_vocab_out=self.d_vocab_out,
            n_ctx=self.n_ctx,
            causal=self.causal,
        )

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every weight, in the order in which initialisation draws them."""
        V, D, H, E, M = self.d_vocab, self.d_model, self.n_heads, self.d_head, self.d_mlp
        shapes: dict[str, tuple[int, ...]] = {"embed.W_E": (V, D)}
        if self.attention and self.positions == "learned":
            shapes["pos_embed.W_pos"] = (self.n_ctx, D)
        for i in range(self.n_layers):
            block = f"blocks.{i}."
            if self.attention:
                shapes |= self._norm_shapes(block + "ln1")
                shapes |= {f"{block}attn.W_{x}": (H, D, E) for x in "KQV"} | {f"{block}attn.W_O": (H, E, D)}
                if self.attn_bias:
                    shapes |= {f"{block}attn.b_{x}": (H, E) for x in "KQV"} | {f"{block}attn.b_O": (D,)}
            if self.mlp:
                width = D if self.skips_first or i else (self.n_ctx - 1) * D
                shapes |= self._norm_shapes(block + "ln2", width) | {f"{block}mlp.W_in": (width, M)}
                shapes |= {f"{block}mlp.W_gate": (width, M)} if self.act == "swiglu" else {}
                shapes |= {f"{block}mlp.b_in": (M,)} if self.mlp_bias else {}
                shapes |= {f"{block}mlp.W_out": (M, D)}
                shapes |= {f"{block}mlp.b_out": (D,)} if self.mlp_bias else {}
        shapes |= self._norm_shapes("ln_final")
        shapes |= {} if self.tied else {"unembed.W_U": (D, self.d_vocab_out)}
        return shapes | ({"unembed.b_U": (self.d_vocab_out,)} if self.unembed_bias else {})

    def _norm_shapes(self, name: str, width: int | None = None) -> dict[str, tuple[int, ...]]:
        names = {"none": (), "layernorm": ("w", "b"), "rmsnorm": ("w",)}[self.norm]
        return {f"{name}.{x}": (width or self.d_model,) for x in names}
