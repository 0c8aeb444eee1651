"""Spliced losses against one edited run a row, position by position; the table that `evaluate` makes of it all."""

import json
import math

import pytest
import torch
from made import dictionary
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.edits import apply, put, splice
from micrographia.core.errors import BadShape, UnknownSite, UserError
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.small.transformer import Transformer
from micrographia.core.store import json_bytes
from micrographia.core.tokens import Batch, Vocabulary
from micrographia.methods.dictionaries.evaluation import spliced
from micrographia.methods.dictionaries.evaluation.evaluate import LINEAR, OURS, RANDOM, evaluate
from micrographia.methods.dictionaries.evaluation.metrics import measure
from micrographia.methods.dictionaries.evaluation.reading import Counted, ReadWrite, counted_by, place_for
from micrographia.methods.dictionaries.evaluation.spliced import MEAN, ZERO, splice_losses
from small import A_FEW, small_model
from tiny_families import tiny

SPECIAL = 2
COUNTED = Counted(special=(SPECIAL,))


def tokens(n: int = 6) -> Tensor:
    return torch.randint(0, 6, (n, 4), generator=generator(4))


def model(name: str = "plain-2") -> Transformer:
    return small_model(A_FEW[name], dtype=torch.float64)


def flat(value: Tensor) -> Tensor:
    return value.flatten(2) if value.ndim > 3 else value


def plainly(of: Transformer, one: Dictionary, read: Site, write: Site, mean: Tensor) -> dict[str, list[float]]:
    """(loss, KL) sums by replacement: each row and position in turn, with an edit of single positions."""
    sums: dict[str, list[float]] = {name: [] for name in ("clean", "ours", "zero", "mean", "kl", "kl_zero")}
    for row in tokens():
        ids = row[None]
        run = of.run(ids, keep=[read, write])
        x, y = run.cache[read], run.cache[write]
        logits = {"clean": run.logits}
        for name in ("ours", "zero", "mean"):
            edits = []
            for pos in range(1, 4):
                if row[pos] == SPECIAL:
                    continue
                made = {
                    "ours": one.reconstruct(flat(x)[0, pos]),
                    "zero": torch.zeros(flat(y).shape[-1], dtype=torch.float64),
                    "mean": mean,
                }[name]
                edits.append(put(write, made.reshape(y[0, pos].shape), batch=0, pos=pos))
            logits[name] = of.run(ids, edits=edits).logits
        p = {name: each.log_softmax(-1)[0] for name, each in logits.items()}
        for pos in range(1, 3):
            following = int(row[pos + 1])
            if SPECIAL in (int(row[pos]), following):
                continue
            for name in ("clean", "ours", "zero", "mean"):
                sums[name].append(-float(p[name][pos, following]))
            for name, other in (("kl", "ours"), ("kl_zero", "zero")):
                sums[name].append(float((p["clean"][pos].exp() * (p["clean"][pos] - p[other][pos])).sum()))
    return sums


PLACES = [
    ("L0.resid_post", "L0.resid_post"),
    ("L1.z", "L1.z"),
    ("embed", "embed"),
    ("L1.resid_pre", "L1.mlp_out"),
    ("L0.resid_mid", "L1.mlp_out"),
]


@pytest.mark.parametrize(("read", "write"), PLACES)
def test_losses_are_those_of_edited_runs_one_by_one(read: str, write: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spliced, "LOGITS_AT_ONCE", 13)  # two predictions at once
    of, sites = model(), ReadWrite(Site.parse(read), Site.parse(write))
    d = 12 if "z" in read else 10
    one = dictionary(d=d, d_out=None if read == write else 10)
    mean = torch.randn(d if read == write else 10, generator=generator(9), dtype=torch.float64)
    expected = plainly(of, one, *sites, mean)
    assert len(expected["clean"]) > 4
    ours = {"ours": lambda x, y: one.reconstruct(x)}
    found = splice_losses(of, sites, tokens(), ours, mean, COUNTED, tokens_at_once=8)
    n = len(expected["clean"])
    average = {name: sum(values) / n for name, values in expected.items()}
    assert found.n_tokens == n
    assert found.clean_loss == pytest.approx(average["clean"])
    row = found.of("ours")
    assert row.loss == pytest.approx(average["ours"])
    assert row.delta_loss == pytest.approx(average["ours"] - average["clean"])
    assert row.kl == pytest.approx(average["kl"])
    assert found.of(ZERO).loss == pytest.approx(average["zero"])
    assert found.of(MEAN).loss == pytest.approx(average["mean"])
    assert row.kl_score_zero == pytest.approx(1 - average["kl"] / average["kl_zero"])
    rise = average["zero"] - average["clean"]
    if rise > 0:
        assert row.recovered_zero == pytest.approx((average["zero"] - average["ours"]) / rise)
    else:
        assert math.isnan(row.recovered_zero)


