"""What a pretrained model knows of relations, forward and inverse, and where in it an attribute is looked up.

Every relation is asked with examples and without. Of those with few answers the model is looked into: probes before the
question, MLPs and attention ablated at the subject, the subject's state taken from another text, heads that extract.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from micrographia.core.claims import Measured
from micrographia.core.errors import BadPrompt, UserError
from micrographia.core.events import Note, Watch, renamed, silent
from micrographia.core.fact_files import read_athletes, read_known, relation_of
from micrographia.core.figures import Figure
from micrographia.core.lab import Findings
from micrographia.core.load import load_any
from micrographia.core.pretrained.model import Pretrained
from micrographia.core.prompts import LanguageModel
from micrographia.core.relations import WrittenRelation, chosen, read_relations, shipped
from micrographia.core.runtime import batch_generator
from micrographia.core.store import RunFolder
from micrographia.labs.facts.known.asked import RecalledFacts, SubjectPrompts, accuracy, known_of
from micrographia.labs.facts.known.config import KnownFacts
from micrographia.labs.facts.known.figures import (
    ablated_figure,
    heads_table,
    readable_figure,
    recall_table,
    replaced_figure,
)
from micrographia.labs.facts.known.heads import Extraction, extraction
from micrographia.labs.facts.known.lookup import Ablated, ReplacedLayer, ablated, replaced
from micrographia.labs.facts.known.readable import Readable, readable
from micrographia.methods.recall import Recall, recall
from micrographia.methods.sink import Sink, find_sink

MISSES = 10
FEW_ANSWERS = 12
"""Relations with at most so many answers are looked into, unless they are named."""
TABLE, INSIDE, CHOICE, HALVES = range(4)
"""Numbers of the generators."""


class LookedInto(NamedTuple):
    """What was found of one relation."""

    known: RecalledFacts
    whole: float
    readable: Readable
    ablated: list[Ablated]
    replaced: list[ReplacedLayer]
    heads: Extraction


def study(config: KnownFacts, folder: RunFolder, watch: Watch = silent) -> Findings:
    """Ask a model for relations and look into those of which enough is known; the others are told in a Note.

    Raises what loading does, BadPrompt for relations that cannot be read, UserError for a named relation of which too
    little is known, and for a model that does not read text from left to right.
    """
    relations = relations_of(config)
    model = language_model(config, watch)
    asked, notes = table(config, model, relations, watch)
    found, skipped = dict[str, LookedInto](), list[str]()
    for relation in relations:
        if relation.name in config.looked_into or (not config.looked_into and len(relation.answers) <= FEW_ANSWERS):
            try:
                found[relation.name] = look_into(config, model, relation, watch)
            except UserError as error:  # too little known of it, which the error says
                if config.looked_into:
                    raise
                skipped.append(str(error))
    for note in (*notes, *skipped):
        watch(Note(note, "warning"))
    sink = find_sink(model, model.to_tokens(asked[0].questions[0].prompt)) if asked else None
    rows = [each.row() for each in asked]
    results: dict[str, Any] = {
        "title": f"What {config.model} knows, and where it looks it up",
        "recall": rows,
        "sink": None if sink is None else sink.as_json(),
        "looked_into": {name: entry(each) for name, each in found.items()},
        "not_looked_into": [*notes, *skipped],
    }
    shown = [recall_table(config.model, rows), *(each for name, it in found.items() for each in pictures(name, it))]
    return Findings(results, shown, measures(asked, found), {}, opening(config, asked, found, sink))


def relations_of(config: KnownFacts) -> tuple[WrittenRelation, ...]:
    """Those of the config: in a published layout, or the package's own."""
    if not config.relations:
        return shipped(config.named)
    place = Path(config.relations)
    if place.suffix.lower() == ".csv":
        return chosen((relation_of(read_athletes(place)),), config.named)
    if place.is_file() and '"relation_id"' in place.read_text(encoding="utf-8", errors="replace"):
        facts = read_known(place)
        forms = {}
        for each in facts:
            forms.setdefault((each.relation, relation_of([each]).templates[0]), []).append(each)
        return chosen(tuple(relation_of(own, f"{name}: {form}") for (name, form), own in forms.items()), config.named)
    return chosen(read_relations(place), config.named)


def language_model(config: KnownFacts, watch: Watch = silent) -> LanguageModel:
    """Raises UserError for a model without text, or that reads in both directions."""
    model = load_any(config.model, dtype="float32", device=config.device, watch=watch)
    if not isinstance(model, Pretrained) or model.tokenizer is None or not model.shape.causal:
        raise UserError(
            f"Asked for the facts that {config.model} knows, which has no tokenizer or does not read from left to "
            "right. Give a causal language model with its tokenizer."
        )
    return model


def table(
    config: KnownFacts, model: LanguageModel, relations: tuple[WrittenRelation, ...], watch: Watch
) -> tuple[list[Recall], list[str]]:
    """Every relation and its inverse, bare and with examples; and why some were not asked."""
    found, notes = list[Recall](), list[str]()
    for relation in relations:
        for each in (relation, relation.turned()) if relation.inverse else (relation,):
            for shots in dict.fromkeys((0, config.shots)):
                try:
                    random = batch_generator(config.seed, TABLE)
                    found.append(recall(model, each, shots=shots, generator=random, watch=renamed(watch, "ask")))
                except BadPrompt as error:  # too few facts, which the error says
                    notes.append(str(error))
    if not found:
        raise BadPrompt(f"No relation could be asked. {notes[0]}")
    return found, notes


