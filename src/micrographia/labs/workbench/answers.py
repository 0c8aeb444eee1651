"""How the model answers before anything is done to it: the table, the warnings, and what stands around the prompts."""

from collections.abc import Sequence
from typing import Any

import torch

from micrographia.core.answer_check import AnswerCheck, SideCheck, Standing, same_word, written
from micrographia.core.answers import choices
from micrographia.core.figures import Figure, table
from micrographia.core.framing import AroundTokens
from micrographia.core.prompts import Pairs, PairText
from micrographia.core.tokens import Tokenizer, to_str_tokens

TITLE = "The answers"
WORST = 5
"""Pairs that are listed: those with the least probable answers."""
SHOWN_TOKENS = 60
"""Tokens around a prompt that are printed, half of them from either end; all are in the results."""
TOO = "Warning: on the corrupt prompt the model gives the same answer first, so what changed hardly matters to it."
RANKED = (
    "Rank 0 is the model's first choice. Of several answers: their probabilities together, and the rank of the best."
)


def recorded(check: AnswerCheck, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """For the results: by side the probability and rank of both answers, and the first choice, a list over pairs."""
    sides = {name: _side(side, tokenizer) for name, side in (("clean", check.clean), ("corrupt", check.corrupt))}
    counts = {"n": len(check), "n_first": int(check.came_first.sum())}
    return {**counts, "n_chosen": None if check.chosen is None else int(check.chosen.sum()), **sides}


def _side(side: SideCheck, tokenizer: Tokenizer | None) -> dict[str, Any]:
    found: dict[str, Any] = {"first": to_str_tokens(tokenizer, side.first), "first_prob": side.first_prob.tolist()}
    for name, standing in (("answer", side.answer), ("wrong", side.wrong)):
        if standing is not None:
            found |= {f"{name}_prob": standing.prob.tolist(), f"{name}_rank": standing.rank.int().tolist()}
    return found


def answer_tables(
    check: AnswerCheck, names: Sequence[tuple[str, str | None]], tokenizer: Tokenizer, *, alone: bool = False
) -> list[Figure]:
    """One small table; of several pairs what they have in common, and those whose answer is least probable.

    `names`: by pair the answer and the wrong answer as they were written. `alone`: there is one prompt, and no other.
    """
    if len(check) == 1:
        return [_of_one(check, *names[0], tokenizer, alone)]
    rows = [
        {
            "prompts": side,
            "which": which,
            "first": f"{int((standing.rank == 0).sum())} of {len(check)}",
            "median": float(standing.prob.quantile(0.5)),
            "least": float(standing.prob.min()),
        }
        for side, found in (("clean", check.clean), ("corrupt", check.corrupt))
        for which, standing in (("answer", found.answer), ("wrong answer", found.wrong))
        if standing is not None
    ]
    columns = {
        "prompts": "prompts",
        "which": "of the",
        "first": "comes first",
        "median": "median p",
        "least": "least p",
    }
    caption = f"Probability of the answers before anything is patched. {RANKED}"
    worst, clean = check.clean.answer.prob.argsort()[:WORST].tolist(), check.clean
    figures = [clean.answer.prob.tolist(), clean.answer.rank.int().tolist(), clean.first_prob.tolist()]
    listed = [
        {"pair": i, "answer": names[i][0], "first": written(tokenizer, int(clean.first[i]))}
        | {name: column[i] for name, column in zip(("prob", "rank", "first_prob"), figures)}
        for i in worst
    ]
    named = {"pair": "pair", "answer": "answer", "prob": "probability", "rank": "rank", "first": "first choice"}
    named |= {"first_prob": "its probability"}
    about: dict[str, Any] = {"group": TITLE, "essential": False, "caption": "On the clean prompts; pairs count from 0."}
    return [
        table("answers", TITLE, rows, columns=columns, caption=caption, group=TITLE),
        table("answers-worst", "Pairs whose answer is least probable", listed, columns=named, **about),
    ]


def _of_one(check: AnswerCheck, answer: str, wrong: str | None, tokenizer: Tokenizer, alone: bool) -> Figure:
    clean, corrupt = check.clean, check.corrupt
    first = Standing(clean.first_prob, torch.zeros(1)), Standing(corrupt.first_prob, torch.zeros(1))
    best = " / ".join(dict.fromkeys(written(tokenizer, int(side.first[0])) for side in (clean, corrupt)))
    rows = [
        ("answer", repr(answer), clean.answer, corrupt.answer),
        *([("wrong answer", repr(wrong), clean.wrong, corrupt.wrong)] if clean.wrong and corrupt.wrong else []),
        ("first choice", best, *first),
    ]
    cells = [
        {"which": which, "token": token, **_cells("clean", one), **_cells("corrupt", other)}
        for which, token, one, other in rows
    ]
    columns = {"which": "", "token": "token", "clean": "probability" if alone else "clean p", "clean_rank": "rank"}
    columns |= {} if alone else {"corrupt": "corrupt p", "corrupt_rank": "rank"}
    return table("answers", TITLE, cells, columns=columns, caption=RANKED, group=TITLE)


def _cells(side: str, standing: Standing) -> dict[str, Any]:
    return {side: float(standing.prob[0]), f"{side}_rank": int(standing.rank[0])}


def answer_sentences(check: AnswerCheck, pairs: Pairs, texts: Sequence[PairText], tokenizer: Tokenizer) -> list[str]:
    """How often the answer comes first; a warning where it does not, with its right spelling where that is why."""
    missed = [i for i, first in enumerate(check.came_first.tolist()) if not first]
    tokens = pairs.answer[:, None] if pairs.answer.ndim == 1 else pairs.answer
    spelt = [
        i for i in missed if any(same_word(tokenizer, int(check.clean.first[i]), int(t)) for t in tokens[i] if t >= 0)
    ]
    both = int((check.came_first & (check.corrupt.answer.rank == 0)).sum())
    if len(check) == 1:
        alone = texts[0].clean == texts[0].corrupt
        return [_warning(check, texts[0], bool(spelt), tokenizer)] if missed else [TOO] if both and not alone else []
    n = len(check)
    chosen = "" if check.chosen is None else f", and before the wrong answer on {int(check.chosen.sum())}"
    sentences = [
        f"The answer is the model's first choice on {n - len(missed)} of {n} clean prompts{chosen}; its median "
        f"probability there is {float(check.clean.answer.prob.quantile(0.5)):.3g}."
    ]
    if spelt:
        own, first = (written(tokenizer, int(x)) for x in (tokens[spelt[0]][0], check.clean.first[spelt[0]]))
        sentences.append(
            f"Warning: on {len(spelt)} of them the first choice is the same word written otherwise, as {first} for "
            f"{own} in pair {spelt[0]}. Write the answers as the model does."
        )
    elif 2 * len(missed) > n:
        sentences.append("Warning: on most prompts the model would say something else.")
    if both:
        sentences.append(f"On {both} of the pairs the corrupt prompt has the same first choice.")
    return sentences


def _warning(check: AnswerCheck, text: PairText, spelt: bool, tokenizer: Tokenizer) -> str:
    """Of one pair whose answer does not come first."""
    clean, first = check.clean, written(tokenizer, int(check.clean.first[0]))
    own, best = float(clean.answer.prob[0]), float(clean.first_prob[0])
    prompt = "prompt" if text.clean == text.corrupt else "clean prompt"
    found = f"n the {prompt} the model's first choice is {first} (probability {best:.3g}), "
    if len(choices(text.answer)) > 1:
        found += f"none of the answers, which have {own:.2g} together."
    else:
        found += f"not the answer ({own:.2g}, rank {int(clean.answer.rank[0])})."
    found = f"O{found}" if own > best else f"Warning: o{found}"  # the answers together are likelier
    if spelt:
        alike = "" if text.wrong is None else ", and the wrong answer alike"
        return f"{found} It is the same word written otherwise: write --answer {first}{alike}."
    if text.clean != text.clean.rstrip():
        return f"{found} The prompt ends in white space, which belongs to the token after it: leave it out there."
    return found


def around_words(around: AroundTokens) -> str:
    """In two words whether a beginning-of-sequence token stands first."""
    return f"BOS {around.before[0]!r}" if around.bos and around.before else "no BOS"


def around_sentences(around: AroundTokens) -> list[str]:
    """The tokens around each prompt, where there are more than a beginning-of-sequence token."""
    sides = {"before": around.before[around.bos :], "after": around.after}
    told = [
        f"{side} it {_listed([*around.before] if side == 'before' else tokens)}"
        for side, tokens in sides.items()
        if tokens
    ]
    return [f"Around each prompt stand these tokens: {'; '.join(told)}."] if told else []


def _listed(tokens: Sequence[str]) -> str:
    half, shown = SHOWN_TOKENS // 2, [repr(token) for token in tokens]
    return " ".join(shown if len(shown) <= SHOWN_TOKENS else [*shown[:half], "...", *shown[-half:]])
