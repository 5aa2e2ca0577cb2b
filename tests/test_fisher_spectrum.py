"""Spectra: eigenvalues, trace and effective rank of every layer against the dense Fisher matrix in float64."""

import re

import numpy as np
import pytest
import torch
from cases import BY_NAME, CASES, Case, InPlaceSequence, conv_net
from reference import count, hessian, jacobians, outputs, rows
from torch import Tensor, nn

import fisherkit
from fisherkit.fisher import FisherSpectrum, fisher_spectrum, fisher_trace, trainable_layers
from fisherkit.fisher import gram as gram_module
from fisherkit.fisher import scores as scores_module
from fisherkit.fisher.forms import form as form_module
from fisherkit.fisher.forms.table import find_form
from fisherkit.fisher.losses import find_loss
from fisherkit.fisher.noise import ImageNoise
from fisherkit.fisher.spectrum_values import by_image, corrected_rank, leading_eigenvalues

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'", "ignore:enable_nested_tensor")

K = 6


def measure(model, inputs, **options) -> FisherSpectrum:
    whole = [inputs] if isinstance(inputs, dict) else inputs
    return fisher_spectrum(model, whole, **{"k": K, **options})


def scores(model, inputs, loss: str) -> dict[str, Tensor]:
    """The rows sqrt(H) J / sqrt(N) of every image, whose F_l = R^T R."""
    found: dict[str, list[Tensor]] = {}
    for i in range(count(inputs)):
        values, vectors = torch.linalg.eigh(hessian(outputs(model, rows(inputs, i)).reshape(-1), loss))
        root = vectors * (values.clamp_min(0) / count(inputs)).sqrt()
        for name, j in jacobians(model, inputs, i).items():
            found.setdefault(name, []).append(root.T @ j.detach())
    return {name: torch.cat(parts) for name, parts in found.items()}


def eigenvalues(r: Tensor, k: int = K) -> np.ndarray:
    """Of R^T R, itself or, where it is large, as squares of the singular values of R."""
    small = r.shape[1] <= 200
    values = torch.linalg.eigvalsh(r.T @ r).flip(0) if small else torch.linalg.svdvals(r).square()
    return np.pad(values[:k].numpy(), (0, max(0, k - len(values))))


def check(spectrum: FisherSpectrum, reference: dict[str, Tensor]):
    assert set(spectrum.layers) == set(reference)
    for index, name in enumerate(spectrum.layers):
        r = reference[name]
        expected, trace, squares = eigenvalues(r, spectrum.k), float(r.square().sum()), float((r @ r.T).square().sum())
        tolerance = 1e-13 * max(expected[0], 1.0)
        np.testing.assert_allclose(spectrum[name], expected, rtol=1e-10, atol=tolerance, err_msg=name)
        assert spectrum.trace[index] == pytest.approx(trace, rel=1e-10)
        assert spectrum.effective_rank[index] == pytest.approx(trace**2 / squares if squares else 0, rel=1e-9), name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equals_the_dense_matrix(case: Case):
    model, inputs = case.build()
    spectrum = measure(model, inputs, loss=case.loss)
    check(spectrum, scores(model.eval(), inputs, case.loss))
    assert all(engine == "ghost" for engine in spectrum.engines.values()) == case.closed


FACTORED = [
    *("mlp", "sequence_linear", "sequence_linear_gram", "embedding", "embedding_padding", "conv1d", "conv3d"),
    *("conv2d_strided", "conv2d_dilated", "conv2d_grouped", "conv2d_same", "conv2d_reflect", "partly_frozen"),
]


@pytest.mark.parametrize("pairs", [True, False], ids=["pairs", "pieces"])
@pytest.mark.parametrize("name", FACTORED)
def test_is_the_same_when_gradients_are_not_held(monkeypatch: pytest.MonkeyPatch, name: str, pairs: bool):
    monkeypatch.setattr(scores_module, "PIECE", 0)  # nothing is small enough to be held
    monkeypatch.setattr(form_module, "PIECE", 40)  # pieces of a few rows
    monkeypatch.setattr(gram_module, "PAIR_SIDE", 7)  # some vectors of one image at a time
    monkeypatch.setattr(gram_module, "pairs_are_cheaper", lambda layer, **_: pairs and gram_module.has_pairs(layer))
    case = BY_NAME[name]
    model, inputs = case.build()
    check(measure(model, inputs, loss=case.loss), scores(model.eval(), inputs, case.loss))


