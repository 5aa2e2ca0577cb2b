"""Callables as losses: distributions of torch against their own log_prob, and square roots of the Fisher."""

from math import lgamma, pi

import numpy as np
import pytest
import torch
from reference import sign_vectors
from torch import distributions as D
from torch import nn

from fisherkit.fisher.losses import find_loss
from fisherkit.fisher.losses.distributions import seed_of


def hermite(loc: float, scale: float):
    """(weights, outcomes) that integrate polynomials against a normal density exactly."""
    x, w = np.polynomial.hermite_e.hermegauss(12)
    return w / np.sqrt(2 * pi), loc + scale * x


def laguerre(rate: float):
    """The same for an exponential density."""
    x, w = np.polynomial.laguerre.laggauss(12)
    return w, x / rate


def both_sides(loc: float, scale: float):
    """The same for a Laplace density."""
    w, x = laguerre(1.0)
    return np.concatenate([w, w]) / 2, np.concatenate([loc - scale * x, loc + scale * x])


def counts(log_p, highest: int):
    y = np.arange(highest)
    return np.exp([log_p(int(k)) for k in y]), y


Z = torch.tensor([[0.3, -0.6], [1.1, 0.4]], dtype=torch.float64)  # two images, two outputs

# callable, and all outcomes of an image with outputs a, b and their weights: exact for the second moment of the score
FAMILIES = {
    "normal": (lambda z: D.Normal(z[:, 0], z[:, 1].exp()), lambda a, b: hermite(a, np.exp(b))),
    "normal_mixed": (lambda z: D.Normal(z.sum(1), z.prod(1).exp()), lambda a, b: hermite(a + b, np.exp(a * b))),
    "normal_fixed_scale": (lambda z: D.Normal(z[:, 0] - 2 * z[:, 1], 0.7), lambda a, b: hermite(a - 2 * b, 0.7)),
    "laplace": (lambda z: D.Laplace(z[:, 0], z[:, 1].exp()), lambda a, b: both_sides(a, np.exp(b))),
    "exponential": (lambda z: D.Exponential((z[:, 0] - z[:, 1]).exp()), lambda a, b: laguerre(np.exp(a - b))),
    "poisson": (
        lambda z: D.Poisson(z.sum(1).exp()),
        lambda a, b: counts(lambda k: k * (a + b) - np.exp(a + b) - lgamma(k + 1), 60),
    ),
    "geometric": (
        lambda z: D.Geometric(logits=z.sum(1)),
        lambda a, b: counts(lambda k: -np.log1p(np.exp(-a - b)) - k * np.log1p(np.exp(a + b)), 90),
    ),
    "geometric_probs": (
        lambda z: D.Geometric(z.sum(1).sigmoid()),
        lambda a, b: counts(lambda k: -np.log1p(np.exp(-a - b)) - k * np.log1p(np.exp(a + b)), 90),
    ),
    "bernoulli": (
        lambda z: D.Bernoulli(logits=z[:, 0] * z[:, 1]),
        lambda a, b: (np.array([1 / (1 + np.exp(a * b)), 1 / (1 + np.exp(-a * b))]), np.array([0, 1])),
    ),
    "bernoulli_probs": (
        lambda z: D.Bernoulli(z.sum(1).sigmoid()),
        lambda a, b: (np.array([1 / (1 + np.exp(a + b)), 1 / (1 + np.exp(-a - b))]), np.array([0, 1])),
    ),
    "categorical": (
        lambda z: D.Categorical(logits=torch.stack([z[:, 0], z[:, 1], z.prod(1)], 1)),
        lambda a, b: (np.exp([a, b, a * b]) / np.exp([a, b, a * b]).sum(), np.arange(3)),
    ),
    "categorical_probs": (
        lambda z: D.Categorical(z.exp()),
        lambda a, b: (np.exp([a, b]) / np.exp([a, b]).sum(), np.arange(2)),
    ),
    "one_hot": (
        lambda z: D.OneHotCategorical(logits=z),
        lambda a, b: (np.exp([a, b]) / np.exp([a, b]).sum(), np.eye(2)),
    ),
    "independent": (
        lambda z: D.Independent(D.Normal(z[:, :1], z[:, 1:].exp()), 1),
        lambda a, b: (hermite(a, np.exp(b))[0], hermite(a, np.exp(b))[1][:, None]),
    ),
}
families = pytest.mark.parametrize(("function", "outcomes"), FAMILIES.values(), ids=FAMILIES)


