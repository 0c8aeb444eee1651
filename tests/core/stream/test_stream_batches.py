"""Batches: every token once an epoch, the same batch however one came to it, and the buffer as it was stated."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from letters import random_rows, reader
from micrographia.core.errors import BadConfig, BadShape, NonFiniteActivations, UserError
from micrographia.core.events import Note
from micrographia.core.sites import Site
from micrographia.core.stream.batches import ActivationStream, Reading, as_reading, batches_of
from micrographia.core.stream.harvest import Harvested, Kept
from micrographia.core.stream.mixing import Mixer
from micrographia.core.stream.schedule import WindowSchedule, blocks_for, capacity, most_blocks

ID = Site("embed")


class Numbered:
    """A supply whose activation is the number of its token; it counts the rows it was asked for."""

    def __init__(self, counts, bad=()):
        self.counts = torch.tensor(counts)
        self.first = self.counts.cumsum(0) - self.counts
        self.bad = torch.tensor(sorted(bad), dtype=torch.long)
        self.asked = []

    def count(self):
        return self.counts

    def kinds(self):
        return {ID: Kept(1, torch.float64, torch.device("cpu"))}

    def passes(self, which, sites=None):
        self.asked += which.tolist()
        for rows in which.split(3):
            of = [torch.arange(int(self.counts[row])) + self.first[row] for row in rows]
            number = torch.cat(of)
            bad = torch.isin(number, self.bad)
            yield Harvested(
                {ID: number.double()[:, None]}, rows.repeat_interleave(self.counts[rows]), bad if bad.any() else None
            )


def numbers(mixer, step):
    return mixer.values[ID][mixer.slots(step), 0].long().tolist()


def mixer_of(supply, batch, n_blocks, seed=0):
    schedule = WindowSchedule(supply.counts, batch, n_blocks, seed)
    slots = capacity(schedule.total, batch, int(supply.counts.max()), n_blocks)
    return Mixer(supply, schedule, {ID: torch.full((slots, 1), torch.nan).double()}, torch.zeros(slots).long())


@st.composite
def supplies(draw):
    counts = draw(st.lists(st.integers(0, 6), min_size=1, max_size=40).filter(lambda counts: sum(counts) > 0))
    batch = draw(st.integers(1, min(9, sum(counts))))
    most = most_blocks(sum(counts), batch, max(counts))
    return counts, batch, draw(st.integers(1, most)), draw(st.integers(0, 3))


@given(supplies())
def test_every_token_comes_once_an_epoch(given_):
    counts, batch, n_blocks, seed = given_
    mixer, total = mixer_of(Numbered(counts), batch, n_blocks, seed), sum(counts)
    served = [number for step in range(batch) for _ in [0] for number in numbers(mixer, step)]  # batch * batch tokens
    epochs = len(served) // total
    once = [number for step in range(total) for number in numbers(mixer, step)]  # batch epochs, to the token
    assert set(Counter(once).values()) == {batch}
    assert max(Counter(served).values()) <= epochs + 2
    first = [number for step in range(total // batch) for number in numbers(mixer, step)]
    assert len(set(first)) == len(first) == total // batch * batch  # within the first epoch none twice


@given(supplies(), st.data())
def test_a_batch_does_not_depend_on_the_steps_before_it(given_, data):
    counts, batch, n_blocks, seed = given_
    through = mixer_of(Numbered(counts), batch, n_blocks, seed)
    last = 2 * sum(counts) // batch
    wanted = [numbers(through, step) for step in range(last)]
    jumping = mixer_of(Numbered(counts), batch, n_blocks, seed)
    for step in data.draw(st.lists(st.integers(0, last - 1), min_size=1, max_size=5)):
        assert numbers(jumping, step) == wanted[step]


@given(supplies(), st.data())
def test_any_step_is_reached_by_reading_two_blocks(given_, data):
    counts, batch, n_blocks, seed = given_
    supply = Numbered(counts)
    mixer = mixer_of(supply, batch, n_blocks, seed)
    step = data.draw(st.integers(0, 3 * sum(counts) // batch))
    window = mixer.schedule.window(step)
    before = mixer.schedule.before(window)
    numbers(mixer, step)
    wanted = window.rows.tolist()
    if before is not None and window.n_carried:
        wanted = before.rows.tolist() + wanted
    assert supply.asked == wanted


@given(supplies())
def test_steps_one_after_the_other_read_each_row_once_an_epoch(given_):
    counts, batch, n_blocks, seed = given_
    supply = Numbered(counts)
    mixer = mixer_of(supply, batch, n_blocks, seed)
    for step in range(sum(counts) // batch):
        numbers(mixer, step)
    assert sorted(supply.asked) == list(range(len(counts)))


@given(st.integers(1, 10**6), st.integers(1, 5000), st.integers(1, 1024), st.integers(1, 10**6))
def test_the_blocks_that_fit_into_a_buffer_fit(total, batch, longest, room):
    n_blocks = blocks_for(room, total, batch, longest)
    if n_blocks is not None:
        assert capacity(total, batch, longest, n_blocks) <= room
        assert n_blocks == 1 or n_blocks <= most_blocks(total, batch, longest)


def test_seeds_and_epochs_differ():
    def first(seed, step=0):
        return numbers(mixer_of(Numbered([5] * 40), 50, 1, seed), step)

    assert len({tuple(first(0)), tuple(first(1)), tuple(first(0, step=4))}) == 3


def test_tokens_of_a_window_are_mixed_over_two_blocks():
    mixer = mixer_of(Numbered([4] * 100), 20, 5)
    window = mixer.schedule.window(10)
    own = set(window.rows.tolist())
    rows = [row for step in range(window.first_step, window.first_step + window.n_steps)
            for row in mixer.row[mixer.slots(step)].tolist()]  # fmt: skip
    share = sum(row in own for row in rows) / len(rows)
    assert 0.3 < share < 0.7


def test_bad_tokens_are_replaced_by_others_of_their_block():
    clean, supply = mixer_of(Numbered([5] * 20), 10, 2), Numbered([5] * 20, bad={3, 40, 41})
    mixer = mixer_of(supply, 10, 2)
    for step in range(10):
        found, wanted = numbers(mixer, step), numbers(clean, step)
        changed = [i for i in range(10) if found[i] != wanted[i]]
        assert {wanted[i] for i in changed} == {3, 40, 41} & set(wanted)
        assert not {3, 40, 41} & set(found)


def test_a_block_of_bad_tokens_alone_is_an_error():
    with pytest.raises(NonFiniteActivations, match="all 10 of a block"):
        numbers(mixer_of(Numbered([5, 5], bad=range(10)), 5, 1), 0)


def test_an_error_in_between_leaves_no_half_of_a_window():
    supply = Numbered([5] * 20)
    wanted = [numbers(mixer_of(Numbered([5] * 20), 10, 2), step) for step in range(10)]
    mixer = mixer_of(supply, 10, 2)
    assert numbers(mixer, 0) == wanted[0]
    whole = supply.passes

    def breaking(which, sites):
        yield next(iter(whole(which)))
        raise KeyboardInterrupt

    supply.passes = breaking
    with pytest.raises(KeyboardInterrupt):
        numbers(mixer, 9)
    supply.passes = whole
    assert [numbers(mixer, step) for step in range(10)] == wanted


# With a model.

SMALL = {"batch": 20, "buffer_bytes": 20_000}


def test_a_stream_begun_at_a_step_is_one_that_ran_through_bit_for_bit():
    model, rows = reader(), random_rows(120)
    through = ActivationStream(model, ["L0.mlp_out", "L1.resid_post"], rows, **SMALL)
    assert through.plan.blocks_an_epoch > 3
    batches = [through(step).x for step in range(30)]
    assert batches[0].shape == (2, 20, 10)
    for step in (29, 7, 8, 21):
        fresh = ActivationStream(model, ["L0.mlp_out", "L1.resid_post"], rows, **SMALL)
        assert torch.equal(fresh(step).x, batches[step])


def test_a_batch_holds_activations_of_the_model():
    model, rows = reader(), random_rows(40)
    stream = ActivationStream(model, "L1.resid_post", rows, **SMALL)
    every = model.run(rows[:], keep=["L1.resid_post"]).cache["L1.resid_post"]
    x, row = stream(2).x, stream.rows(2)
    for each, i in zip(x, row):
        assert (every[i] - each).abs().amax(-1).min() < 1e-5


def test_members_read_the_same_tokens():
    model, rows = reader(), random_rows(40)
    members = ["L0.mlp_out", ("L0.mlp_norm", "L0.mlp_out"), Reading((Site("resid_post", 0), Site("resid_post", 1)))]
    stream = ActivationStream(model, members, rows, batch=20)
    plain, transcoder, crosscoder = stream.by_member(3)
    assert torch.equal(plain.x, transcoder.target)
    assert plain.target is None
    assert crosscoder.x.shape == (20, 20)
    with pytest.raises(BadShape, match=r"L0.mlp_norm -> L0.mlp_out: 10, L0.resid_post\+L1.resid_post: 20"):
        stream(3)
    assert torch.equal(stream.only(0)(3).x, plain.x)
    only = ActivationStream(model, [("L0.mlp_norm", "L0.mlp_out"), ("L1.mlp_norm", "L1.mlp_out")], rows, batch=20)(3)
    assert only.x.shape == only.target.shape == (2, 20, 10)


def test_a_pattern_is_a_member_each():
    stream = ActivationStream(reader(), ["L*.resid_post", "embed"], random_rows(40), **SMALL)
    assert [each.source for each in stream.members] == [(Site("resid_post", 0),), (Site("resid_post", 1),), (ID,)]


def test_batches_are_float32_at_least_and_the_buffer_as_asked():
    model, rows = reader(), random_rows(40)
    half = ActivationStream(model, "L0.mlp_out", rows, dtype=torch.bfloat16, **SMALL)
    whole = ActivationStream(model, "L0.mlp_out", rows, batch=20, buffer_bytes=20_000)
    assert half(0).x.dtype == torch.float32
    assert half.plan.held
    assert whole.plan.held
    kept = whole.plan.n_tokens + whole.plan.tokens_an_epoch
    assert half.plan.memory_bytes / kept == whole.plan.memory_bytes / kept - 20
    assert ActivationStream(reader(torch.float64), "embed", rows, **SMALL)(0).x.dtype == torch.float64


def test_the_buffer_is_said_and_kept_to():
    heard = []
    stream = ActivationStream(reader(), "L0.mlp_out", random_rows(200), **SMALL, steps=100, watch=heard.append)
    plan = stream.plan
    assert plan.memory_bytes <= 20_000
    assert heard[0] == Note(f"{plan} 100 steps are {plan.passes(100):.2g} passes.")
    assert "kB of memory for" in heard[0].text
    assert heard[1].text.startswith("Left out: 1 special token (0)")


def test_too_little_text_or_buffer_is_said():
    with pytest.raises(UserError, match=r"Asked for batches of 500 tokens; all 40 rows have \d+ that count"):
        ActivationStream(reader(), "embed", random_rows(40), batch=500)
    with pytest.raises(BadConfig, match=r"batches of 20 need .* kB"):
        ActivationStream(reader(), "embed", random_rows(400), batch=20, buffer_bytes=1000)
    with pytest.raises(BadConfig, match="count from 0"):
        ActivationStream(reader(), "embed", random_rows(40), **SMALL)(-1)
    with pytest.raises(BadConfig, match="A block holds two batches at least"):
        WindowSchedule(torch.tensor([10, 10]), 4, 5, 0)
    with pytest.raises(UserError, match="Give a site"):
        as_reading(("embed", "L0.z", "L1.z"))
    with pytest.raises(UserError, match="at no site"):
        ActivationStream(reader(), [], random_rows(40))


@given(st.integers(3, 30), st.integers(1, 3))
def test_batches_of_activations_at_hand_hold_each_once_an_epoch(n, batch):
    x = torch.arange(n, dtype=torch.float64)[:, None]
    batches = batches_of(x, batch=batch, target=2 * x)
    found = torch.cat([batches(step).x for step in range(n)]).flatten()
    assert torch.equal(found.sort().values, torch.arange(n).repeat_interleave(batch).double())
    assert torch.equal(batches(1).target, 2 * batches(1).x)
    assert torch.equal(batches_of(x, batch=batch)(n - 1).x, batches(n - 1).x)


def test_a_batch_larger_than_what_is_at_hand_is_refused():
    with pytest.raises(UserError, match="batches of 5 of 4 tokens"):
        batches_of(torch.zeros(4, 2), batch=5)


def test_a_text_that_fits_twice_is_read_by_the_model_once():
    """Whichever step comes first; the batches are those of a buffer in which it fits once, but for rounding."""
    rows, read = random_rows(40), []

    def passes(model, stream):
        run = model.run

        def counted(inputs, **how):
            read.append(len(inputs))
            return run(inputs, **how)

        model.run = counted
        return [stream(step).x for step in (0, 7, 30, 3, 31)]

    fitting = ActivationStream(model := reader(), "L0.mlp_out", rows, batch=20, buffer_bytes=20_000)
    found = passes(model, fitting)
    assert sum(read) == 40
    later = ActivationStream(reader(), "L0.mlp_out", rows, batch=20, buffer_bytes=20_000)
    assert all(torch.equal(one, later(step).x) for one, step in zip(found[::-1], (31, 3, 30, 7, 0)))
    once = ActivationStream(reader(), "L0.mlp_out", rows, batch=20, buffer_bytes=9_100)
    assert (once.plan.held, once.plan.blocks_an_epoch) == (False, 1)
    for one, step in zip(found, (0, 7, 30, 3, 31)):
        torch.testing.assert_close(one, once(step).x)
