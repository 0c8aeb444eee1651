"""The language: what occurs, what is held out, and that a batch depends on seed and step alone."""

from itertools import pairwise

import pytest
import torch
from torch import Generator

from micrographia.labs.ioi.grammar import (
    ABC_SHARE,
    BOS,
    CLASSES,
    IDS,
    IOI_FRAMES,
    NAMES,
    PARTS,
    PROMPT_SPAN,
    PRONOUNS,
    SHARES,
    SLOTS,
    TEMPLATES,
    UNREPEATED,
    WORDS,
    Sentences,
    batch,
    draw_sentences,
    draw_slots,
    table,
    tokenizer,
    vocabulary,
    word_ids,
)
from micrographia.labs.ioi.task import BEHAVIOURS

N = 4000


def drawn(seed: int = 0, n: int = N):
    return draw_sentences(n, Generator().manual_seed(seed))


def slot(slots: torch.Tensor, name: str) -> torch.Tensor:
    return slots[:, SLOTS.index(name)]


def place(ids: torch.Tensor, kind: str) -> torch.Tensor:
    return ids - word_ids(kind)[0]


def text(tokens: torch.Tensor) -> str:
    return tokenizer().decode(tokens.tolist())


def test_every_word_stands_once_and_bos_is_first():
    assert len(set(WORDS)) == len(WORDS) < 300
    assert WORDS[0] == BOS
    assert tokenizer().decode(tokenizer().encode("When Mary and John")) == "When Mary and John"


def test_every_class_can_be_held_out_by_remainder():
    assert all(len(members) % PARTS == 0 for members in CLASSES.values())
    assert all(set(word_ids(kind).tolist()) == {IDS[word] for word in CLASSES[kind]} for kind in CLASSES)


def test_every_slot_of_every_template_is_known():
    named = {word[1:-1] for template in TEMPLATES for word in template.words if word.startswith("{")}
    assert named == set(SLOTS)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_behaviour_comes_in_its_share(behaviour):
    found = [TEMPLATES[i].behaviour == behaviour for i in drawn().template.tolist()]
    assert sum(found) / N == pytest.approx(SHARES[behaviour], abs=0.03)


def test_three_names_come_in_their_share_of_ioi():
    forms = [TEMPLATES[i].form for i in drawn().template.tolist() if TEMPLATES[i].behaviour == "ioi"]
    assert sum(form.startswith("abc") for form in forms) / len(forms) == pytest.approx(ABC_SHARE, abs=0.03)
    assert forms.count("ABBA") / forms.count("BABA") == pytest.approx(1, abs=0.2)


def test_sentences_read_as_they_should():
    index = {(t.behaviour, t.frame, t.form): i for i, t in enumerate(TEMPLATES)}
    words = {"IO": "Mary", "S": "John", "C": "Tom", "place": "shop", "object": "drink", "N": "Tom", "she": "he"}
    words |= {"trait": "great", "job": "friend", "event": "war", "XX": "17", "YY": "32", "later": "45"}
    words |= {f"r{i}": w for i, w in enumerate(["one", "two", "three"])}
    slots = torch.tensor([[IDS.get(words.get(name, ""), 0) for name in SLOTS]])

    def read(*key: object) -> str:
        i = torch.tensor([index[key]])
        return text(Sentences(i, slots).tokens[0, : table().lengths[i[0]]])

    assert read("ioi", 0, "ABBA") == "When Mary and John went to the shop , John gave a drink to Mary ."
    assert read("ioi", 0, "BABA") == "When John and Mary went to the shop , John gave a drink to Mary ."
    assert read("ioi", 0, "abc-BABA") == "When John and Mary went to the shop , Tom gave a drink to Mary ."
    assert read("pronoun", 0, "") == "So Tom is a really great friend , isn't he ?"
    assert read("greater", 0, "") == "The war lasted from the year 17 32 to the year 17 45 ."