def columns_of(likelihood):
    """S [images, outputs, columns]."""
    return torch.stack([likelihood.column(k).flatten(1) for k in range(likelihood.columns)], -1)


def numbers(likelihood, images: int, *, seed: int = 0):
    return torch.rand(images, likelihood.noise, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def fisher_of(function, outcomes, z):
    """E_y[s s^T] of one image by all outcomes; and E_y[s]."""
    total = mean = 0.0
    for weight, y in zip(*outcomes(*z.tolist()), strict=True):
        labels = torch.as_tensor(y, dtype=torch.float64)[None]
        leaf = z[None].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(-function(leaf).log_prob(labels).sum(), leaf)
        score = find_loss(function).likelihood(z[None], labels).score()
        assert torch.equal(score, gradient)
        total, mean = total + weight * torch.outer(score[0], score[0]), mean + weight * score[0]
    return total, mean


@families
def test_columns_and_signs_have_the_fisher_of_all_outcomes(function, outcomes):
    likelihood = find_loss(function).likelihood(Z, None)
    s = columns_of(likelihood)
    eps = sign_vectors(likelihood.noise)
    for i, z in enumerate(Z):
        fisher, mean = fisher_of(function, outcomes, z)
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-12)
        torch.testing.assert_close(s[i] @ s[i].T, fisher, rtol=1e-12, atol=1e-14)
        v = find_loss(function).likelihood(z.expand(len(eps), 2), None).propagated(0.5 + 0.25 * eps)
        torch.testing.assert_close(v.T @ v / len(v), fisher, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(v.mean(0), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-14)


@families
def test_sampled_scores_have_the_fisher_as_second_moment(function, outcomes):
    draws = 1500
    likelihood = find_loss(function).likelihood(Z[:1].expand(draws, 2), None)
    v = likelihood.sampled(numbers(likelihood, draws))
    s = columns_of(find_loss(function).likelihood(Z[:1], None))[0]
    products = torch.einsum("ni,nj->nij", v, v)
    error = products.std(0) / draws**0.5
    assert ((products.mean(0) - s @ s.T).abs() <= 4 * error + 1e-15).all()
    assert float(error.max()) < 0.15 * float((s @ s.T).max())


@families
def test_vectors_do_not_depend_on_how_images_are_cut(function, outcomes):
    z = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    whole = find_loss(function).likelihood(z, None)
    uniforms = numbers(whole, 5)
    for method in ("propagated", "sampled"):
        parts = [
            getattr(find_loss(function).likelihood(z[at], None), method)(uniforms[at])
            for at in (slice(0, 1), slice(1, 3), slice(3, 5))
        ]
        torch.testing.assert_close(torch.cat(parts), getattr(whole, method)(uniforms), rtol=1e-14, atol=1e-15)


@families
def test_callables_fit_their_outputs(function, outcomes):
    find_loss(function).check(Z.float())
    v = find_loss(function).likelihood(Z.float(), None).propagated(numbers(find_loss(function).likelihood(Z, None), 2))
    assert v.dtype == torch.float64
    assert v.shape == Z.shape


PER_POSITION = {
    "categorical": (lambda z: D.Categorical(logits=z), lambda z: z),
    "one_hot": (lambda z: D.OneHotCategorical(logits=z), lambda z: z),
    "independent": (lambda z: D.Independent(D.Categorical(logits=z), 1), lambda z: z),
}


@pytest.mark.parametrize(("function", "same"), PER_POSITION.values(), ids=PER_POSITION)
def test_batch_dimensions_of_an_image_are_summed(function, same):
    """A distribution at every position is the token cross-entropy, and the same vectors."""
    z, y = torch.randn(2, 3, 4, dtype=torch.float64), torch.tensor([[0, 3, 1], [2, 2, 0]])
    loss = find_loss(function)
    loss.check(z)
    one_hot = isinstance(function(z), D.OneHotCategorical)
    labels = nn.functional.one_hot(y, 4) if one_hot else y
    mine, named = loss.likelihood(z, labels), find_loss("token_cross_entropy").likelihood(z, y)
    uniforms = numbers(mine, 2)
    assert (mine.columns, mine.noise) == (named.columns, named.noise)
    for value, expected in (
        (mine.score(), named.score()),
        (mine.propagated(uniforms), named.propagated(uniforms)),
        (mine.column(7), named.column(7)),
        (mine.entropy(), named.entropy()),
        (mine.rare_draws(), named.rare_draws()),
    ):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-14)