def test_the_whole_activation_put_back_costs_nothing_and_its_absence_all():
    found = splice_losses(
        model(), place_for(dictionary(10), model(), "L1.resid_post"), tokens(), {"same": lambda x, y: x},
        torch.zeros(10), Counted(),
    )  # fmt: skip
    same = found.of("same")
    assert same.delta_loss == pytest.approx(0, abs=1e-12)
    assert same.kl == pytest.approx(0, abs=1e-12)
    assert same.kl_score_zero == pytest.approx(1)
    assert found.of(ZERO).kl_score_zero == 0


def test_what_the_splice_edit_gives_without_its_error_is_what_is_measured():
    of, one = model(), dictionary(10)
    ids = tokens()
    site = Site.parse("L0.resid_post")
    edits = [splice(site, one), apply(site.within("sae", "error"), torch.zeros_like)]
    logits = of.run(ids, edits=edits).logits[:, :-1].log_softmax(-1)
    loss = -logits.gather(-1, ids[:, 1:, None]).mean()
    every = Counted(skip_first=0)
    found = splice_losses(
        of, ReadWrite(site, site), ids, {"ours": lambda x, y: one.reconstruct(x)}, torch.zeros(10), every
    )
    assert found.of("ours").loss == pytest.approx(float(loss))


@pytest.mark.parametrize("kind", ["grouped heads", "norms behind"])
def test_a_pretrained_model_with_padded_rows(kind: str):
    of = tiny(kind)
    ids = torch.randint(1, 31, (4, 9), generator=generator(6))
    mask = torch.ones(4, 9, dtype=torch.bool)
    mask[1, :3] = False
    one = dictionary(16)
    found = evaluate(one, of, "L0.resid_post", Batch(ids, mask), generator=generator(0))
    assert found.metrics.n_tokens == 3 * 8 + 5
    assert found.spliced is not None
    assert found.spliced.n_tokens == 3 * 7 + 4
    alone = evaluate(one, of, "L0.resid_post", ids[1:2, 3:], generator=generator(0))
    rest = evaluate(one, of, "L0.resid_post", ids[[0, 2, 3]], generator=generator(0))
    assert alone.spliced is not None
    assert rest.spliced is not None
    whole = (4 * alone.spliced.of(OURS).loss + 21 * rest.spliced.of(OURS).loss) / 25
    assert found.spliced.of(OURS).loss == pytest.approx(whole, rel=1e-5)


def test_one_table_holds_everything_and_goes_to_json():
    of, one = model(), dictionary(10, site=Site.parse("L0.resid_post"))
    notes: list[object] = []
    found = evaluate(one, of, rows=tokens(40), generator=generator(0), watch=notes.append)
    text = str(found)
    for said in (
        "FVU",
        "SAELens",
        "recovered (zero)",
        "position 0 of each row",
        LINEAR,
        RANDOM,
        "L0.resid_post",
        "looks dead",
    ):
        assert said in text, said
    assert json.loads(json_bytes(found.as_json()))["metrics"]["tokens"] == 120
    assert [each.kind for each in found.figures()] == ["table", "table", "table", "histogram"]
    rows = {row["name"]: row for row in found.comparison()}
    assert rows[MEAN]["fvu"] == 1
    assert rows[OURS]["fvu"] == found.metrics.fvu
    x = of.run(tokens(40), keep=["L0.resid_post"]).cache["L0.resid_post"][:, 1:].flatten(0, 1)
    assert found.metrics.fvu == pytest.approx(measure(one, [x]).fvu)
    assert rows[ZERO]["fvu"] == pytest.approx(float(x.square().sum() / (x - x.mean(0)).square().sum()))
    assert 0 < rows[RANDOM]["fvu"] < 1  # a gain fitted by least squares never loses to the mean
    assert rows[LINEAR]["fvu"] < rows[RANDOM]["fvu"]


