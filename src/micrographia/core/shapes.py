"""The words for axes and the shape annotations that use them.

Axes are always named the same: batch pos head query key d_model d_head neuron latent vocab. In dense algebra a file
uses suffix letters with a legend at its top. Annotations are executed in the tests (jaxtyping with beartype).
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from micrographia.core.errors import BadShape

Tokens = Int[Tensor, "batch pos"]
Logits = Float[Tensor, "batch pos vocab"]
Mask = Bool[Tensor, "*shape"]


def expect_shape(what: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise BadShape unless `tensor` has exactly this shape; -1 stands for any length."""
    found = tuple(tensor.shape)
    if len(found) != len(shape) or any(want not in (-1, have) for want, have in zip(shape, found)):
        raise BadShape(f"{what} should have shape {shape} (-1: any length). Found {found}.")
