"""Probes, absorption, TPP and SCR on worlds where the answer is known."""

import math

import pytest
import torch
from made import dictionary, perfect
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import BadShape, UserError
from micrographia.core.runtime import generator
from micrographia.core.tokens import Vocabulary
from micrographia.methods.dictionaries.evaluation.absorption import (
    absorption,
    first_letters,
    main_latents,
    mean_absorption,
)
from micrographia.methods.dictionaries.evaluation.labelled import Examples, examples_of, pooled_examples
from micrographia.methods.dictionaries.evaluation.logistic import fit
from micrographia.methods.dictionaries.evaluation.probing import largest_difference, sparse_probing
from micrographia.methods.dictionaries.evaluation.reading import Counted
from micrographia.methods.dictionaries.evaluation.removal import TwoAttributes, scr, tpp
from small import A_FEW, small_model

D = 8


def drawn(n: int, seed: int, often: float = 0.4) -> Tensor:
    """Independent features (row, feature), noisy."""
    g = generator(seed)
    return (torch.rand(n, D, generator=g) < often).float() + 0.02 * torch.randn(n, D, generator=g)


def rotated() -> tuple[Tensor, Dictionary]:
    """Directions that are no axes, and the dictionary that has them."""
    Q = torch.linalg.qr(torch.randn(D, D, generator=generator(9))).Q.contiguous()
    return Q, perfect(Q, threshold=0.3)


def test_the_fit_is_the_minimum_of_the_penalised_loss():
    x = torch.randn(60, 3, generator=generator(0), dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.2]) + 2
    y = (x[:, 0] + 0.3 * x[:, 1] + torch.randn(60, generator=generator(1), dtype=torch.float64)) > 3
    probe = fit(x, y)
    std = x.std(0, correction=0)
    theta = torch.cat([probe.direction * std, torch.tensor([probe.bias + float(probe.direction @ x.mean(0))])])
    theta = theta.requires_grad_()
    z = (x - x.mean(0)) / std
    margin = (2 * y.double() - 1) * (z @ theta[:3] + theta[3])
    loss = torch.nn.functional.softplus(-margin).mean() + theta[:3].square().sum() / 120
    (slope,) = torch.autograd.grad(loss, theta)
    assert float(slope.norm()) < 1e-4
    assert 0.7 < probe.accuracy(x, y) <= 1


def test_a_balanced_fit_answers_for_both_classes():
    x = torch.cat([torch.randn(500, 1, generator=generator(0)), torch.randn(20, 1, generator=generator(1)) + 1.5])
    y = torch.arange(520) >= 500
    assert fit(x, y, balanced=True).f1(x, y) > fit(x, y).f1(x, y)
    assert float((fit(x, y, balanced=True).logits(x) > 0)[y].double().mean()) > 0.6


def test_the_selected_latents_are_those_whose_means_differ():
    values = drawn(200, 0)
    labels = values[:, 5] > 0.5
    assert largest_difference(values, labels, 1).tolist() == [5]


def test_one_latent_tells_what_one_neuron_does_not():
    Q, one = rotated()
    features, held_out = drawn(600, 0), drawn(300, 1)
    train = examples_of(one, features @ Q, (features[:, 2] > 0.5).long())
    test = examples_of(one, held_out @ Q, (held_out[:, 2] > 0.5).long())
    found = sparse_probing(train, test, generator=generator(4))
    assert found.mean("latents", 1) == pytest.approx(1, abs=0.01)
    assert found.mean("all activations", None) == pytest.approx(1, abs=0.01)
    assert found.mean("neurons", 1) < 0.85
    chance = found.mean("larger class", None)
    assert abs(found.mean("latents, permuted labels", 1) - chance) < 0.1
    best = next(each for each in found.scores if each.read == "latents" and each.k == 1)
    assert best.latents == (2,)
    assert {row["k"] for row in found.summary()} == {None, 1, 2, 5}
    assert found.figures()[0].kind == "table"


def test_many_classes_are_probed_one_against_the_rest():
    Q, one = rotated()
    features = drawn(900, 0, often=0.0)
    labels = torch.arange(900) % 3
    features[torch.arange(900), labels] += 1
    train, test = examples_of(one, features @ Q, labels).split(0.7, generator(0))
    assert len(train.labels) == 630
    assert train.labels.bincount().tolist() == [210] * 3
    found = sparse_probing(train, test, generator=generator(1), ks=(1,))
    assert {each.label for each in found.scores} == {0, 1, 2}
    assert found.mean("latents", 1) == pytest.approx(1, abs=0.01)


def test_texts_are_pooled_over_the_tokens_that_count():
    of = small_model(A_FEW["plain-2"], dtype=torch.float64)
    one = dictionary(10)
    ids = torch.randint(0, 7, (9, 4), generator=generator(2))
    ids[:, 1] = 3  # so that each text has a token that counts
    counted = Counted(special=(5,))
    found = pooled_examples(one, of, ids, torch.arange(9) % 2, "L0.resid_post", counted=counted)
    x = of.run(ids, keep=["L0.resid_post"]).cache["L0.resid_post"]
    for i in range(9):
        kept = [pos for pos in range(1, 4) if int(ids[i, pos]) != 5]
        torch.testing.assert_close(found.x[i], x[i, kept].mean(0).float())
        torch.testing.assert_close(found.latents[i], one.encode(x[i, kept]).mean(0).float())


