"""Networks with exact weights: a clock and a pizza whose logits are known in closed form."""

import math

import torch
from torch import Tensor

ANGLES = 16  # of a pizza's neurons


def circles(n: int, ks: tuple[int, ...]) -> Tensor:
    """cos and sin of each frequency side by side."""
    angle = 2 * math.pi / n * torch.arange(n)[:, None] * torch.tensor(ks)
    return torch.stack([angle.cos(), angle.sin()], dim=2).flatten(1)


def state(n: int, ks: tuple[int, ...], W_in: Tensor, b_in: Tensor, W_out: Tensor, *, equals: bool) -> dict[str, Tensor]:
    """Of the stream of the last position (a token "=" that is 0, or b) three parts are used.

    The token's own circles, the mean of those of a and b, which attention writes, and the answer's circles.
    """
    d = 2 * len(ks)
    W_E, eye = circles(n, ks), torch.eye(d)
    wide = torch.zeros(n + equals, 3 * d)
    wide[:n, :d] = W_E
    W_V, W_O = torch.zeros(1, 3 * d, d), torch.zeros(1, d, 3 * d)
    W_V[0, :d], W_O[0, :, d : 2 * d] = (1.5 if equals else 1.0) * eye, eye
    W_U = torch.zeros(3 * d, n)
    W_U[2 * d :] = W_E.T
    nothing = torch.zeros(1, 3 * d, d)
    out = torch.zeros(W_out.shape[0], 3 * d)
    out[:, 2 * d :] = W_out
    attention = {"W_Q": nothing, "W_K": nothing.clone(), "W_V": W_V, "W_O": W_O}
    mlp = {"W_in": W_in, "b_in": b_in, "W_out": out, "b_out": torch.zeros(3 * d)}
    return {
        "embed.W_E": wide,
        "pos_embed.W_pos": torch.zeros(2 + equals, 3 * d),
        **{f"blocks.0.attn.{name}": x for name, x in attention.items()},
        **{f"blocks.0.mlp.{name}": x for name, x in mlp.items()},
        "unembed.W_U": W_U,
    }


def pizza(n: int, ks: tuple[int, ...], height: float) -> dict[str, Tensor]:
    """Rows a, b, "=" and ReLU neurons: logits sum_k height |cos(w_k(a - b)/2)| cos(w_k(a + b - c)).

    |cos(x)| over 2 x 16 angles has the waves 0, 2, 4 .. of the mean's angle x; the read-out takes the second.
    """
    d, phi = 2 * len(ks), math.pi * torch.arange(2 * ANGLES) / ANGLES
    W_in, W_out = torch.zeros(3 * d, len(phi) * len(ks)), torch.zeros(len(phi) * len(ks), d)
    for i in range(len(ks)):
        own = slice(i * len(phi), (i + 1) * len(phi))
        W_in[d + 2 * i : d + 2 * i + 2, own] = torch.stack([phi.cos(), phi.sin()])
        W_out[own, 2 * i : 2 * i + 2] = torch.stack([(2 * phi).cos(), (2 * phi).sin()], dim=1)
    write = height * 3 * math.pi / (2 * ANGLES) * W_out
    return state(n, ks, W_in, torch.zeros(W_in.shape[1]), write, equals=True)


def clock(n: int, ks: tuple[int, ...], height: float) -> dict[str, Tensor]:
    """Rows a, b and square neurons of cos(wa + x) + cos(wb + y), x and y in thirds of a turn.

    The logits are sum_k height cos(w_k(a + b - c)). Position b has b itself and the mean of both, so a is
    twice the mean less b.
    """
    d, thirds = 2 * len(ks), 2 * math.pi * torch.arange(3) / 3
    x, y = torch.cartesian_prod(thirds, thirds).unbind(1)
    W_in, W_out = torch.zeros(3 * d, 9 * len(ks)), torch.zeros(9 * len(ks), d)
    for i in range(len(ks)):
        own, of_a, of_b = slice(9 * i, 9 * i + 9), torch.stack([x.cos(), -x.sin()]), torch.stack([y.cos(), -y.sin()])
        W_in[d + 2 * i : d + 2 * i + 2, own] = 2 * of_a
        W_in[2 * i : 2 * i + 2, own] = of_b - of_a
        W_out[own, 2 * i : 2 * i + 2] = torch.stack([(x + y).cos(), -(x + y).sin()], dim=1)
    return state(n, ks, W_in, torch.zeros(9 * len(ks)), height * 2 / 9 * W_out, equals=False)
