"""A model whose stream at layer 0 holds each token on an axis of its own, and bundles of dictionaries that read it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from micrographia.core.dictionaries.dictionary import About, Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.methods.dictionaries.evaluation.reading import Counted
from micrographia.methods.dictionaries.features.build import build_bundle
from micrographia.methods.dictionaries.features.bundle import Bundle
from micrographia.methods.dictionaries.features.passages import PassageChoice

HOSTILE = "<script>alert('latent')</script>"
BROKEN = "half \ud800"
WORDS = ("the", " the", "then", HOSTILE, BROKEN, "five", "six", "seven", "eight", "nine", "ten", "x" * 5000)
V, D, CONTEXT = len(WORDS), 16, 10
ALL = Counted(skip_first=1)
SITE = Site("embed")
CHOICE = PassageChoice(top=4, quantiles=3, per_quantile=2, before=3, after=2)


class Words:
    """A tokenizer that anybody may have made."""

    bos, pad = None, None

    def encode(self, text: str) -> list[int]:
        return [WORDS.index(text)]

    def decode(self, ids: list[int]) -> str:
        return "".join(WORDS[i] for i in ids)


def reader() -> Transformer:
    arch = Architecture(d_vocab=V, d_vocab_out=V, n_ctx=CONTEXT, n_layers=1, d_model=D, n_heads=2, d_head=4, d_mlp=8)
    weights = init_weights(arch, generator(0))
    weights["embed.W_E"] = torch.eye(V, D)
    weights["pos_embed.W_pos"] = torch.zeros(CONTEXT, D)
    return Transformer(arch, weights, tokenizer=Words())


def tokens(n: int = 60, seed: int = 1) -> Tensor:
    return torch.randint(0, V, (n, CONTEXT), generator=generator(seed))


def mixed(n: int = 9, *, dead: int = 1) -> Dictionary:
    """Latents of several tokens each, in sizes that all differ; the last `dead` never fire."""
    W = torch.randn(D, n, generator=generator(3))
    b = torch.zeros(n)
    b[n - dead :] = -100.0
    weights = DictionaryWeights(W_enc=W, W_dec=W.T.contiguous() + 0.1, b_enc=b - 0.5, b_dec=torch.zeros(D))
    return Dictionary(weights, Form(activation="relu", subtract_b_dec=False), About(model="reader"))


def built(folder: Path, dictionary: Dictionary | None = None, ids: Tensor | None = None, **choices: Any) -> Bundle:
    given: dict[str, Any] = {"generator": generator(5), "counted": ALL, "choice": CHOICE, "labels": False} | choices
    return build_bundle(mixed() if dictionary is None else dictionary, reader(), ids_or(ids), SITE, folder, **given)


def ids_or(ids: Tensor | None) -> Tensor:
    return tokens() if ids is None else ids


def dense(dictionary: Dictionary, ids: Tensor) -> Tensor:
    """All latents (row, pos, latent), 0 where a token does not count."""
    found = dictionary.encode(reader().run(ids, keep=[SITE]).cache[SITE])
    found[:, 0] = 0
    return found
