"""The figures of the claims, on measurements made by hand whose answer is plain."""

import math
from dataclasses import replace

import pytest
import torch

from micrographia.core.sites import Site
from micrographia.labs.gemma_scope.evaluate import Fidelity, Measurement, evaluate_suite
from micrographia.labs.gemma_scope.measure import log_normal_above, measures
from micrographia.labs.gemma_scope.members import WantedDictionary


def one(
    site: str = "L0.resid_post", width: int = 8, l0: float = 2.0, fvu: float = 0.5, delta: float = 1.0
) -> Measurement:
    """Frequencies fall with the width."""
    own = Fidelity(fvu, delta, 0.0, 0.5)
    frequencies = torch.logspace(-3, -1.5, width, dtype=torch.float64) / width
    return Measurement(
        member=WantedDictionary(Site.parse(site), width, l0), l0=l0, fidelity=own, linear=own._replace(fvu=0.6),
        random=own._replace(fvu=0.9), mean=own._replace(delta_loss=2 * delta), dead=0.0, frequencies=frequencies,
        rms=1.0, spread=1.0, clean_loss=3.0, n_tokens=100,
    )  # fmt: skip


LIKE_THE_REPORT = [
    one(site, width, l0, fvu=1 / (l0 * width), delta=cost / (l0 * width))
    for site, cost in (("L0.resid_post", 3.0), ("L0.z", 1.0), ("L0.mlp_out", 2.0))
    for width in (8, 32)
    for l0 in (2, 4)
]
WORSE = [replace(each, fidelity=each.fidelity._replace(fvu=2 * each.fidelity.fvu)) for each in LIKE_THE_REPORT]
EXPECTED = {
    "denser-is-truer": (1.0, 0.5), "residual-costs-most": (1.0, 1 / 3), "fvu-alike": (1.0, 3.0),
    "residual-mean-costs-most": (1.0, 1 / 3), "wider-is-truer": (1.0, 0.5), "wider-fires-less": (1.0, 0.5),
    "beats-linear": (1.0, 0.6), "beats-random": (1.0, 0.9), "untrained-is-worse": (1.0, 0.5),
}  # fmt: skip


def test_a_suite_like_the_reports_has_the_reports_figures():
    found = measures(LIKE_THE_REPORT, WORSE)
    assert {name: (found[name].value, found[name].null) for name in EXPECTED} == {
        name: pytest.approx(pair) for name, pair in EXPECTED.items()
    }


def test_a_suite_that_is_the_other_way_round_has_none_of_them():
    other = [replace(each, fidelity=Fidelity(1 / each.fidelity.fvu, 1 / each.fidelity.delta_loss, 0.0, 0.5),
                     mean=Fidelity(1.0, 1 / each.mean.delta_loss, 0.0, 0.0)) for each in LIKE_THE_REPORT]  # fmt: skip
    found = measures(other, [replace(each, fidelity=each.fidelity._replace(fvu=0.0)) for each in other])
    shares = EXPECTED.keys() - {"fvu-alike", "wider-fires-less"}
    assert {name: found[name].value for name in shares} == dict.fromkeys(shares, 0.0)


def test_what_a_suite_has_no_two_of_is_not_taken():
    found = measures([one()], [])
    taken = {name for name, each in found.items() if each.taken}
    assert taken == {"ultra-frequent", "beats-linear", "beats-random"}
    assert not measures([replace(one(), linear=None)], [])["beats-linear"].taken


def test_frequent_latents_are_counted_beyond_what_a_log_normal_distribution_has():
    draws = torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = replace(one(), frequencies=10 ** (0.5 * draws - 2))
    assert log_normal_above(plain) == pytest.approx(0.5 * math.erfc(2 / math.sqrt(2)), rel=0.1)
    assert plain.frequent == pytest.approx(log_normal_above(plain), rel=0.15)
    crowd = replace(plain, frequencies=torch.cat([plain.frequencies, torch.full((2_000,), 0.4, dtype=torch.float64)]))
    found = measures([crowd], [])["ultra-frequent"]
    assert found.raw == pytest.approx(crowd.frequent)
    assert found.value > 0.05
    assert abs(measures([plain], [])["ultra-frequent"].value) < 0.005


@pytest.mark.usefixtures("unchecked")
def test_a_dictionary_is_measured_as_the_method_measures_it(done, config):
    from micrographia.core.dictionaries.suite import Suite
    from micrographia.core.runtime import generator
    from micrographia.core.small.trained import load_trained
    from micrographia.methods.dictionaries.evaluation.evaluate import LINEAR, OURS, evaluate

    model, dictionary = load_trained(done.path / "model"), Suite.load(done.path).get(site="L1.z", width=24, l0=3)
    rows = torch.randint(3, 300, (20, 16), generator=generator(0))
    wanted = WantedDictionary(Site("z", 1), 24, 3)
    (ours,) = evaluate_suite(
        {wanted: dictionary}, model, rows, loss_rows=8, generator=generator(0), stage="", watch=lambda _: None
    )
    theirs = evaluate(dictionary, model, rows=rows, loss_rows=8, generator=generator(0))
    table = {row["name"]: row for row in theirs.comparison()}
    assert ours.l0 == theirs.metrics.l0
    assert ours.fidelity.fvu == pytest.approx(table[OURS]["fvu"])
    assert ours.fidelity.delta_loss == pytest.approx(table[OURS]["delta_loss"])
    assert ours.linear is not None
    assert ours.linear.delta_loss == pytest.approx(table[LINEAR]["delta_loss"])
    assert ours.mean.delta_loss == pytest.approx(table["mean ablation"]["delta_loss"])