LAYERS = {
    "linear": (nn.Linear(4, 3), (4,)),
    "linear_positions": (nn.Linear(4, 3), (2, 3, 4)),
    "linear_no_bias": (nn.Linear(4, 3, bias=False), (7, 4)),
    "conv1d": (nn.Conv1d(2, 3, 3), (2, 6)),
    "conv2d": (nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 6, 5)),
    "conv2d_circular": (nn.Conv2d(2, 3, 2, padding=1, padding_mode="circular"), (2, 6, 5)),
}


@pytest.mark.parametrize("side", [3, 7, 2048])
@pytest.mark.parametrize("name", LAYERS)
def test_pairwise_products_are_inner_products_of_gradients(monkeypatch: pytest.MonkeyPatch, name: str, side: int):
    monkeypatch.setattr(gram_module, "PAIR_SIDE", side)
    module, shape = LAYERS[name]
    module, a, each = module.double(), torch.randn(5, *shape, dtype=torch.float64), 4
    (layer,), form = trainable_layers(module), None
    image = torch.arange(5).repeat_interleave(each)
    z = module(a[image])
    g = torch.randn_like(z)
    gradients = torch.stack(
        [
            torch.cat(
                [x.flatten() for x in torch.autograd.grad(z[r], list(module.parameters()), g[r], retain_graph=True)]
            )
            for r in range(len(image))
        ]
    )
    factors = gram_module.Factors(a, g, image)
    form = find_form(layer)
    assert form is not None
    ways = [
        gram_module.gram_by_pairs(layer, factors),
        gram_module.gram_by_pieces(layer, form, factors),
        gram_module.gram_of_gradients(gradients),
    ]
    for found in ways:
        torch.testing.assert_close(found.tril(), (gradients @ gradients.T).tril(), rtol=1e-10, atol=1e-12)


def test_the_cheaper_way_is_taken():
    """Small maps of many channels by pairs, large maps of few by pieces; grouped and other layers by pieces."""

    def cheaper(module: nn.Module, places: int, vectors: int = 900) -> bool:
        (layer,) = trainable_layers(module)
        return gram_module.pairs_are_cheaper(layer, vectors=vectors, images=100, places=places)

    assert cheaper(nn.Conv2d(512, 512, 3), 16)
    assert cheaper(nn.Linear(512, 512), 1)
    assert not cheaper(nn.Conv2d(16, 16, 3), 1024)
    assert not cheaper(nn.Conv2d(64, 64, 3), 16, vectors=100)  # one vector an image does not pay for the patches
    assert not cheaper(nn.Conv2d(512, 512, 3, groups=2), 16)
    assert not cheaper(nn.GroupNorm(2, 4), 1)