def test_bernoulli_and_unit_normal_are_the_named_losses():
    z, y = torch.randn(2, 3, 2, dtype=torch.float64), torch.randint(0, 2, (2, 3, 2))
    for function, name in (
        (lambda z: D.Bernoulli(logits=z), "binary_cross_entropy"),
        (lambda z: D.Normal(z, 1.0), "squared_error"),
    ):
        mine, named = find_loss(function).likelihood(z, y), find_loss(name).likelihood(z, y)
        uniforms = numbers(mine, 2)
        assert (mine.columns, mine.noise) == (named.columns, named.noise)
        for value, expected in (
            (mine.score(), named.score()),
            (mine.propagated(uniforms), named.propagated(uniforms)),
            (mine.column(4), named.column(4)),
            (mine.entropy(), named.entropy()),
            (mine.rare_draws(), named.rare_draws()),
        ):
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("gap", [40.0, 300.0])
def test_a_sure_network_keeps_its_relative_accuracy(gap: float):
    """q (1 - q) [[1, -1], [-1, 1]] with q down to 1e-130; Poisson counts of exp(-300)."""
    z = torch.tensor([[gap, 0.0]], dtype=torch.float64)
    q = torch.sigmoid(torch.tensor(-gap, dtype=torch.float64))
    for function in (lambda z: D.Categorical(logits=z), lambda z: D.Bernoulli(logits=z[:, 0] - z[:, 1])):
        (v,) = columns_of(find_loss(function).likelihood(z, None))[0].T
        assert abs(float(v[0])) == pytest.approx(float(q.sqrt()), rel=1e-12, abs=0)
        assert float(v[1]) == pytest.approx(-float(v[0]), rel=1e-12, abs=0)
    (v,) = columns_of(find_loss(lambda z: D.Poisson((-z[:, 0]).exp())).likelihood(z, None))[0].T
    assert abs(float(v[0])) == pytest.approx(np.exp(-gap / 2), rel=1e-12, abs=0)
    nothing = find_loss(lambda z: D.Poisson((-z[:, 0]).exp())).likelihood(torch.tensor([[800.0]]), None)
    assert float(nothing.column(0)) == 0


class Heavy(D.Normal):
    """A family of one's own."""


OTHERS = {
    "student_t": (lambda z: D.StudentT(4.0, z[:, 0], z[:, 1].exp()), "StudentT"),
    "gamma": (lambda z: D.Gamma(z[:, 0].exp(), z[:, 1].exp()), "Gamma"),
    "mixture": (
        lambda z: D.MixtureSameFamily(D.Categorical(logits=z), D.Normal(z, 1.0)),
        "MixtureSameFamily",
    ),
    "derived": (lambda z: Heavy(z[:, 0], z[:, 1].exp()), "Heavy"),
    "multivariate": (lambda z: D.MultivariateNormal(z, torch.eye(2, dtype=torch.float64)), "MultivariateNormal"),
}


@pytest.mark.parametrize(("function", "family"), OTHERS.values(), ids=OTHERS)
def test_other_families_are_sampled_and_nothing_else(function, family: str):
    loss = find_loss(function)
    loss.check(Z)
    likelihood = loss.likelihood(Z, None)
    message = (
        rf"'sampled' or 'empirical' for the distribution {family}; got '{{}}'.*known for Categorical, .*estimator="
    )
    with pytest.raises(ValueError, match=message.format("propagated")):
        likelihood.propagated(numbers(likelihood, 2))
    assert likelihood.columns > 0
    with pytest.raises(ValueError, match=message.format("exact")):
        likelihood.column(0)
    many = loss.likelihood(Z[:1].expand(600, 2), None)
    v = many.sampled(numbers(many, 600))
    error = v.std(0) / 600**0.5
    assert (v.mean(0).abs() <= 4 * error).all()  # scores have mean zero
    assert float(error.min()) > 0