def look_into(config: KnownFacts, model: LanguageModel, relation: WrittenRelation, watch: Watch) -> LookedInto:
    """All that is measured inside, on the facts that the model knows with a few examples."""
    random = batch_generator(config.seed, INSIDE)
    known = known_of(recall(model, relation, shots=config.inside_shots, generator=random))
    read = readable(
        model,
        known,
        every=config.every,
        splits=config.known_splits,
        steps=config.probe_steps,
        seed=config.seed,
        watch=watch,
    )
    drawn = torch.randperm(len(known.label), generator=batch_generator(config.seed, CHOICE))[: config.facts]
    few = known.some(drawn.sort().values)
    prompts = SubjectPrompts.of(model, few)
    return LookedInto(
        known,
        accuracy(prompts.answers(), few.label),
        read,
        ablated(prompts, few, config.window, watch),
        replaced(prompts, few, list(range(0, model.shape.n_layers, config.every)), watch),
        extraction(prompts, few, batch_generator(config.seed, HALVES)),
    )


def entry(found: LookedInto) -> dict[str, Any]:
    """What is stored of it."""
    read = found.readable._asdict()
    plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in read.items()}
    return {
        "facts": len(found.known.label),
        "answers": list(found.known.answers),
        "accuracy": found.whole,
        "readable": {**plain, "accuracy": {form: x.tolist() for form, x in found.readable.accuracy.items()}},
        "ablated": [each._asdict() for each in found.ablated],
        "replaced": [each._asdict() for each in found.replaced],
        "heads": [each._asdict() for each in found.heads.heads],
        "heads_chance": found.heads.chance,
        "heads_median": float(found.heads.all_probes.flatten().median()),
    }


def pictures(name: str, found: LookedInto) -> list[Figure]:
    return [
        readable_figure(name, found.readable),
        ablated_figure(name, found.whole, found.ablated),
        replaced_figure(name, found.replaced),
        heads_table(name, found.heads),
    ]


def measures(asked: list[Recall], found: dict[str, LookedInto]) -> dict[str, Measured]:
    """Figures for the claims: means over the relations that were looked into, each with its null."""
    bare = [each for each in asked if each.shots == 0]
    shots = [each for each in asked if each.shots > 0]
    measured = {
        "known-bare-misses": Measured(one_word(bare), one_word(shots)),
        "known-recall": Measured(
            min((each.closed.estimate for each in shots), default=None),
            max((each.commonest for each in shots), default=None),
        ),
    }
    if found:
        best = [float(each.readable.accuracy["neutral"].max()) for each in found.values()]
        floors = [
            max(each.readable.commonest, each.readable.embeddings, each.readable.last_token, each.readable.first_token)
            for each in found.values()
        ]
        above = [one - floor for one, floor in zip(best, floors, strict=True)]
        measured["known-readable"] = Measured(sum(above) / len(above), sum(floors) / len(floors))
        heads = [each.heads.heads[0].probe for each in found.values()]
        nulls = [max(float(each.heads.all_probes.flatten().median()), each.heads.chance) for each in found.values()]
        measured["known-heads"] = Measured(sum(heads) / len(heads), sum(nulls) / len(nulls))
    return measured


def _how(shots: int) -> str:
    return f"behind {shots} examples" if shots else "without examples"


def _least_most(asked: list[Recall], *, closed: bool = False) -> str:
    """The lowest and the highest accuracy of these."""
    found = sorted((each.closed if closed else each.top1).estimate for each in asked)
    return f"{found[0]:.0%} to {found[-1]:.0%}"


def one_word(asked: list[Recall]) -> float | None:
    """The largest share of a relation's misses that one word takes; of relations with MISSES or more."""
    missed = (each for each in asked if int((~each.right).sum()) >= MISSES)
    return max((each.commonest_miss[1] for each in missed), default=None)


def opening(config: KnownFacts, asked: list[Recall], found: dict[str, LookedInto], sink: Sink | None) -> list[str]:
    """What was found, in words."""
    lines = [
        f"Of {len(own)} relations asked {_how(shots)} the model's first choice is right in {_least_most(own)}; among "
        f"a relation's answers it picks the right one in {_least_most(own, closed=True)}."
        for shots in dict.fromkeys(each.shots for each in asked)
        for own in [[each for each in asked if each.shots == shots]]
    ]
    lines += [] if sink is None else [f"{sink} Subjects stand behind examples or other words, so it is not theirs."]
    for name, each in found.items():
        read = each.readable
        best = int(read.accuracy["neutral"].argmax())
        lines.append(
            f"{name}: read at the subject before it is asked for, best after layer {read.layers[best]}: "
            f"{read.accuracy['neutral'][best]:.0%} (commonest answer {read.commonest:.0%}, summed embeddings "
            f"{read.embeddings:.0%}, same last token {read.last_token:.0%}, shuffled {read.shuffled[best]:.0%}, "
            f"without training {read.untrained[best]:.0%}). "
            f"Best head L{each.heads.heads[0].layer}H{each.heads.heads[0].head}: "
            f"its weights tell {each.heads.heads[0].probe:.0%} of other facts."
        )
    return lines
