"""Automatic interpretation by a judge: prompts out, answers in, as records of JSONL or through any function.

`complete(prompts) -> texts` is all that a judge needs to be: a local model, a service, or a person with a file.
Explaining: a judge sees passages with the tokens at which a latent fires between << and >>, and says in a phrase what
they share. Detecting: given an explanation, a judge names those of shuffled passages in which the latent fires; half of
them do. Passages for detecting come from other rows than those for explaining. The null gives each latent another's
explanation. Sources: Bills et al. (2023) for explaining; Paulo et al., "Automatically interpreting millions of features
in large language models" (2410.13928), section 3, for detection; SAEBench (2025) for the shuffled set.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator

from micrographia.core import figures
from micrographia.core.errors import UserError
from micrographia.core.figures import Figure
from micrographia.methods.dictionaries.evaluation.contexts import Contexts, Passage

Complete = Callable[[Sequence[str]], Sequence[str]]
Words = Callable[[Sequence[int]], Sequence[str]]
"""Token ids -> each token as text: `model.to_str_tokens`."""
MARKED = 0.3
"""Share of the passage's largest activation from which a token is marked. Our choice."""
EXPLAIN = """A unit of a neural network is active at the words between << and >> in these passages.

{passages}

Say in one short phrase what these words, or what is around them, have in common. Answer with the phrase alone."""
DETECT = """A unit of a neural network is active where the text shows this: {explanation}

{passages}

In which of these passages is it active? Answer with their numbers, with commas between, or with "none"."""


class Prompt(NamedTuple):
    """A question to a judge."""

    id: str
    task: str
    latent: int
    prompt: str


class Detection(NamedTuple):
    """A question which passages a latent fires in, and the answer that a judge does not see."""

    prompt: Prompt
    fires: tuple[bool, ...]
    is_null: bool
    """Whether the explanation is another latent's."""


