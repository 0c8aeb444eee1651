"""Folds: another dictionary with the same reconstruction, in the form that a format or a trainer asks for.

All are exact up to rounding. p = h @ W_enc + b_enc are the pre-activations; a gated dictionary has two biases.
"""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, where

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import CannotCarry


def subtracting(of: Dictionary, wanted: bool) -> Dictionary:
    """The same latents with b_dec subtracted from the input, or not: b_enc' = b_enc +- b_dec @ W_enc."""
    if of.form.subtract_b_dec == wanted:
        return of
    if wanted and of.d_in != of.d_out:
        raise CannotCarry(
            f"b_dec of {of.d_out} entries cannot be subtracted from an input of {of.d_in}: this is a transcoder."
        )
    shift = of.weights.b_dec @ of.weights.W_enc
    return replace(_shifted(of, shift if wanted else -shift), form=replace(of.form, subtract_b_dec=wanted))


def in_decoder_units(of: Dictionary) -> Dictionary:
    """The same latents without `decoder_norms`: the norms go into the encoder, decoder rows get norm 1."""
    if not of.form.decoder_norms:
        return of
    return replace(scaled_latents(of, of.weights.W_dec.norm(dim=-1)), form=replace(of.form, decoder_norms=False))


def scaled_latents(of: Dictionary, scale: Float[Tensor, "latent"]) -> Dictionary:
    """Latents that are `scale` times as large, decoder rows as much smaller. Thresholds are moved along.

    Of an activation that ranks latents (topk ...), the reconstruction stays the same only for one scale of all.
    A row of zeros stays, its scale 0 read as 1 for the decoder.
    """
    w = of.weights
    named = {name: value * scale for name, value in w.named().items() if name in ("W_enc", "b_enc", "b_gate", "b_mag")}
    if w.threshold is not None and not of.form.decoder_norms:
        named["threshold"] = w.threshold * scale
    divisor = where(scale == 0, 1.0, scale)
    return replace(of, weights=replace(w, W_dec=w.W_dec / divisor[:, None], **named))


def scaled_input(of: Dictionary, scale: float, out: float | None = None) -> Dictionary:
    """The dictionary of raw activations x, of one that reads scale * x and writes `out` times the output.

    Latents stay as they are (SAELens folds so at the end of training). `out` None: the same scale.
    """
    of, w_out = in_decoder_units(of), scale if out is None else out
    w = of.weights
    if of.form.subtract_b_dec and w_out != scale:
        of = subtracting(of, False)
        w = of.weights
    skip = None if w.W_skip is None else w.W_skip * (scale / w_out)
    return replace(
        of, weights=replace(w, W_enc=w.W_enc * scale, W_dec=w.W_dec / w_out, b_dec=w.b_dec / w_out, W_skip=skip)
    )


def whitened_input(
    of: Dictionary, mean: Float[Tensor, "d"], matrix: Float[Tensor, "d d"], inverse: Float[Tensor, "d d"]
) -> Dictionary:
    """The dictionary of raw x, of one that reads (x - mean) @ matrix and whose output z means z @ inverse + mean."""
    of = in_decoder_units(of)
    w = of.weights
    mean, matrix, inverse = (each.to(w.W_enc) for each in (mean, matrix, inverse))
    W_enc = matrix @ w.W_enc
    folded = replace(of, weights=replace(w, W_enc=W_enc, W_dec=w.W_dec @ inverse, b_dec=w.b_dec @ inverse + mean))
    return folded if of.form.subtract_b_dec else _shifted(folded, -(mean @ W_enc))


def _shifted(of: Dictionary, shift: Float[Tensor, "latent"]) -> Dictionary:
    """`shift` added to every pre-activation."""
    w = of.weights
    if w.b_enc is not None:
        return replace(of, weights=replace(w, b_enc=w.b_enc + shift))
    assert w.b_gate is not None
    assert w.b_mag is not None
    assert w.r_mag is not None
    return replace(of, weights=replace(w, b_gate=w.b_gate + shift, b_mag=w.b_mag + shift * w.r_mag.exp()))
