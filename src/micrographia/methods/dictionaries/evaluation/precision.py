"""A dictionary in fewer bits: bfloat16 arithmetic, or weights in int8, for what each costs beside float32.

int8 is symmetric rounding of each latent's encoder column and decoder row to 255 levels of its largest entry (Dettmers
et al., 2208.07339, "Vector-wise quantization"); biases, thresholds and arithmetic stay. Lieberum et al. (2408.05147,
"Gemma Scope") found bfloat16 to cost next to nothing.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import BadConfig
from micrographia.methods.dictionaries.evaluation.reading import outputs_of
from micrographia.methods.dictionaries.evaluation.spliced import Replacement

PRECISIONS = ("float32", "bfloat16", "int8")
LEVELS = 127


def in_precision(dictionary: Dictionary, precision: str) -> Replacement:
    """What this dictionary writes in place of an activation, computed in one of `PRECISIONS`. Raises BadConfig."""
    if precision not in PRECISIONS:
        raise BadConfig(f"Asked for the precision {precision!r}. There are {', '.join(PRECISIONS)}.")
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    own = (int8_weights(dictionary) if precision == "int8" else dictionary).to(dtype=dtype)

    def written(x: Tensor, y: Tensor) -> Tensor:
        given = x.to(dtype)
        return outputs_of(own, given.unflatten(1, own.form.axes) if own.form.axes else given).to(y)

    return written


def int8_weights(dictionary: Dictionary) -> Dictionary:
    """The dictionary with encoder and decoder rounded, in their own dtype."""
    w = dictionary.weights
    rounded = replace(w, W_enc=_rounded(w.W_enc.T).T.contiguous(), W_dec=_rounded(w.W_dec))
    return replace(dictionary, weights=rounded)


def _rounded(rows: Float[Tensor, "latent d"]) -> Float[Tensor, "latent d"]:
    step = (rows.abs().amax(1, keepdim=True) / LEVELS).clamp_min(torch.finfo(rows.dtype).tiny)
    return (rows / step).round() * step