def test_entropy_and_rare_draws_where_torch_knows_them():
    normal = find_loss(FAMILIES["normal"][0]).likelihood(Z, None)
    torch.testing.assert_close(normal.entropy(), 0.5 * np.log(2 * pi * np.e) + Z[:, 1], rtol=1e-12, atol=0)
    assert normal.rare_draws().tolist() == [np.inf, np.inf]
    exponential = find_loss(FAMILIES["exponential"][0]).likelihood(Z, None)
    torch.testing.assert_close(exponential.entropy(), 1 - Z[:, 0] + Z[:, 1], rtol=1e-12, atol=0)
    poisson = find_loss(lambda z: D.Poisson(z[:, 0].exp())).likelihood(Z, None)
    assert poisson.entropy().isnan().all()  # torch has none
    rate = np.exp(0.3)
    assert float(poisson.rare_draws()[0]) == pytest.approx(1 - rate * np.exp(-rate))  # the mode is 1
    mixture = find_loss(OTHERS["mixture"][0]).likelihood(Z, None)
    assert mixture.entropy().isnan().all()
    assert mixture.rare_draws().tolist() == [np.inf, np.inf]
    even = find_loss(lambda z: D.Bernoulli(logits=0 * z)).likelihood(Z, None)
    assert even.rare_draws().tolist() == [1.0, 1.0]
    unknown = find_loss(lambda z: NoMode(z[:, 0].exp())).likelihood(Z, None)
    assert unknown.rare_draws().isnan().all()


class NoMode(D.Poisson):
    """A discrete family that does not say which outcome is the likeliest."""

    @property
    def mode(self):
        raise NotImplementedError