def absorbing(share: float, aligned: bool = True) -> tuple[Dictionary, Examples, Examples]:
    """A feature "letter" (0) that a latent for a word (1) takes over in a share of the texts with the letter.

    The word's decoder row holds letter and word; the letter's latent is silent where the word is.
    """
    directions = torch.eye(D)
    directions[1] = torch.nn.functional.normalize(torch.eye(D)[0] + torch.eye(D)[1], dim=0)
    if not aligned:
        directions[1] = torch.eye(D)[1]
    one = perfect(directions)

    def examples(n: int, seed: int) -> Examples:
        g = generator(seed)
        letter = torch.arange(n) % 2 == 0
        word = letter & (torch.rand(n, generator=g) < share)
        x = 0.02 * torch.randn(n, D, generator=g)
        x[:, 0] += letter
        x[:, 1] += word
        latents = torch.zeros(n, D)
        latents[:, 0] = letter & ~word
        latents[:, 1] = word * 2**0.5
        return Examples(x, latents, letter.long())

    return one, examples(400, 0), examples(400, 1)


def test_absorption_is_found_where_it_was_planted():
    one, train, test = absorbing(0.04)
    (found,) = absorption(one, train, test, [1])
    assert found.main == (0,)
    assert found.probe_f1 == 1
    absorbed = float((test.latents[test.labels == 1][:, 1] > 0).double().mean())
    assert found.fraction == pytest.approx(absorbed, abs=0.01)
    assert found.full == pytest.approx(absorbed, abs=0.01)
    assert 0.02 < absorbed < 0.06
    assert mean_absorption([found])["fraction"] == found.fraction


def test_without_absorbers_there_is_no_absorption():
    one, train, test = absorbing(0.04, aligned=False)
    (found,) = absorption(one, train, test, [1])
    assert found.full == 0
    assert found.fraction == 0
    clean = absorption(*absorbing(0.0), [1])[0]
    assert (clean.fraction, clean.full) == (pytest.approx(0, abs=0.01), 0)


def test_a_feature_that_is_split_has_two_main_latents_and_absorbs_nothing():
    _, train, _ = absorbing(0.5)
    main, f1 = main_latents(train, train.labels == 1)
    assert set(main) == {0, 1}
    assert f1 == 1


def test_letters_where_the_probe_knows_nothing_are_not_scored():
    one, train, test = absorbing(0.1)
    nothing = test._replace(labels=torch.zeros_like(test.labels))
    (found,) = absorption(one, train, nothing, [1])
    assert math.isnan(found.fraction)
    assert found.n == 0
    assert mean_absorption([found])["labels"] == 0
    with pytest.raises(UserError, match="two labels"):
        absorption(one, nothing, nothing)


def test_first_letters_of_words():
    words = Vocabulary(("<bos>", " Mary", "sees", "it", "3rd", " John", "Éa!"))
    assert first_letters(words, 7) == ([1, 2, 5], [12, 18, 9])


def test_tpp_is_one_class_less_and_no_other_for_the_truth():
    Q, one = rotated()
    labels = torch.arange(1200) % 6
    features = 0.05 * torch.randn(1200, D, generator=generator(0))
    features[torch.arange(1200), labels] += 1
    train, test = examples_of(one, features @ Q, labels).split(0.6, generator(0))
    (found,) = tpp(one, train, test, generator=generator(1), ns=(1,))
    assert found.intended == pytest.approx(1 / 6, abs=0.02)  # the class's own tokens are now called none of the six
    assert found.unintended < 0.01
    assert found.score == pytest.approx(found.intended - found.unintended)
    assert found.random < found.score / 2


def two_attributes(n: int, seed: int) -> tuple[Dictionary, TwoAttributes]:
    """The wanted attribute is weak; the spurious one strong, with a latent for either value; both independent."""
    one = perfect(torch.eye(D), threshold=0.3)
    g = generator(seed)
    wanted, spurious = (torch.rand(n, generator=g) < 0.5 for _ in range(2))
    features = 0.05 * torch.randn(n, D, generator=g)
    features[:, 0] += 2 * wanted
    features[:, 1] += 6 * spurious
    features[:, 2] += 6 * ~spurious
    return one, TwoAttributes(examples_of(one, features, wanted.long()), wanted, spurious)


def test_scr_removes_a_spurious_attribute_that_has_its_own_latent():
    one, train = two_attributes(1000, 0)
    _, test = two_attributes(600, 1)
    (found,) = scr(one, train, test, generator=generator(2), ns=(2,))
    assert found.unintended < 0.9  # what the biased probe reaches
    assert found.score > 0.3
    assert found.intended > found.unintended
    assert found.random < found.score


def test_what_cannot_be_probed_is_refused():
    Q, one = rotated()
    x = drawn(20, 0) @ Q
    with pytest.raises(BadShape, match="A label for each of 20"):
        examples_of(one, x, torch.zeros(3))
    same = examples_of(one, x, torch.zeros(20))
    with pytest.raises(UserError, match="two labels"):
        sparse_probing(same, same, generator=generator(0))
    with pytest.raises(UserError, match="both classes"):
        fit(x, torch.zeros(20, dtype=torch.bool))
    with pytest.raises(UserError, match="compares classes"):
        tpp(one, same, same, generator=generator(0))
    with pytest.raises(BadShape, match="writes elsewhere"):
        tpp(dictionary(D, d_out=3), same._replace(labels=torch.arange(20) % 2), same, generator=generator(0))
    one, data = two_attributes(20, 0)
    with pytest.raises(UserError, match="agree in 20 of 20"):
        scr(one, data._replace(spurious=data.wanted), data, generator=generator(0))
    of = small_model(A_FEW["plain-2"])
    with pytest.raises(UserError, match="Row 1 has no token"):
        pooled_examples(
            dictionary(10), of, torch.tensor([[0, 1], [0, 2]]), torch.zeros(2), "embed",
            counted=Counted(special=(2,)),
        )  # fmt: skip