@pytest.mark.parametrize("name", ["residual_in_place", "lstm", "transformer", "sequence_linear"])
def test_groups_of_layers_change_no_bit_and_batches_nothing(name: str):
    case = BY_NAME[name]
    model, inputs = case.build()
    whole = measure(model, inputs, batch_size=5)
    assert whole.passes == 1
    split = in_least_memory(model, inputs, batch_size=5)
    assert split.passes > 1
    np.testing.assert_array_equal(split.eigenvalues, whole.eigenvalues)
    np.testing.assert_array_equal(split.effective_rank_stderr, whole.effective_rank_stderr)
    np.testing.assert_allclose(in_least_memory(model, inputs).trace, whole.trace, rtol=1e-10)
    for size in (1, 2):
        cut = measure(model, inputs, batch_size=size)
        np.testing.assert_allclose(cut.eigenvalues, whole.eigenvalues, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(cut.effective_rank_corrected, whole.effective_rank_corrected, rtol=1e-10)


def in_least_memory(model, inputs, **options) -> FisherSpectrum:
    try:
        return measure(model, inputs, max_memory=1, **options)
    except ValueError as error:
        needed = re.search(r"must be at least ([\d,]+) bytes", str(error))
        return measure(model, inputs, max_memory=int(needed[1].replace(",", "")), **options)


def test_the_trace_is_that_of_fisher_trace():
    model, inputs = BY_NAME["residual"].build()
    for options in (
        {"estimator": "exact"},
        {"estimator": "propagated", "draws": 3, "seed": 4},
        {"estimator": "sampled"},
    ):
        trace, spectrum = (f(model, inputs, **options) for f in (fisher_trace, fisher_spectrum))
        np.testing.assert_allclose(spectrum.trace, trace.trace, rtol=1e-10)
        assert spectrum.layers == trace.layers


@pytest.mark.parametrize("estimator", ["propagated", "sampled", "empirical"])
def test_drawn_and_given_vectors(estimator: str):
    """1 / (N draws) sum of (J^T v)(J^T v)^T for the vectors of the seed, or of the labels."""
    model, inputs = BY_NAME["residual"].build()
    labels, draws = torch.tensor([0, 1, 2, 1, 0]), 1 if estimator == "empirical" else 3
    spectrum = fisher_spectrum(model, inputs, labels, estimator=estimator, draws=draws, seed=7, k=20)
    likelihood = find_loss("cross_entropy").likelihood(outputs(model.eval(), inputs).detach(), labels)
    uniforms = [ImageNoise(7, draw).uniforms(0, (5, likelihood.noise)) for draw in range(draws)]
    v = [likelihood.score() if estimator == "empirical" else getattr(likelihood, estimator)(u) for u in uniforms]
    u: dict[str, list[Tensor]] = {}
    for i in range(5):
        for name, j in jacobians(model, inputs, i).items():
            u.setdefault(name, []).extend(one[i] @ j.detach() / (5 * draws) ** 0.5 for one in v)
    check(spectrum, {name: torch.stack(parts) for name, parts in u.items()})
    assert (spectrum.vectors, spectrum.draws, spectrum.estimator) == (5 * draws, draws, estimator)
    assert any("drawn vector" in note for note in spectrum.notes) == (estimator != "empirical")


def several(model, parts: list[Tensor]) -> dict[str, Tensor]:
    images = sum(map(len, parts))
    found = [scores(model, part, "cross_entropy") for part in parts]
    weights = [(len(part) / images) ** 0.5 for part in parts]
    return {name: torch.cat([w * r[name] for w, r in zip(weights, found, strict=True)]) for name in found[0]}


def test_batches_of_different_sizes(monkeypatch: pytest.MonkeyPatch):
    sequences = [torch.randn(3, 5, 3, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)]
    model = InPlaceSequence().double()
    check(fisher_spectrum(model, sequences, k=K), several(model, sequences))
    pictures = [torch.randn(2, 1, 6, 6, dtype=torch.float64), torch.randn(2, 1, 5, 5, dtype=torch.float64)]
    pooled = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 3)).double()
    check(fisher_spectrum(pooled, pictures, k=K), several(pooled, pictures))
    monkeypatch.setattr(scores_module, "PIECE", 0)  # inputs and output gradients held, shorter ones filled up
    check(fisher_spectrum(model, sequences, k=K), several(model, sequences))
    with pytest.raises(
        ValueError, match=r"images must have one size for the spectrum of layer '0', which met \(2, 3, 3\)"
    ):
        fisher_spectrum(pooled, pictures)


