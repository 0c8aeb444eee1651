"""Prompt pairs of a question: as texts or from a file, read with the model's tokenizer and checked.

Everything that can be wrong about prompts is found here, before any Run is begun.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from micrographia.core.answer_check import AnswerCheck, check_answers
from micrographia.core.answers import Answers, TokenId, shown
from micrographia.core.errors import BadPrompt
from micrographia.core.framing import AroundTokens, Framing
from micrographia.core.model import Model
from micrographia.core.prompt_files import read_pairs, read_texts
from micrographia.core.prompts import (
    NEED_WRONG,
    LanguageModel,
    Pairs,
    PairText,
    changed_positions,
    fitting,
    from_texts,
    onto,
    position_names,
)
from micrographia.core.tokens import Inputs, ids_of, spelling, to_str_tokens
from micrographia.labs.workbench.config import Around, Prompts, columns_of
from micrographia.methods.sink import Sink, find_sink


class PromptSet(NamedTuple):
    """The pairs, their texts, a name for each position, what stands around them, how the model answers them, and its
    attention sink where there is one."""

    pairs: Pairs
    texts: list[PairText]
    positions: list[str]
    around: AroundTokens
    check: AnswerCheck
    sink: Sink | None
    n_left_out: int = 0
    """Pairs of the file that this tokenizer does not fit."""

    def ends(self, model: Model) -> tuple[list[int], int, int]:
        """Where prompts differ, where the answer is read, and how many layers there are."""
        return changed_positions(self.pairs), self.pairs.pos % len(self.positions), model.shape.n_layers

    def rows(self, model: Model) -> list[dict[str, Any]]:
        """The pairs for the results: texts, answers, and the tokens of both prompts."""
        sides = (ids_of(self.pairs.clean), ids_of(self.pairs.corrupt))
        tokens = ([to_str_tokens(model.tokenizer, row) for row in side] for side in sides)
        return [
            {
                "clean": text.clean,
                "corrupt": text.corrupt,
                "answer": shown(text.answer),
                "wrong": None if text.wrong is None else shown(text.wrong),
                "clean_tokens": clean,
                "corrupt_tokens": corrupt,
            }
            for text, clean, corrupt in zip(self.texts, *tokens)
        ]

    def sentences(self) -> list[str]:
        """Whether the model gives the answers, and how many pairs were left out."""
        n = f"{self.n_left_out} pair{' of the file was' if self.n_left_out == 1 else 's of the file were'}"
        left = [f"{n} left out, which this model's tokenizer does not fit."] if self.n_left_out else []
        return [*left, *self.check.sentences()]


def read_prompts(prompts: Prompts, model: LanguageModel, metrics: Sequence[str], option: str) -> PromptSet:
    """The pairs of a question, for these metrics, which are chosen by `option`.

    Raises BadPrompt, also where a metric compares two answers and there is one; UserError without a tokenizer.
    """
    if prompts.prompts is not None:
        columns = columns_of(prompts.columns)
        texts = read_pairs(prompts.prompts, layout=prompts.prompt_format, columns=columns, limit=prompts.limit)
    else:
        texts = [PairText(str(prompts.clean), str(prompts.corrupt), str(prompts.answer), prompts.wrong)]
    framing, n_given = framing_of(prompts.around), len(texts)
    if prompts.skip_misfits:
        texts = fitting(model, texts, first_token=prompts.first_token, framing=framing)
    try:
        pairs = from_texts(model, texts, first_token=prompts.first_token, framing=framing)
    except BadPrompt as error:
        skip = " With --skip-misfits such pairs are left out." if n_given > 1 and not prompts.skip_misfits else ""
        raise BadPrompt(f"{error}{skip}") from error
    check_length(pairs.clean, model)
    needy = [name for name in metrics if name in NEED_WRONG]
    if needy and pairs.wrong is None:
        give = "Give --wrong" if prompts.prompts is None else f"Give every pair in {prompts.prompts} a wrong one"
        raise BadPrompt(
            f"The metric {needy[0]} compares two answers, but the prompts name no wrong one. {give}, or choose "
            f"{option} logit."
        )
    return _read(model, pairs, texts, framing, n_given - len(texts))


def _read(
    model: LanguageModel, pairs: Pairs, texts: list[PairText], framing: Framing, n_left_out: int = 0
) -> PromptSet:
    """What the model makes of these pairs."""
    sink = find_sink(model, pairs.clean)
    names, around = position_names(pairs, model.tokenizer), framing.around(model, texts[0].clean)
    marked = names if sink is None else [f"{names[0]} (sink)", *names[1:]]
    return PromptSet(pairs, texts, marked, around, check_answers(model, pairs), sink, n_left_out)


def read_prompt(
    model: LanguageModel, texts: Sequence[str], around: Around, named: Sequence[str | None], *, first_token: bool
) -> PromptSet:
    """One prompt, or two of as many tokens, as a pair with the answers that are named, the right one first.

    Without a right answer the model's own first choice. Raises BadPrompt as `from_texts` does.
    """
    right, wrong = named
    framing, answer = framing_of(around), right
    inputs = framing.tokens(model, texts[:1])
    check_length(inputs, model)
    own: Answers | None = right
    if own is None:
        first = int(model.run(ids_of(inputs).to(model.weights.W_E.device), logits="last").logits[0, -1].argmax())
        own, answer = TokenId(first), spelling(model.tokenizer, first) or model.to_str_tokens([first])[0]
    sides = PairText(texts[0], texts[-1], own, wrong)
    pairs = from_texts(model, [sides], first_token=first_token, framing=framing)
    told = sides if right is not None else sides._replace(answer=[answer])
    return _read(model, pairs, [told], framing)


def framing_of(around: Around) -> Framing:
    """What stands around each prompt, with the shots from their file."""
    shots = () if around.shots is None else tuple(read_texts(around.shots))
    return Framing(around.bos, around.chat, around.chat_start or "", shots)


def check_length(inputs: Inputs, model: Model) -> None:
    """Raise BadPrompt for a text longer than the model's context."""
    length = ids_of(inputs).shape[1]
    if length > model.shape.n_ctx:
        raise BadPrompt(
            f"A prompt has {length} tokens, but this model reads at most {model.shape.n_ctx}. Shorten the prompt."
        )


def reference_inputs(file: str | None, model: LanguageModel, around: Around) -> Inputs | None:
    """The texts of a reference file as tokens, with what stands around the prompts; None, which means the pairs
    themselves, where there is no file.
    """
    if file is None:
        return None
    found = framing_of(around).tokens(model, read_texts(file))
    check_length(found, model)
    return onto(model.weights.W_E.device, found)
