"""Prompt pairs of a question: as texts or from a file, read with the model's tokenizer and checked.

Everything that can be wrong about prompts is found here, before any Run is begun.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from micrographia.core.errors import BadPrompt
from micrographia.core.model import Model
from micrographia.core.prompt_files import read_pairs, read_texts
from micrographia.core.prompts import (
    NEED_WRONG,
    LanguageModel,
    Pairs,
    PairText,
    changed_positions,
    from_texts,
    position_names,
)
from micrographia.core.tokens import Batch, Inputs, ids_of, to_str_tokens
from micrographia.labs.workbench.config import Prompts
from micrographia.methods.sink import Sink, find_sink


class PromptSet(NamedTuple):
    """The pairs, their texts, a name for each position, and the attention sink where there is one."""

    pairs: Pairs
    texts: list[PairText]
    positions: list[str]
    sink: Sink | None = None

    def ends(self, model: Model) -> tuple[list[int], int, int]:
        """Where prompts differ, where the answer is read, and how many layers there are."""
        return changed_positions(self.pairs), self.pairs.pos % len(self.positions), model.shape.n_layers

    def rows(self, model: Model) -> list[dict[str, Any]]:
        """The pairs for the results: texts, answers, and the tokens of both prompts."""
        sides = (ids_of(self.pairs.clean), ids_of(self.pairs.corrupt))
        tokens = ([to_str_tokens(model.tokenizer, row) for row in side] for side in sides)
        return [
            {**text._asdict(), "clean_tokens": clean, "corrupt_tokens": corrupt}
            for text, clean, corrupt in zip(self.texts, *tokens)
        ]


def read_prompts(prompts: Prompts, model: LanguageModel, metrics: Sequence[str], option: str) -> PromptSet:
    """The pairs of a question, for these metrics, which are chosen by `option`.

    Raises BadPrompt, also where a metric compares two answers and there is one; UserError without a tokenizer.
    """
    if prompts.prompts is not None:
        texts = read_pairs(prompts.prompts)
    else:
        texts = [PairText(str(prompts.clean), str(prompts.corrupt), str(prompts.answer), prompts.wrong)]
    pairs = from_texts(model, texts, first_token=prompts.first_token)
    check_length(pairs.clean, model)
    needy = [name for name in metrics if name in NEED_WRONG]
    if needy and pairs.wrong is None:
        give = "Give --wrong" if prompts.prompts is None else f"Give every pair in {prompts.prompts} a wrong one"
        raise BadPrompt(
            f"The metric {needy[0]} compares two answers, but the prompts name no wrong one. {give}, or choose "
            f"{option} logit."
        )
    sink = find_sink(model, pairs.clean)
    return PromptSet(pairs, texts, marked(position_names(pairs, model.tokenizer), sink), sink)


def marked(positions: Sequence[str], sink: Sink | None) -> list[str]:
    """The names of positions, with the sink named as one."""
    return list(positions) if sink is None else [f"{positions[0]} (sink)", *positions[1:]]


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