class Moody(nn.Module):
    """A layer that some images pass twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.first(x))
        return self.out(torch.tanh(self.first(y)) if bool(x[0, 0] > 0) else y)


def test_a_layer_that_is_used_otherwise_later_is_measured_one_image_at_a_time():
    model, inputs = Moody().double(), torch.randn(4, 4, dtype=torch.float64)
    inputs[:, 0] = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    spectrum = measure(model, inputs, batch_size=2)
    check(spectrum, scores(model, inputs, "cross_entropy"))
    assert spectrum.engines == {"first": "loop", "out": "ghost"}
    assert "called twice" in str(spectrum)
    with pytest.raises(ValueError, match="takes different paths"):
        measure(model, inputs, batch_size=2, engine="ghost")


def test_zero_past_the_rank():
    model, x = nn.Linear(2, 3, bias=False).double(), torch.randn(5, 2, dtype=torch.float64)
    spectrum = fisher_spectrum(model, x, k=12)  # 10 vectors, 6 parameters, of which softmax sees 4
    assert (spectrum.eigenvalues[0, :4] > 0).all()
    np.testing.assert_array_equal(spectrum.eigenvalues[0, 4:], 0)
    assert spectrum.share_of_top(4)[0] == pytest.approx(1, rel=1e-12)
    assert spectrum.share_of_top(1)[0] == spectrum.top[0] / spectrum.trace[0]


def made_up(images: int, each: int, scale: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Normal score vectors with E u u^T = diag(scale^2), times a random size of the image; whose each is."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.randn(images, 1, 1, generator=generator, dtype=torch.float64).mul(0.5).exp()
    vectors = torch.randn(images, each, len(scale), generator=generator, dtype=torch.float64) * scale * size
    return vectors.flatten(0, 1), torch.arange(images).repeat_interleave(each)


def directions(count: int) -> Tensor:
    return torch.logspace(0, -0.5, count, dtype=torch.float64)


def test_sums_over_the_vectors_of_each_image():
    vectors, image = made_up(4, 3, directions(6))
    lower = (vectors @ vectors.T).tril() + torch.full((12, 12), 77.0, dtype=torch.float64).triu(1)
    norms, overlaps = by_image(lower, image)
    fisher = torch.stack([part.T @ part for part in vectors.split(3)])
    np.testing.assert_allclose(norms, torch.einsum("ipp->i", fisher), rtol=1e-12)
    np.testing.assert_allclose(overlaps, torch.einsum("ipq,jpq->ij", fisher, fisher), rtol=1e-12)
    np.testing.assert_allclose(leading_eigenvalues(lower, 3), eigenvalues(vectors, 3), rtol=1e-12)


def test_the_corrected_rank_compares_different_images_and_leaves_out_one_at_a_time():
    vectors, image = made_up(7, 2, directions(5))
    fisher = torch.stack([part.T @ part for part in vectors.split(2)])

    def by_loops(kept: list[int]) -> float:
        pairs = [(i, j) for i in kept for j in kept if i != j]
        above = sum(float(fisher[i].trace() * fisher[j].trace()) for i, j in pairs)
        return above / sum(float((fisher[i] * fisher[j]).sum()) for i, j in pairs)

    rank = corrected_rank(*by_image(vectors @ vectors.T, image))
    assert rank.value == pytest.approx(by_loops(list(range(7))), rel=1e-12)
    without = np.array([by_loops([j for j in range(7) if j != i]) for i in range(7)])
    assert rank.stderr == pytest.approx(np.sqrt(6 / 7 * ((without - without.mean()) ** 2).sum()), rel=1e-10)
    orthogonal = corrected_rank(np.ones(3), np.eye(3))
    alone = corrected_rank(np.ones(1), np.ones((1, 1)))
    assert np.isnan([orthogonal.value, alone.value, alone.stderr]).all()


def test_the_corrected_rank_has_no_bias_and_its_error_bar_covers():
    """200 samples of 40 images; the sample's own effective rank is less than half the truth."""
    scale = directions(60)
    truth = float(scale.square().sum() ** 2 / scale.pow(4).sum())
    found, naive = [], []
    for seed in range(200):
        vectors, image = made_up(40, 2, scale, seed)
        norms, overlaps = by_image(vectors @ vectors.T, image)
        found.append(corrected_rank(norms, overlaps))
        naive.append(norms.sum() ** 2 / overlaps.sum())
    values, errors = np.array([[rank.value, rank.stderr] for rank in found]).T
    assert np.mean(naive) < 0.5 * truth
    assert values.mean() == pytest.approx(truth, rel=0.02)
    assert np.mean(abs(values - truth) < 1.96 * errors) > 0.93
    assert errors.mean() < 0.1 * truth