def test_sampling_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    loss = find_loss(FAMILIES["normal"][0])
    loss.check(Z)
    likelihood = loss.likelihood(Z, None)
    first = likelihood.sampled(numbers(likelihood, 2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(likelihood.sampled(numbers(likelihood, 2)), first)


@pytest.mark.parametrize("bits", [16, 24, 53])
def test_seeds_differ_in_the_bits_that_the_generator_uses(bits: int):
    """Uniform numbers of few bits must not share a seed: torch's generator on the CPU uses its low 32 bits."""
    numbers = {k / 2**bits for k in range(5000)} | {1 - k / 2**bits for k in range(1, 5000)}
    assert len({seed_of(u) % 2**32 for u in numbers}) == len(numbers)


# --- a square root of the Fisher ---------------------------------------------------------------------------------


def correlated(z):
    """The Fisher of a Gaussian with a covariance of its own: S is the factor of the precision."""
    factor = torch.tensor([[2.0, 0.0, 1.0], [0.5, 1.0, 0.0]], dtype=z.dtype)
    return factor * z.exp().unsqueeze(-1)


def test_a_square_root_is_used_as_it_is():
    loss = find_loss(correlated)
    loss.check(Z)
    likelihood = loss.likelihood(Z, None)
    s = correlated(Z)
    assert (loss.name, likelihood.columns, likelihood.noise) == ("correlated", 3, 3)
    assert torch.equal(columns_of(likelihood), s)
    eps = sign_vectors(3)
    v = loss.likelihood(Z[:1].expand(8, 2), None).propagated(0.5 + 0.25 * eps)
    torch.testing.assert_close(v.T @ v / 8, s[0] @ s[0].T, rtol=1e-14, atol=0)
    assert likelihood.entropy().isnan().all()
    assert likelihood.rare_draws().tolist() == [np.inf, np.inf]


def test_a_square_root_for_outputs_of_any_shape():
    z = torch.randn(2, 3, 2, dtype=torch.float64)
    loss = find_loss(lambda z: torch.eye(6, dtype=torch.float32).expand(len(z), 6, 6))
    loss.check(z)
    v = loss.likelihood(z.float(), None).column(4)
    assert v.dtype == torch.float64
    assert v[:, 2, 0].tolist() == [1.0, 1.0]
    assert float(v.abs().sum()) == 2


def test_a_square_root_says_nothing_of_outcomes():
    likelihood = find_loss(correlated).likelihood(Z, torch.zeros(2))
    message = r"'propagated' or 'exact' for a loss that returns a square root of the Fisher; got '{}'.*Distribution"
    with pytest.raises(ValueError, match=message.format("sampled")):
        likelihood.sampled(numbers(likelihood, 2))
    with pytest.raises(ValueError, match=message.format("empirical")):
        likelihood.score()


# --- what is refused ---------------------------------------------------------------------------------------------

REFUSED = {
    "nothing": (lambda z: None, r"must return a torch.distributions.Distribution or a tensor.*<lambda> returned NoneT"),
    "pair": (lambda z: (z, z), r"<lambda> returned tuple"),
    "the_loss": (lambda z: z.square().mean(1), r"\[images, outputs, columns\] = \[2, 2, any\].*shape \[2\].*never ret"),
    "other_outputs": (
        lambda z: torch.zeros(2, 3, 1),
        r"= \[2, 2, any\], outputs flattened; got torch.float32 of shape",
    ),
    "whole_numbers": (lambda z: torch.zeros(2, 2, 1, dtype=torch.long), r"got torch.int64 of shape \[2, 2, 1\]"),
    "no_column": (lambda z: torch.zeros(2, 2, 0), r"got torch.float32 of shape \[2, 2, 0\]"),
    "labels_wanted": (
        nn.functional.cross_entropy,
        r"a callable of the outputs alone.*calling cross_entropy on float64 outputs of shape \[2, 2\] raised TypeError",
    ),
    "impossible": (
        lambda z: D.Normal(z[:, 0], z[:, 1]),
        r"calling <lambda>.*raised ValueError: Expected parameter scale",
    ),
    "float32_module": (nn.Linear(2, 2), r"calling Linear on float64 outputs"),
    "images_are_an_event": (
        lambda z: D.Independent(D.Normal(z, 1.0), 2),
        r"first batch dimension runs over the 2 imag",
    ),
    "images_are_lost": (lambda z: D.Normal(z.mean(), 1.0), r"over the 2 images; <lambda> returned Normal.*shape \[\]"),
    "softmax_over_images": (lambda z: D.Categorical(z.softmax(0)), r"from its own outputs alone.*first dimension"),
    "centred": (lambda z: D.Normal(z - z.mean(0), 1.0), r"from its own outputs alone"),
    "less_the_first": (lambda z: D.Normal(z - z[:1], 1.0), r"from its own outputs alone"),
    "less_the_last": (lambda z: D.Normal(z - z[-1:], 1.0), r"from its own outputs alone"),
    "other_shape": (lambda z: D.Normal(z.repeat(1, len(z)), 1.0), r"from its own outputs alone"),
    "other_columns": (lambda z: z.unsqueeze(-1).expand(-1, -1, len(z)), r"from its own outputs alone"),
    "root_mixes": (lambda z: (z - z.mean(0)).unsqueeze(-1), r"from its own outputs alone"),
    "detached": (lambda z: D.Normal(z.detach(), 1.0), r"depends on the outputs; log_prob has no gradient"),
    "of_something_else": (
        lambda z: D.Normal(torch.zeros(len(z)).requires_grad_(), 1.0),
        r"depends on the outputs; log_prob has no gradient",
    ),
}


@pytest.mark.parametrize(("function", "message"), REFUSED.values(), ids=REFUSED)
def test_callables_that_cannot_be_a_loss(function, message: str):
    with pytest.raises(ValueError, match=message):
        find_loss(function).check(Z)


LABELS = {
    "shape": ("normal", [[0.5], [1.0]], r"one outcome of Normal for each image, shape \[2\]; got shape \[2, 1\]"),
    "support": ("poisson", [1.0, -1.0], r"must be possible outcomes of Poisson.*support"),
    "class": ("categorical", [0, 5], r"must be possible outcomes of Categorical"),
    "event": ("one_hot", [0, 1], r"one outcome of OneHotCategorical for each image, shape \[2, 2\]; got shape \[2\]"),
}


@pytest.mark.parametrize(("name", "labels", "message"), LABELS.values(), ids=LABELS)
def test_labels_that_cannot_be_outcomes(name: str, labels, message: str):
    likelihood = find_loss(FAMILIES[name][0]).likelihood(Z, torch.tensor(labels))
    with pytest.raises(ValueError, match=message):
        likelihood.score()


def test_a_score_needs_labels():
    with pytest.raises(ValueError, match=r"labels must be given for estimator='empirical'"):
        find_loss(FAMILIES["normal"][0]).likelihood(Z, None).score()


def test_a_distribution_class_is_not_a_callable_of_the_outputs():
    with pytest.raises(ValueError, match=r"not a class; got Categorical.*lambda outputs: Categorical\(...\)"):
        find_loss(D.Categorical)