def test_a_rerun_is_the_same_and_losses_can_be_left_out():
    of, one = model("normed"), dictionary(10)
    first, again = (evaluate(one, of, "L1.mlp_out", tokens(), generator=generator(3)).as_json() for _ in range(2))
    assert json_bytes(first) == json_bytes(again)
    without = evaluate(one, of, "L1.mlp_out", tokens(), generator=generator(3), loss_rows=0)
    assert without.spliced is None
    assert "Spliced" not in str(without)
    fewer = evaluate(one, of, "L1.mlp_out", tokens(), generator=generator(3), loss_rows=2, baselines=False)
    assert fewer.spliced is not None
    assert {row["name"] for row in fewer.comparison()} == {OURS, MEAN, ZERO}


class Shards:
    """Rows that are read where they are used, and know their special tokens."""

    special = (SPECIAL,)

    def __len__(self) -> int:
        return 40

    def __getitem__(self, which: slice) -> Tensor:
        return tokens(40)[which]


def test_rows_on_disk_are_read_as_those_in_memory():
    of, one = model(), dictionary(10)
    stored = evaluate(one, of, "L0.resid_post", Shards(), generator=generator(0))
    here = evaluate(one, of, "L0.resid_post", tokens(40), generator=generator(0), counted=COUNTED)
    assert json_bytes(stored.as_json()) == json_bytes(here.as_json())


def test_special_tokens_are_those_of_the_tokenizer():
    of = Transformer(model().arch, model().state, Vocabulary(tuple("abcdefg"), bos=0, pad=3))
    assert counted_by(of) == Counted(special=(0, 3))
    assert COUNTED.mask(torch.tensor([[1, SPECIAL, 1]])).tolist() == [[False, False, True]]


def test_what_does_not_fit_is_refused():
    of, one = model(), dictionary(10)
    g = generator(0)
    with pytest.raises(BadShape, match="reads 10 numbers"):
        evaluate(one, of, "L0.neurons", tokens(), generator=g)
    with pytest.raises(UnknownSite, match="does not know its own"):
        evaluate(one, of, rows=tokens(), generator=g)
    with pytest.raises(UnknownSite):
        evaluate(one, of, "L7.resid_post", tokens(), generator=g)
    with pytest.raises(UserError, match="Name the Site that it writes"):
        evaluate(dictionary(10, d_out=12), of, "L0.resid_mid", tokens(), generator=g)
    with pytest.raises(UserError, match="comes before"):
        evaluate(dictionary(10, d_out=10), of, "L1.resid_mid", tokens(), target="L0.mlp_out", generator=g)
    with pytest.raises(UserError, match="none counts"):
        evaluate(one, of, "L0.resid_post", tokens()[:, :1], generator=g)
    with pytest.raises(UserError, match="no rows"):
        evaluate(one, of, "L0.resid_post", generator=g)
    with pytest.raises(UserError, match="there are none"):
        evaluate(one, of, "L0.resid_post", tokens()[:0], generator=g)
    with pytest.raises(UserError, match="three tokens or more"):
        evaluate(one, of, "L0.resid_post", tokens()[:, :2], generator=g)
    with pytest.raises(UserError, match="activation at each token"):
        evaluate(one, of, "L0.pattern", tokens(), generator=g)
    with pytest.raises(UserError, match="not causal"):
        evaluate(dictionary(16), tiny("encoder"), "L0.resid_post", torch.ones(2, 5, dtype=torch.long), generator=g)