def explanation_prompts(contexts: Contexts, words: Words, *, n: int = 10) -> list[Prompt]:
    """A prompt for each latent that fires: its top examples and some of the sample, n passages in all."""
    found = []
    for latent in contexts.latents.tolist():
        top, others = contexts.passages(latent), contexts.passages(latent, "sample")
        seen = {each.row for each in top[: -(-n // 2)]}
        passages = [*top[: -(-n // 2)], *(each for each in others if each.row not in seen)][:n]
        if passages:
            shown = "\n".join(f"{i + 1}. {marked(each, words)}" for i, each in enumerate(passages))
            found.append(Prompt(f"explain/{latent}", "explain", latent, EXPLAIN.format(passages=shown)))
    return found


def detection_prompts(
    explanations: Mapping[int, str], contexts: Contexts, words: Words, *, generator: Generator, n: int = 10
) -> list[Detection]:
    """For each latent with an explanation, a prompt with its own and one with another's, over the same n passages.

    Half of the passages fire (from the sample), half do not. Latents with too few of either are left out.
    """
    known = [latent for latent in contexts.latents.tolist() if latent in explanations]
    order = torch.randperm(len(known), generator=generator).tolist()
    another = {known[a]: known[b] for a, b in zip(order, [*order[1:], *order[:1]])}
    found = []
    for latent in known:
        half = n // 2
        on, off = contexts.passages(latent, "sample"), contexts.passages(latent, "silent")
        if min(len(on), len(off)) < half or not half:
            continue
        drawn = torch.randperm(len(on), generator=generator)[:half].tolist()
        both = [*((on[i], True) for i in drawn), *((each, False) for each in off[:half])]
        shuffled = [both[i] for i in torch.randperm(len(both), generator=generator).tolist()]
        shown = "\n".join(f"{i + 1}. {plain(each, words)}" for i, (each, _) in enumerate(shuffled))
        fires = tuple(is_on for _, is_on in shuffled)
        for source, is_null in ((latent, False), (another[latent], True)):
            if is_null and source == latent:
                continue
            name = f"detect/{latent}" + ("/null" if is_null else "")
            text = DETECT.format(explanation=explanations[source], passages=shown)
            found.append(Detection(Prompt(name, "detect", latent, text), fires, is_null))
    return found


def marked(passage: Passage, words: Words) -> str:
    """The passage on one line, with the tokens of large activation between << and >>."""
    values = [value if value == value else 0.0 for value in passage.values]
    least = MARKED * max(values, default=0.0)
    texts = words(passage.tokens)
    return _line(f"<<{text}>>" if value > 0 and value >= least else text for text, value in zip(texts, values))


def plain(passage: Passage, words: Words) -> str:
    return _line(words(passage.tokens))


def _line(texts: Iterable[str]) -> str:
    return "".join(texts).replace("\n", "\\n").strip()


class JudgedLatent(NamedTuple):
    """How a judge did with a latent's explanation, and with another's in its place (None: not asked)."""

    latent: int
    explanation: str
    accuracy: float
    precision: float
    recall: float
    null_accuracy: float | None


@dataclass(frozen=True, slots=True)
class JudgedInterpretation:
    """All latents that were judged."""

    judged: tuple[JudgedLatent, ...]
    unreadable: tuple[str, ...] = ()
    """Ids of answers that could not be read, which count for nothing."""

    @property
    def accuracy(self) -> float:
        return _mean([each.accuracy for each in self.judged])

    @property
    def null_accuracy(self) -> float:
        return _mean([each.null_accuracy for each in self.judged if each.null_accuracy is not None])

    def rows(self) -> list[dict[str, Any]]:
        return [each._asdict() for each in sorted(self.judged, key=lambda each: -each.accuracy)]

    def figures(self) -> list[Figure]:
        return [
            figures.table(
                "latents-judged", "Explanations, as a judge detects with them", self.rows(), group="Dictionary",
                caption=f"Detection accuracy {self.accuracy:.2f}; with another latent's explanation "
                f"{self.null_accuracy:.2f}; chance is 0.5. {len(self.unreadable)} answers could not be read.",
            )
        ]  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def read_detection(answer: str, n: int) -> tuple[bool, ...] | None:
    """The passages that a judge named, of n; None for an answer that names none and does not say so.

    >>> read_detection("1, 3", 3), read_detection("None.", 2), read_detection("I think so", 2)
    ((True, False, True), (False, False), None)
    """
    numbers = [int(each) for each in re.findall(r"\d+", answer)]
    if not numbers:
        return (False,) * n if re.search(r"\bnone\b", answer, re.IGNORECASE) else None
    if any(not 1 <= each <= n for each in numbers):
        return None
    return tuple(i + 1 in numbers for i in range(n))


def judged(
    detections: Sequence[Detection], answers: Mapping[str, str], explanations: Mapping[int, str]
) -> JudgedInterpretation:
    """Scores from answers by id. Raises UserError for a prompt without an answer."""
    if missing := [each.prompt.id for each in detections if each.prompt.id not in answers]:
        raise UserError(
            f"Answers to {len(detections)} prompts were expected; {len(missing)} are missing: "
            f"{', '.join(missing[:5])}. Answer them, under their ids."
        )
    read = {each.prompt.id: read_detection(answers[each.prompt.id], len(each.fires)) for each in detections}
    nulls: dict[int, float] = {}
    for each in detections:
        said = read[each.prompt.id]
        if each.is_null and said is not None:
            nulls[each.prompt.latent] = _right(said, each.fires)
    found = []
    for each in detections:
        said = read[each.prompt.id]
        if each.is_null or said is None:
            continue
        both = sum(a and b for a, b in zip(said, each.fires))
        latent = each.prompt.latent
        found.append(
            JudgedLatent(
                latent, explanations[latent], _right(said, each.fires), both / max(sum(said), 1),
                both / max(sum(each.fires), 1), nulls.get(latent),
            )
        )  # fmt: skip
    return JudgedInterpretation(tuple(found), tuple(name for name, said in read.items() if said is None))


def _right(said: Sequence[bool], fires: Sequence[bool]) -> float:
    return sum(a == b for a, b in zip(said, fires)) / len(fires)


def interpret(
    explaining: Contexts,
    detecting: Contexts,
    words: Words,
    complete: Complete,
    *,
    generator: Generator,
    n: int = 10,
) -> JudgedInterpretation:
    """Explanations and their scores from a judge: one call for all explanations, one for all detections.

    `explaining` and `detecting` are contexts of the same latents from different rows. Raises UserError for a judge that
    gives another number of texts than there are prompts.
    """
    prompts = explanation_prompts(explaining, words, n=n)
    explanations = {
        prompt.latent: text.strip()
        for prompt, text in zip(prompts, _completed(complete, [each.prompt for each in prompts]))
    }
    detections = detection_prompts(explanations, detecting, words, generator=generator, n=n)
    texts = _completed(complete, [each.prompt.prompt for each in detections])
    answers = {each.prompt.id: text for each, text in zip(detections, texts)}
    return judged(detections, answers, explanations)


def _completed(complete: Complete, prompts: Sequence[str]) -> Sequence[str]:
    texts = complete(prompts)
    if len(texts) != len(prompts):
        raise UserError(f"A judge was given {len(prompts)} prompts. It gave {len(texts)} texts; give one for each.")
    return texts


def prompt_lines(prompts: Iterable[Prompt]) -> bytes:
    """Prompts as JSONL: id, task, latent, prompt. Answers come back with id and answer (`read_answers`)."""
    return _lines(each._asdict() for each in prompts)


def key_lines(detections: Iterable[Detection]) -> bytes:
    """What scores need beside the answers, as JSONL, to be kept from the judge."""
    return _lines({**each.prompt._asdict(), "fires": each.fires, "is_null": each.is_null} for each in detections)


def read_key(path: Path | str) -> list[Detection]:
    """Detections from the file of `key_lines`."""
    return [
        Detection(
            Prompt(*(record[name] for name in Prompt._fields)),
            tuple(map(bool, record["fires"])),
            bool(record["is_null"]),
        )
        for record in _records(path, (*Prompt._fields, "fires", "is_null"))
    ]


def read_answers(path: Path | str) -> dict[str, str]:
    """Answers by id, from JSONL with `id` and `answer`. Raises UserError for lines that have neither."""
    return {str(record["id"]): str(record["answer"]) for record in _records(path, ("id", "answer"))}


def explanations_of(answers: Mapping[str, str]) -> dict[int, str]:
    """Latent -> explanation, from answers to explanation prompts."""
    return {int(name.partition("/")[2]): text.strip() for name, text in answers.items() if name.startswith("explain/")}


def _lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def _records(path: Path | str, needed: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"Line {number} of {path} is no JSON: {line[:60]!r}. Write one object on each line."
            ) from error
        missing = [name for name in needed if not isinstance(record, dict) or name not in record]
        if missing:
            raise UserError(f"Line {number} of {path} lacks {', '.join(missing)}. Each needs {', '.join(needed)}.")
        found.append(record)
    return found
