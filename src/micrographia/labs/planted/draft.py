"""Transformers written by hand: named parts of the residual stream, and heads and neurons that read and write them.

Nothing is trained and no norm stands in the way, so each weight is one sentence of the mechanism: "this head looks from
here to there, reads the letter, writes it to `moved`". Parts of the stream are orthogonal, so nothing else interferes.
Letters stand in one-hot form in `token`, places in `place`; what is written to `answer` is the logit of that word.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.tokens import Vocabulary

LETTERS = ("A", "B", "C", "D", "E", "F")
ON = 3  # the first so many letters carry the feature `on`
FILLERS = ("x", "y", "z")
YES, NO = "yes", "no"
ANSWERS = (*LETTERS, YES, NO)
WORDS = (*ANSWERS, "<bos>", "?", *FILLERS)
VOCABULARY = Vocabulary(WORDS, bos=WORDS.index("<bos>"))

N = len(LETTERS)
N_CTX = N_HEADS = D_HEAD = 6
D_MLP = 3 * N
N_LAYERS = 4
"""One more than any circuit uses: GradDrop is blind to a path that leaves no other layer idle."""
COMMON = {"token": N, "on": 1, "place": N_CTX, "echo": N, "waste": N, "answer": len(ANSWERS)}
SHARP = 50.0
"""A score that leaves e^-50 = 2e-22 of the attention to all other positions: nothing, in float64."""


class Draft:
    """A transformer under construction: all weights zero but for embeddings, places and the read-out of `answer`.

    `parts` are streams beside the common ones, name -> width. Heads and neurons once used are `taken`.
    """

    def __init__(self, parts: Mapping[str, int] | None = None, *, dtype: torch.dtype = torch.float64) -> None:
        sizes = COMMON | dict(parts or {})
        self.arch = Architecture(
            d_vocab=len(WORDS), d_vocab_out=len(ANSWERS), n_ctx=N_CTX, n_layers=N_LAYERS, d_model=sum(sizes.values()),
            n_heads=N_HEADS, d_head=D_HEAD, d_mlp=D_MLP,
        )  # fmt: skip
        self.weights = {name: torch.zeros(shape, dtype=dtype) for name, shape in self.arch.weight_shapes().items()}
        ends = torch.tensor(list(sizes.values())).cumsum(0).tolist()
        self._begins = {name: end - size for (name, size), end in zip(sizes.items(), ends)}
        self._sizes = sizes
        self.taken: set[tuple[str, int, int]] = set()
        self.weights["embed.W_E"][:N, self.of("token")] = torch.eye(N, dtype=dtype)
        self.weights["embed.W_E"][:ON, self.of("on")] = 1.0
        self.weights["pos_embed.W_pos"][:, self.of("place")] = torch.eye(N_CTX, dtype=dtype)
        self.weights["unembed.W_U"][self.of("answer")] = torch.eye(len(ANSWERS), dtype=dtype)

    def of(self, stream: str) -> slice:
        """The dimensions of a part of the stream."""
        return slice(self._begins[stream], self._begins[stream] + self._sizes[stream])

    def at(self, stream: str, i: int = 0) -> int:
        """One dimension of it."""
        return self._begins[stream] + i

    def free(self, kind: str, layer: int) -> list[int]:
        """Heads ("head") or neurons ("neuron") of a layer that nothing uses yet."""
        n = N_HEADS if kind == "head" else D_MLP
        return [i for i in range(n) if (kind, layer, i) not in self.taken]

    def look(self, layer: int, head: int, places: Mapping[int, int]) -> None:
        """Let a head attend from query to key position; from everywhere else to <bos>, which has nothing to read."""
        for here in range(N_CTX):
            self.query(layer, head, self.at("place", here), places.get(here, 0), SHARP)
            self.key(layer, head, self.at("place", here), here)

    def query(self, layer: int, head: int, dim: int, feature: int, score: float) -> None:
        """A stream of 1 at `dim` asks for `feature`; a key that answers with 1 gains `score` before the softmax."""
        self._take("head", layer, head)
        self.weights[f"blocks.{layer}.attn.W_Q"][head, dim, feature] = score * D_HEAD**0.5

    def key(self, layer: int, head: int, dim: int, feature: int, size: float = 1.0) -> None:
        """A stream of 1 at `dim` answers with `size` to `feature`."""
        self._take("head", layer, head)
        self.weights[f"blocks.{layer}.attn.W_K"][head, dim, feature] = size

    def read(self, layer: int, head: int, stream: str) -> None:
        """What the head carries away from where it looks."""
        self._take("head", layer, head)
        width = self._sizes[stream]
        self.weights[f"blocks.{layer}.attn.W_V"][head, self.of(stream), :width] = torch.eye(width, dtype=self._dtype)

    def write(self, layer: int, head: int, stream: str, gain: float | Tensor = 1.0) -> None:
        """Where the head puts what it carries: unchanged times `gain`, or through a matrix (carried, stream)."""
        width = self._sizes[stream]
        matrix = gain if isinstance(gain, Tensor) else gain * torch.eye(width, dtype=self._dtype)
        self.weights[f"blocks.{layer}.attn.W_O"][head, : len(matrix), self.of(stream)] = matrix.to(self._dtype)

    def neuron(
        self, layer: int, unit: int, reads: Mapping[int, float], writes: Mapping[int, float], bias: float
    ) -> None:
        """A neuron: weights by dimension of the stream, in and out."""
        self._take("neuron", layer, unit)
        block = f"blocks.{layer}.mlp."
        for dim, weight in reads.items():
            self.weights[block + "W_in"][dim, unit] = weight
        for dim, weight in writes.items():
            self.weights[block + "W_out"][unit, dim] = weight
        self.weights[block + "b_in"][unit] = bias

    def model(self) -> Transformer:
        return Transformer(self.arch, self.weights, VOCABULARY)

    @property
    def _dtype(self) -> torch.dtype:
        return self.weights["embed.W_E"].dtype

    def _take(self, kind: str, layer: int, index: int) -> None:
        self.taken.add((kind, layer, index))