def test_measuring_changes_nothing():
    model, inputs = BY_NAME["residual_in_place"].build()
    model.train()
    model.bn1.eval()
    model.conv1.weight.requires_grad_(False)
    model.fc.bias.grad = torch.ones(3, dtype=torch.float64)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    fisher_spectrum(model, inputs)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert torch.equal(model.fc.bias.grad, torch.ones(3, dtype=torch.float64))
    assert all(p.grad is None for p in model.parameters() if p is not model.fc.bias)
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_the_table_says_what_was_measured():
    model, inputs = BY_NAME["unused_layer"].build()
    spectrum = fisher_spectrum(model, inputs, k=3)
    text = str(spectrum)
    assert "True Fisher spectrum, exact, 5 images, 15 score vectors, cross_entropy, float64" in text
    assert "top 3" in text
    assert "the outputs do not depend on unused, cut, or only through weights that are zero: trace 0" in text
    assert spectrum.effective_rank[spectrum.layers.index("unused")] == 0
    assert np.isnan(spectrum.share_of_top(3)[spectrum.layers.index("unused")])
    assert isinstance(spectrum, fisherkit.FisherSpectrum)
    assert fisherkit.fisher_spectrum is fisher_spectrum
    with pytest.raises(KeyError, match="no layer 'x'; the layers are used"):
        spectrum["x"]
    with pytest.raises(ValueError, match="k must be from 1 to 3"):
        spectrum.share_of_top(4)


def test_single_precision_agrees_and_says_so():
    model, inputs = BY_NAME["residual"].build()
    double = fisher_spectrum(model, inputs, k=4)
    single = fisher_spectrum(model.float(), inputs.float(), k=4)
    assert (single.dtype, double.dtype) == ("float32", "float64")
    np.testing.assert_allclose(single.eigenvalues, double.eigenvalues, rtol=1e-4)


ERRORS = {
    "k": (dict(k=0), "k must be at least 1; got 0"),
    "max_images": (dict(max_images=0), "max_images must be at least 1; got 0"),
    "max_memory": (dict(max_memory=0), "max_memory must be a number of bytes such as 4GB, 500MB or 2GiB; got 0"),
    "engine": (dict(engine="batch"), "engine must be one of auto, ghost, vmap for a spectrum"),
    "estimator": (dict(estimator="best"), "estimator must be one of"),
    "draws": (dict(draws=2), "draws must be 1 for estimator='exact'"),
    "labels": (dict(estimator="empirical"), "labels must be given for estimator='empirical'"),
}


@pytest.mark.parametrize(("options", "message"), ERRORS.values(), ids=ERRORS)
def test_wrong_arguments(options, message: str):
    model, inputs = BY_NAME["mlp"].build()
    with pytest.raises(ValueError, match=message):
        fisher_spectrum(model, inputs, **options)


def test_what_has_no_spectrum_is_refused_with_the_reason():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"layer '1' normalises with the statistics of the batch.*one joint model"):
        fisher_spectrum(model, torch.randn(5, 4))
    with pytest.raises(ValueError, match="images must hold at least one image; got none"):
        fisher_spectrum(nn.Linear(4, 3), [])
    broken = nn.Linear(4, 3)
    nn.init.constant_(broken.bias, torch.inf)
    with pytest.raises(FloatingPointError, match=r"not finite for layer '\(model\)'"):
        fisher_spectrum(broken, torch.randn(5, 4))


def test_what_does_not_fit_into_memory_is_refused_with_what_would():
    model, x = conv_net(nn.Conv2d(2, 8, 3), features=8 * 36)(), torch.randn(20, 2, 8, 8)
    message = r"max_memory must be at least [\d,]+ bytes for layer '3' \(40 score vectors: 20 images x 2\); got 100,000"
    with pytest.raises(ValueError, match=message) as error:
        fisher_spectrum(model, x, max_memory=100_000)
    fitting = int(str(error.value).partition("max_images=")[2].partition(",")[0])
    assert 0 < fitting < 20
    assert "estimator='propagated'" in str(error.value)
    assert fisher_spectrum(model, x, max_memory=100_000, max_images=fitting).images == fitting
    with pytest.raises(ValueError, match="max_memory must be at least"):
        fisher_spectrum(model, x, max_memory=100_000, max_images=fitting + 1)
    with pytest.raises(ValueError, match="raise it"):
        fisher_spectrum(model, x, max_memory=10)
