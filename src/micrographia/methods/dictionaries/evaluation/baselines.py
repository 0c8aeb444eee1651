"""Replacements beside a dictionary's: the best linear map at the same L0, and random directions at the same L0.

A dictionary that beats neither has found no structure. The random one keeps, of as many random directions, those that
fit the token best, as top-k does, and one gain that fits its output by least squares on a sample.
Axes: token d latent.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.dictionaries.dictionary import Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.methods.dictionaries.evaluation.reading import outputs_of


def random_dictionary(
    dictionary: Dictionary,
    k: int,
    mean_in: Float[Tensor, "d_in"],
    mean_out: Float[Tensor, "d_out"],
    sample: tuple[Tensor, Tensor],
    generator: Generator,
) -> Dictionary:
    """As many latents, k of which fire at a token, with random unit directions; of a transcoder two sets of them.

    `sample`: inputs and targets (token, d), on which the gain is fitted.
    """
    n, like = dictionary.n_latents, dictionary.weights.W_dec
    encoder = _unit(n, dictionary.d_in, generator).to(like)
    same = dictionary.d_in == dictionary.d_out and dictionary.about.target is None
    decoder = encoder if same else _unit(n, dictionary.d_out, generator).to(like)
    weights = DictionaryWeights(
        W_enc=encoder.T.contiguous(),
        W_dec=decoder,
        b_enc=-(mean_in.to(like) @ encoder.T),
        b_dec=mean_out.to(like),
    )
    form = Form(activation="topk", k=max(1, min(k, n)), subtract_b_dec=False)
    x, y = (each.flatten(1) for each in sample)
    made = outputs_of(Dictionary(weights, form), x).double() - mean_out.to(x).double()
    wanted = y.double() - mean_out.to(y).double()
    power = float(made.square().sum())
    gain = float((made * wanted.to(made)).sum()) / power if power else 0.0
    return Dictionary(
        DictionaryWeights(W_enc=weights.W_enc, W_dec=gain * decoder, b_enc=weights.b_enc, b_dec=weights.b_dec), form
    )


def _unit(n: int, d: int, generator: Generator) -> Float[Tensor, "n d"]:
    drawn = torch.randn(n, d, generator=generator)
    return drawn / drawn.norm(dim=1, keepdim=True)
