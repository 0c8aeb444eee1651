"""Encoding and reconstructing through the active latents: for wide dictionaries and many rows.

`encode` of a Dictionary gives dense latents, rows x latents; here memory is that of the active ones, and of one block.
Axes: row d_in d_out latent; entry, an active latent of a row.
"""

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.methods.dictionaries.sparse.active import Active, decode, ragged
from micrographia.methods.dictionaries.sparse.select import Entries, above, joined, top_of_rows

BLOCK = 1 << 21
"""Pre-activations computed at a time."""


def encode_sparse(dictionary: Dictionary, x: Float[Tensor, "..."]) -> Active:
    """(row, d_in) -> the latents that are not zero: values, latents, and the offsets of rows.

    The entries of `dictionary.encode(x)`, in ascending rows and in no order within one; of ties at the k-th place any.
    Leading axes of x count as rows. Costs 2 d_in latents FLOPs a row; memory: the entries, and a block of 2^21
    pre-activations. Raises BadShape for another d_in.
    """
    find = FINDERS.get(dictionary.form.activation, _not_zero)
    rows = x.reshape(-1, *x.shape[-(len(dictionary.form.axes) or 1) :])
    parts = rows.split(max(1, BLOCK // dictionary.n_latents))
    found = [find(dictionary, part) for part in parts]
    return ragged(*joined(found, [len(part) for part in parts]), n_rows=len(rows))


def reconstruct_sparse(dictionary: Dictionary, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """`dictionary.reconstruct(x)`, decoded through the active latents: 2 d_in latents + 2 d_out active FLOPs a row.

    Raises BadShape for another d_in, and for a dictionary in neither float32 nor float64.
    """
    active = encode_sparse(dictionary, x)
    W_dec = dictionary.weights.W_dec
    if dictionary.form.decoder_norms:
        active = active._replace(values=active.values / W_dec.norm(dim=-1)[active.latents])
    leading = x.shape[: x.ndim - (len(dictionary.form.axes) or 1)]
    return dictionary.finished(decode(active, W_dec).unflatten(0, leading) if leading else decode(active, W_dec)[0], x)


def _relu(dictionary: Dictionary, x: Tensor) -> Entries:
    return above(dictionary.pre_activations(x), 0.0)


def _topk(dictionary: Dictionary, x: Tensor) -> Entries:
    assert dictionary.form.k is not None
    return top_of_rows(dictionary.pre_activations(x), dictionary.form.k)


def _jumprelu(dictionary: Dictionary, x: Tensor) -> Entries:
    found = _jump(dictionary, x)
    return found.where(found.values > 0)


def _jump(dictionary: Dictionary, x: Tensor) -> Entries:
    p, threshold = dictionary.pre_activations(x), dictionary.weights.threshold
    assert threshold is not None
    found = above(p - threshold, 0.0)
    return found._replace(values=p[found.rows, found.latents])


def _not_zero(dictionary: Dictionary, x: Tensor) -> Entries:
    """The other activations: dense in a block."""
    latents = dictionary.encode(x)
    rows, at = latents.nonzero(as_tuple=True)
    return Entries(rows, at, latents[rows, at])


FINDERS: Mapping[str, Callable[[Dictionary, Tensor], Entries]] = {
    "relu": _relu,
    "topk": _topk,
    "jumprelu": _jumprelu,
    "jump": _jump,
}
