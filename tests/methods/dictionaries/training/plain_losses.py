"""The losses of training written out plainly, for autograd; JumpReLU's steps by their estimators.

The reference that the hand-written gradients are held against. Axes: row latent d.
"""

import torch


class Step(torch.autograd.Function):
    """1[p > threshold] with the estimator of arXiv 2407.14435, eq. 12; to p too where `to_input`."""

    @staticmethod
    def forward(ctx, p, threshold, width, to_input):
        ctx.save_for_backward(p, threshold)
        ctx.width, ctx.to_input = width, to_input
        return (p > threshold).to(p)

    @staticmethod
    def backward(ctx, slope):
        p, threshold = ctx.saved_tensors
        kernel = ((p - threshold).abs() < ctx.width / 2).to(p) / ctx.width
        return slope * kernel if ctx.to_input else None, -(slope * kernel).sum(0), None, None


class Jump(torch.autograd.Function):
    """p 1[p > threshold] with the estimator of eq. 11."""

    @staticmethod
    def forward(ctx, p, threshold, width, to_input):
        ctx.save_for_backward(p, threshold)
        ctx.width, ctx.to_input = width, to_input
        return p * (p > threshold)

    @staticmethod
    def backward(ctx, slope):
        p, threshold = ctx.saved_tensors
        kernel = threshold / ctx.width * ((p - threshold).abs() < ctx.width / 2)
        own = slope * (p > threshold)
        return own + slope * kernel if ctx.to_input else own, -(slope * kernel).sum(0), None, None


def top(p, count):
    kept = torch.zeros_like(p)
    at = p.topk(count, -1).indices
    return kept.scatter(-1, at, p.gather(-1, at)).relu()


def batch_top(p, count):
    least = p.flatten().topk(count).values[-1]
    return torch.where((p >= least) & (p > 0), p, 0)


def abs_top(p, count):
    at = p.abs().topk(count, -1).indices
    return torch.zeros_like(p).scatter(-1, at, p.gather(-1, at))


def group_max(p, count):
    groups = p.relu().unflatten(-1, (count, -1))
    return torch.where(groups == groups.max(-1, keepdim=True).values, groups, 0).flatten(-2)


def norms(decoder, layers):
    return decoder.unflatten(-1, (layers, -1)).norm(dim=-1).sum(-1)


def plain_loss(recipe, w, x, target, *, subtracts, power=1.0, dead=None, target_l0=None, multiplier=0.0):
    """name -> term. `w`: the tensors of one member, by their names in training."""
    rows = len(x)
    read = x - w["b_dec"] if subtracts else x
    weigh = norms(w["decoder"], recipe.layers) if recipe.norm_weighted else torch.ones(recipe.n_latents).to(x)

    def decode(f, decoder=w["decoder"], bias=w["b_dec"]):
        return f @ decoder + bias + (x @ w["skip"] if "skip" in w else 0)

    def squared(out):
        return (target - out).square().sum(-1).mean()

    if recipe.kind == "gated":
        u = read @ w["encoder"].T
        gate, size = u + w["b_gate"], u * w["r_mag"].exp() + w["b_mag"]
        f = (gate > 0) * size.relu()
        sparsity = recipe.sparsity * (gate.relu() * weigh).sum(-1).mean()
        seen = squared(decode(gate.relu(), w["decoder"].detach(), w["b_dec"].detach()))
        return {"reconstruction": squared(decode(f)), "sparsity": sparsity, "gate": seen}
    p = read @ w["encoder"].T + w["b_enc"]
    f = {
        "relu": lambda: p.relu(),
        "topk": lambda: top(p, recipe.k),
        "batchtopk": lambda: batch_top(p, recipe.k * rows),
        "abstopk": lambda: abs_top(p, recipe.k),
        "groupmax": lambda: group_max(p, recipe.k),
        "jumprelu": lambda: Jump.apply(p, w["threshold"], recipe.bandwidth, recipe.estimator_to_input),
    }[recipe.kind]()
    ends = [*recipe.prefixes, recipe.n_latents]
    share = 1 / len(ends) if recipe.prefix_mean else 1
    parts = [share * squared(decode(f[:, :end], w["decoder"][:end])) for end in ends]
    terms = {"reconstruction": parts[-1]}
    if recipe.prefixes:
        terms["prefixes"] = sum(parts[:-1])

    def count():
        return Step.apply(p, w["threshold"], recipe.bandwidth, recipe.estimator_to_input).sum(-1).mean()

    def relative():
        return count() / target_l0 - 1

    c = recipe.coefficient
    terms["sparsity"] = {
        "none": lambda: p.new_zeros(()),
        "l1": lambda: c * (f * weigh).sum(-1).mean(),
        "lp": lambda: c * torch.where(f > 0, (f * weigh).clamp_min(1e-12) ** power, 0).sum(-1).mean(),
        "l0": lambda: c * count(),
        "l0-quadratic": lambda: c * 2 / target_l0 * (count() - target_l0) ** 2,
        "l0-target": lambda: (
            c * (multiplier * relative() + torch.nn.functional.huber_loss(relative(), p.new_zeros(())))
        ),
        "tanh": lambda: c * (recipe.tanh_slope * f * weigh).tanh().sum(-1).mean(),
    }[recipe.chosen_penalty]()
    if recipe.multi_topk:
        terms["multi_topk"] = recipe.multi_topk * squared(decode(top(p, min(4 * recipe.k, recipe.n_latents))))
    if recipe.pre_activation:
        terms["pre_activation"] = recipe.pre_activation * ((w["threshold"] - p).relu() * weigh).sum(-1).mean()
    if dead is not None:
        residual = (target - decode(f)).detach()
        terms["revival"] = {"auxk": auxk, "ghost": ghost}[recipe.revival](
            recipe, p[:, dead], w["decoder"][dead], residual, x.shape[-1]
        )
    return terms


def auxk(recipe, p, decoder, residual, d_in):
    wanted = recipe.auxk or d_in // 2
    guess = top(p, min(wanted, p.shape[-1])) @ decoder
    spread = (residual - residual.mean(0)).square().sum(-1).mean()
    scale = recipe.revival_weight * min(p.shape[-1] / wanted, 1)
    return scale * (residual - guess).square().sum(-1).mean() / spread


def ghost(recipe, p, decoder, residual, d_in):
    guess = p.exp() @ decoder
    guess = guess * (residual.norm(dim=-1, keepdim=True) / (2 * guess.norm(dim=-1, keepdim=True) + 1e-6)).detach()
    loss = (residual - guess).square().sum(-1).mean()
    return recipe.revival_weight * loss * (residual.square().sum(-1).mean() / loss).detach()
