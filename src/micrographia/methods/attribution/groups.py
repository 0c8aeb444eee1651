"""Groups: pairs attributed some at a time, so that the graph of one group is all that is held at once.

Prompts do not meet, so scores are the same to rounding. On a CPU the default takes as many pairs as hold about `GRAPH`
of saved activations; for small models that is all of them. A group reads every weight once, so that small groups are
slow: GPT-2 small takes three tenths longer at 60 tokens a group than at 120, which hold half as much again.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from micrographia.core.metrics import Metric
from micrographia.core.model import ModelShape
from micrographia.core.prompts import Pairs
from micrographia.core.tokens import Inputs, ids_of
from micrographia.methods.attribution.estimate import Attribution

GRAPH = 104 * 2**20  # bytes; GPT-2 small: 123 tokens
FEWEST = 32  # tokens in a group: with fewer, reading the weights takes longer than to compute with them


def at_once(shape: ModelShape, inputs: Inputs) -> int:
    """How many pairs a group has by default: all on a GPU."""
    ids = ids_of(inputs)
    if ids.device.type != "cpu":
        return len(ids)
    tokens = max(FEWEST, GRAPH // saved_bytes(shape))
    return min(len(ids), max(1, tokens // ids.shape[1]))


def saved_bytes(shape: ModelShape) -> int:
    """What the graph saves for a token, and readers hold, about: an activation function with or without a gate, two
    norms, queries, keys, values and outputs, in float32.
    """
    return 4 * shape.n_layers * (3 * shape.d_mlp + 12 * shape.d_model)


def in_groups(
    explain: Callable[[Pairs, Metric], Attribution], pairs: Pairs, metric: Metric, n_at_once: int
) -> Attribution:
    """One attribution of all pairs, from groups of at most so many, as even as can be."""
    if n_at_once >= len(pairs):
        return explain(pairs, metric)
    rows = torch.arange(len(pairs), device=ids_of(pairs.clean).device)
    groups = rows.tensor_split(-(-len(pairs) // n_at_once))
    return joined([explain(pairs.rows(group), metric_of_rows(metric, group)) for group in groups])


def joined(parts: list[Attribution]) -> Attribution:
    """One after the other along the prompts."""
    first = parts[0]
    scores = {site: torch.cat([part.scores.pop(site) for part in parts]) for site in list(first.scores)}
    clean, corrupt = (torch.cat([getattr(part, side) for part in parts]) for side in ("clean", "corrupt"))
    return first._replace(scores=scores, clean=clean, corrupt=corrupt)


def metric_of_rows(metric: Metric, rows: Tensor) -> Metric:
    """The metric of these prompts alone, numbered anew."""
    columns = None if metric.columns is None else metric.columns[rows.to(metric.columns.device)]

    def score(logits: Tensor, prompt: Tensor) -> Tensor:
        return metric.score(logits, rows.to(prompt.device)[prompt])

    return Metric(metric.name, metric.unit, score, columns, metric.pos)
