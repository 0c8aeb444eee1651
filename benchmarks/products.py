"""The matrix products that one training step cannot avoid, and how fast this machine does them in those very shapes.

The fast plan's step has six products over the rows, two forward and four backward (3.18 GFLOP for the mainline's 3,830
rows). Timed alone, in the layouts in which the step meets them, they are its floor: what elementwise work, gathers and
the optimiser add is the rest. Legend: N rows, Z = heads * d_head, M neurons, C outputs.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from micrographia.core.small.transformer import Architecture


class Products:
    """`run(n)` does the products of n steps; `flops` is the work of one."""

    def __init__(self, arch: Architecture, rows: int) -> None:
        N, Z, M, C = rows, arch.n_heads * arch.d_head, arch.d_mlp, arch.d_vocab_out
        hidden, d_hidden = torch.randn(1, N, M + Z), torch.empty(1, N, M + Z)
        z, d_z = hidden[..., M:], d_hidden[..., M:]
        W_ZM, W_MZC = torch.randn(1, Z, M), torch.randn(1, M + Z, C)
        pre, logits = torch.empty(1, N, M), torch.randn(1, N, C)
        d_W_MZC, d_W_ZM = torch.empty(1, M + Z, C), torch.empty(1, Z, M)
        self.parts: dict[str, tuple[Tensor, Tensor, Tensor]] = {
            f"neurons: {N}x{Z} @ {Z}x{M}": (z, W_ZM, pre),
            f"logits: {N}x{M + Z} @ {M + Z}x{C}": (hidden, W_MZC, logits),
            f"readout gradient: {M + Z}x{N} @ {N}x{C}": (hidden.transpose(1, 2), logits, d_W_MZC),
            f"hidden gradient: {N}x{C} @ {C}x{M + Z}": (logits, W_MZC.transpose(1, 2), d_hidden),
            f"reader gradient: {Z}x{N} @ {N}x{M}": (z.transpose(1, 2), pre, d_W_ZM),
            f"z gradient: {N}x{M} @ {M}x{Z}": (pre, W_ZM.transpose(1, 2), d_z),
        }

    @property
    def flops(self) -> int:
        return sum(_flops(left, right) for left, right, _ in self.parts.values())

    def run(self, steps: int) -> None:
        for _ in range(steps):
            for left, right, out in self.parts.values():
                torch.bmm(left, right, out=out)

    def rates(self, seconds_of: Callable[..., list[float]], *, repeats: int) -> dict[str, float]:
        """GFLOP/s of each product by itself: the median of `repeats`."""
        found = {}
        for name, (left, right, out) in self.parts.items():
            taken = seconds_of(lambda a=left, b=right, c=out: torch.bmm(a, b, out=c), repeats=repeats)
            found[name] = _flops(left, right) / sorted(taken)[len(taken) // 2] / 1e9
        return found


def square_rate(seconds_of: Callable[..., list[float]], *, size: int, repeats: int) -> float:
    """GFLOP/s of a square product, the machine's headline figure."""
    a, b = torch.randn(1, size, size), torch.randn(1, size, size)
    taken = seconds_of(lambda: torch.bmm(a, b), repeats=repeats)
    return _flops(a, b) / sorted(taken)[len(taken) // 2] / 1e9


def _flops(left: Tensor, right: Tensor) -> int:
    return 2 * left.shape[1] * left.shape[2] * right.shape[2]
