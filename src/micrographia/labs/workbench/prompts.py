"""What was asked about, as tokens: the prompt pairs read, their positions named, and the metric at both ends.

Everything that a user can have got wrong about prompts is found here, before any Run is begun.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from micrographia.core.errors import BadPrompt, UserError
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import NEED_WRONG, LanguageModel, Pairs, PairText, from_texts
from micrographia.core.tokens import Batch, Inputs, Tokenizer, ids_of, mask_of, to_str_tokens
from micrographia.labs.workbench.config import Prompts
from micrographia.labs.workbench.prompt_file import read_pairs, read_texts

SAME = 1e-6  # ends closer than this share of their size are the same number in float32


class Asked(NamedTuple):
    """The pairs, their texts, and a name for each position."""

    pairs: Pairs
    texts: list[PairText]
    positions: list[str]

    @property
    def n_pos(self) -> int:
        return ids_of(self.pairs.clean).shape[1]


def read_prompts(prompts: Prompts, model: LanguageModel) -> Asked:
    """The pairs of the Config. Raises BadPrompt, and UserError for a model without a tokenizer."""
    texts = _texts(prompts)
    pairs = from_texts(model, texts, first_token=prompts.first_token)
    check_length(pairs.clean, model)
    return Asked(pairs, texts, position_names(pairs, model))


def _texts(prompts: Prompts) -> list[PairText]:
    if prompts.prompts is not None:
        return read_pairs(prompts.prompts)
    assert prompts.clean is not None
    assert prompts.corrupt is not None
    assert prompts.answer is not None
    return [PairText(prompts.clean, prompts.corrupt, prompts.answer, prompts.wrong)]


def refuse_no_wrong(prompts: Prompts, pairs: Pairs, metrics: Sequence[str], option: str) -> None:
    """Raise BadPrompt where a metric compares two answers and there is one. `option`: how the metric is chosen."""
    needy = [name for name in metrics if name in NEED_WRONG]
    if needy and pairs.wrong is None:
        give = "Give --wrong" if prompts.prompts is None else f"Give every pair in {prompts.prompts} a wrong one"
        raise BadPrompt(
            f"The metric {needy[0]} compares two answers, but the prompts name no wrong one. {give}, or choose "
            f"{option} logit."
        )


def check_length(inputs: Inputs, model: Model) -> None:
    """Raise BadPrompt for a text longer than the model's context."""
    length = ids_of(inputs).shape[1]
    if length > model.shape.n_ctx:
        raise BadPrompt(
            f"A prompt has {length} tokens, but this model reads at most {model.shape.n_ctx}. Shorten the prompt."
        )


def reference_inputs(file: str | None, model: LanguageModel) -> Inputs | None:
    """The texts of a reference file as tokens; None, which means the pairs themselves, where there is no file."""
    if file is None:
        return None
    found = model.to_tokens(read_texts(file))
    check_length(found, model)
    device = model.weights.W_E.device
    if isinstance(found, Batch):
        return Batch(found.ids.to(device), None if found.mask is None else found.mask.to(device))
    return found.to(device)


def position_names(pairs: Pairs, model: Model) -> list[str]:
    """A name for each position: its number with the token, both tokens where the sides differ, "…" where prompts do."""
    clean, corrupt = (_token_columns(side, model.tokenizer) for side in (pairs.clean, pairs.corrupt))
    return [f"{i} {_name(left, right)}" for i, (left, right) in enumerate(zip(clean, corrupt))]


def _token_columns(inputs: Inputs, tokenizer: Tokenizer | None) -> list[set[str]]:
    """The different tokens at each position; padding counts as one of its own."""
    ids, mask = ids_of(inputs), mask_of(inputs)
    rows = [to_str_tokens(tokenizer, row) for row in ids]
    if mask is not None:
        rows = [[text if there else "" for text, there in zip(row, seen)] for row, seen in zip(rows, mask.tolist())]
    return [set(column) for column in zip(*rows)]


def _name(left: set[str], right: set[str]) -> str:
    if len(left) > 1 or len(right) > 1:
        return "…"
    (one,), (other,) = left, right
    return shown_token(one) if one == other else f"{shown_token(one)} / {shown_token(other)}"


def shown_token(text: str) -> str:
    """A token as it can be seen: without spaces around it, line breaks by their code."""
    return text.strip() or repr(text)[1:-1] or "(padding)"


def told(asked: Asked, model: Model) -> list[dict[str, Any]]:
    """The pairs as they stand in the results: texts, answers, and what the tokenizer made of them."""
    sides = zip(ids_of(asked.pairs.clean), ids_of(asked.pairs.corrupt))
    return [
        {
            "clean": text.clean,
            "corrupt": text.corrupt,
            "answer": text.answer,
            "wrong": text.wrong,
            "clean_tokens": to_str_tokens(model.tokenizer, clean),
            "corrupt_tokens": to_str_tokens(model.tokenizer, corrupt),
        }
        for text, (clean, corrupt) in zip(asked.texts, sides)
    ]


class Ends(NamedTuple):
    """A metric of the clean and the corrupt run, per prompt."""

    metric: Metric
    clean: Float[Tensor, "prompt"]
    corrupt: Float[Tensor, "prompt"]

    @property
    def gap(self) -> float | None:
        """Clean less corrupt, over the prompts; None where rounding alone tells them apart."""
        clean, corrupt = self.clean.double().mean(), self.corrupt.double().mean()
        gap = float(clean - corrupt)
        return gap if abs(gap) > SAME * max(abs(float(clean)), abs(float(corrupt))) else None

    def told(self) -> dict[str, Any]:
        """A row of the table of baselines."""
        return {
            "metric": self.metric.name,
            "clean": float(self.clean.mean()),
            "clean_sd": spread(self.clean),
            "corrupt": float(self.corrupt.mean()),
            "corrupt_sd": spread(self.corrupt),
            "unit": self.metric.unit,
        }


def refuse_no_gap(ends: Ends) -> None:
    """Raise UserError where nothing can be restored or destroyed."""
    if ends.gap is None:
        raise UserError(
            f"Clean and corrupt prompts give the same {ends.metric.name} ({float(ends.clean.mean()):.4g} on average): "
            "there is no gap to restore or to destroy. Choose prompts or a metric that tell them apart."
        )


def spread(values: Float[Tensor, "prompt"]) -> float | None:
    """The standard deviation over prompts; None for one prompt."""
    return float(values.double().std()) if len(values) > 1 else None