@pytest.mark.parametrize("held_out", [False, True])
def test_pairs_are_held_out_together_or_not_at_all(held_out):
    frame = torch.arange(N) % len(IOI_FRAMES)
    slots = draw_slots(frame, Generator().manual_seed(1), held_out=held_out)
    sums = {
        "names": place(slot(slots, "IO"), "name") + place(slot(slots, "S"), "name"),
        "objects": place(slot(slots, "object"), "object") + frame,
        "jobs": place(slot(slots, "job"), "job") + place(slot(slots, "N"), "name"),
        "years": place(slot(slots, "YY"), "number") + place(slot(slots, "event"), "event"),
    }
    for name, total in sums.items():
        assert bool((total % PARTS == 0).all() if held_out else (total % PARTS != 0).all()), name


@pytest.mark.parametrize("held_out", [False, True])
def test_slots_keep_their_rules(held_out):
    slots = draw_slots(torch.zeros(N, dtype=torch.long), Generator().manual_seed(2), held_out=held_out)
    names = torch.stack([slot(slots, name) for name in ("IO", "S", "C")])
    assert bool((names[0] != names[1]).all() & (names[0] != names[2]).all() & (names[1] != names[2]).all())
    assert bool((slot(slots, "later") > slot(slots, "YY")).all())
    assert int(slot(slots, "later").max()) <= IDS["99"]
    pronouns = [PRONOUNS[i % 2] for i in place(slot(slots, "N"), "name").tolist()]
    assert [WORDS[i] for i in slot(slots, "she").tolist()] == pronouns
    span = slots[:, SLOTS.index("r0") :]
    assert all(len(set(row)) == len(row) for row in span.tolist())
    assert not {IDS[word] for word in UNREPEATED} & set(span.flatten().tolist())


def test_every_name_and_every_year_is_learned_about():
    slots = draw_slots(torch.zeros(N, dtype=torch.long), Generator().manual_seed(3))
    assert len(slot(slots, "IO").unique()) == len(slot(slots, "S").unique()) == len(NAMES)
    assert len(slot(slots, "YY").unique()) == 98


def test_a_context_is_bos_and_sentences_end_to_end():
    found = batch(0, 0, rows=16, n_ctx=32)
    assert found.tokens.shape == found.scored.shape == (16, 32)
    assert bool((found.tokens[:, 0] == IDS[BOS]).all())
    assert not bool((found.tokens[:, 1:] == IDS[BOS]).any())
    starts = {template.words[0] for template in TEMPLATES if not template.words[0].startswith("{")}
    for row in found.tokens:
        words = text(row).split()[1:]
        for before, after in pairwise(words):
            if before in (".", "?"):
                assert after in starts | set(vocabulary()) - set(UNREPEATED)


def test_random_words_are_not_scored_and_all_others_are():
    drawn_ = drawn(n=500)
    scored = table().scored[drawn_.template]
    for i, row in zip(drawn_.template.tolist(), scored):
        template = TEMPLATES[i]
        silent = template.frame if template.behaviour == "induction" else 0
        assert row.tolist()[: len(template.words)] == [j >= silent for j in range(len(template.words))]


def test_a_piece_repeats_words_of_its_span():
    for template in TEMPLATES:
        if template.behaviour == "induction":
            span, rest = template.words[: template.frame], template.words[template.frame : -1]
            assert set(rest) <= set(span)
            assert len(rest) >= 2
    assert any(t.frame == PROMPT_SPAN for t in TEMPLATES if t.behaviour == "induction")


def test_a_batch_is_a_function_of_seed_and_step():
    first, again = (batch(3, 7, rows=4, n_ctx=32).tokens for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, batch(3, 8, rows=4, n_ctx=32).tokens)
    assert not torch.equal(first, batch(4, 7, rows=4, n_ctx=32).tokens)


def test_a_batch_does_not_touch_the_global_generator():
    before = torch.get_rng_state()
    batch(0, 0, rows=4, n_ctx=32)
    assert torch.equal(before, torch.get_rng_state())
