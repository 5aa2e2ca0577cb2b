"""Every likelihood against -log p itself: its Hessian, every outcome, every sign; and every refusal."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import sign_vectors
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fisherkit.fisher.losses import LOSSES, BinaryCrossEntropy, CrossEntropy, find_loss, softmax

IGNORED = -100
SHAPES = {
    "cross_entropy": (4,),
    "token_cross_entropy": (2, 3),
    "pixel_cross_entropy": (3, 1, 2),
    "next_token_cross_entropy": (3, 3),
    "binary_cross_entropy": (2, 2),
    "squared_error": (2, 2),
}
LABELS = {  # of two images; where a position is left out
    "cross_entropy": [3, 0],
    "token_cross_entropy": [[2, 0], [IGNORED, 1]],
    "pixel_cross_entropy": [[[1, IGNORED]], [[0, 2]]],
    "next_token_cross_entropy": [[9, 0, 2], [0, IGNORED, 1]],  # the first label is never predicted
    "binary_cross_entropy": [[[0, 1], [1, 1]], [[0, 0], [1, 0]]],
    "squared_error": [[[0.5, 1.0], [-1.0, 1.0]], [[0.0, 0.0], [1.0, 3.0]]],
}
names = pytest.mark.parametrize("name", SHAPES)


def outputs_of(name: str, images: int = 2, scale: float = 2.0):
    generator = torch.Generator().manual_seed(len(name))
    return scale * torch.randn(images, *SHAPES[name], dtype=torch.float64, generator=generator)


def minus_log_p(name: str, z, y):
    """-log p of one image, by torch's own losses; z [...], y its labels."""
    if name == "cross_entropy":
        return F.cross_entropy(z[None], y[None], ignore_index=IGNORED, reduction="sum")
    if name == "token_cross_entropy":
        return F.cross_entropy(z.reshape(-1, z.shape[-1]), y.reshape(-1), ignore_index=IGNORED, reduction="sum")
    if name == "pixel_cross_entropy":
        return F.cross_entropy(z[None], y[None], ignore_index=IGNORED, reduction="sum")
    if name == "next_token_cross_entropy":
        return F.cross_entropy(z[:-1], y[1:], ignore_index=IGNORED, reduction="sum")
    if name == "binary_cross_entropy":
        return F.binary_cross_entropy_with_logits(z, y.double(), reduction="sum")
    return 0.5 * F.mse_loss(z, y.double(), reduction="sum")


def hessian_of(name: str, z, y):
    """The Hessian of -log p in one image's outputs, [outputs, outputs]."""
    gradient = torch.func.grad(lambda flat: minus_log_p(name, flat.reshape(z.shape), y))
    return torch.func.jacrev(gradient)(z.reshape(-1))


def columns_of(likelihood):
    """S [images, outputs, columns]."""
    return torch.stack([likelihood.column(k).flatten(1) for k in range(likelihood.columns)], -1)


def all_signs(loss, z, y=None):
    """S eps of one image for every sign vector: [signs, outputs]."""
    eps = sign_vectors(loss.likelihood(z[None], None).noise)
    labels = None if y is None else y.expand(len(eps), *y.shape)
    likelihood = loss.likelihood(z.expand(len(eps), *z.shape), labels)
    return likelihood.propagated(0.5 + 0.25 * eps).flatten(1)


def numbers(likelihood, images: int, *, seed: int = 0):
    return torch.rand(images, likelihood.noise, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def everything(likelihood) -> list:
    """What each method gives, with the same numbers for noise."""
    uniforms = numbers(likelihood, len(likelihood.outputs))
    vectors = [likelihood.propagated(uniforms), likelihood.sampled(uniforms), likelihood.score(), likelihood.column(1)]
    return [*vectors, likelihood.entropy(), likelihood.rare_draws()]


# --- the named losses --------------------------------------------------------------------------------------------


@names
@pytest.mark.parametrize("labelled", [False, True], ids=["all positions", "labels leave some out"])
def test_columns_are_a_square_root_of_the_hessian(name: str, labelled: bool):
    z, y = outputs_of(name), torch.tensor(LABELS[name])
    likelihood = find_loss(name).likelihood(z, y if labelled else None)
    s = columns_of(likelihood)
    for i in range(2):
        counted = y[i] if labelled else torch.zeros_like(y[i])
        expected = hessian_of(name, z[i], counted)
        torch.testing.assert_close(s[i] @ s[i].T, expected, rtol=1e-12, atol=1e-15)


@names
@pytest.mark.parametrize("labelled", [False, True], ids=["all positions", "labels leave some out"])
def test_the_mean_over_all_signs_is_the_hessian(name: str, labelled: bool):
    z, y = outputs_of(name), torch.tensor(LABELS[name])
    for i in range(2):
        v = all_signs(find_loss(name), z[i], y[i] if labelled else None)
        expected = hessian_of(name, z[i], y[i] if labelled else torch.zeros_like(y[i]))
        torch.testing.assert_close(v.T @ v / len(v), expected, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(v.mean(0), torch.zeros_like(v[0]), rtol=0, atol=1e-15)


@names
def test_the_score_is_the_gradient_at_the_labels(name: str):
    z, y = outputs_of(name), torch.tensor(LABELS[name])
    score = find_loss(name).likelihood(z, y).score()
    for i in range(2):
        expected = torch.func.grad(lambda one, i=i: minus_log_p(name, one, y[i]))(z[i])
        torch.testing.assert_close(score[i], expected, rtol=1e-12, atol=1e-15)


def outcomes_of(name: str, z):
    """(probability, labels) of every outcome of one image; a Gaussian by two points with its moments."""
    choices = {"cross_entropy": 4, "token_cross_entropy": 3, "pixel_cross_entropy": 3, "next_token_cross_entropy": 3}
    if name in choices:
        shape = torch.tensor(LABELS[name]).shape[1:]
        free = 2 if name == "next_token_cross_entropy" else int(np.prod(shape))
        for values in product(range(choices[name]), repeat=free):
            y = torch.tensor((0, *values) if name == "next_token_cross_entropy" else values).reshape(shape)
            yield float(minus_log_p(name, z, y).neg().exp()), y
    elif name == "binary_cross_entropy":
        for values in product((0, 1), repeat=4):
            y = torch.tensor(values).reshape(z.shape)
            yield float(minus_log_p(name, z, y).neg().exp()), y
    else:
        for values in product((-1.0, 1.0), repeat=4):
            yield 0.5**4, z + torch.tensor(values, dtype=torch.float64).reshape(z.shape)


@names
def test_the_mean_over_all_outcomes_is_the_hessian(name: str):
    """E_y[s s^T] = H and E_y[s] = 0: scores of a likelihood, mean zero, independent over positions."""
    z = outputs_of(name, images=1)
    total = mean = 0.0
    for weight, y in outcomes_of(name, z[0]):
        score = find_loss(name).likelihood(z, y[None]).score().reshape(-1)
        total, mean = total + weight * torch.outer(score, score), mean + weight * score
    expected = hessian_of(name, z[0], torch.zeros_like(torch.tensor(LABELS[name])[0]))
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-14)


@names
def test_sampled_scores_have_the_hessian_as_second_moment(name: str):
    draws = 4000
    z = outputs_of(name, images=1, scale=1.0).expand(draws, *SHAPES[name])
    likelihood = find_loss(name).likelihood(z, None)
    v = likelihood.sampled(numbers(likelihood, draws)).flatten(1)
    s = columns_of(find_loss(name).likelihood(z[:1], None))[0]
    products = torch.einsum("ni,nj->nij", v, v)
    error = products.std(0) / draws**0.5
    assert ((products.mean(0) - s @ s.T).abs() <= 4 * error + 1e-15).all()
    assert float(error.max()) < 0.1


def test_labels_are_drawn_by_inverting_the_cumulative_distribution():
    z = torch.tensor([[[0.0, 1.0, -2.0], [1.0, 0.0, 0.5]]], dtype=torch.float64)
    p = torch.softmax(z[0], 1)
    edges = torch.cat([torch.zeros(2, 1, dtype=torch.float64), p.cumsum(1)], 1)
    loss = find_loss("token_cross_entropy")
    for y in product(range(3), repeat=2):
        at = torch.stack([(edges[t, y[t]] + edges[t, y[t] + 1]) / 2 for t in range(2)])
        uniforms = torch.cat([at, torch.rand(4, dtype=torch.float64)])[None]
        drawn = loss.likelihood(z, None).sampled(uniforms)
        assert torch.equal(drawn, loss.likelihood(z, torch.tensor([y])).score())


@names
def test_vectors_do_not_depend_on_how_images_are_cut(name: str):
    z, loss = outputs_of(name, images=5), find_loss(name)
    whole = loss.likelihood(z, None)
    uniforms = numbers(whole, 5)
    for method in ("propagated", "sampled"):
        parts = [
            getattr(loss.likelihood(z[at], None), method)(uniforms[at])
            for at in (slice(0, 1), slice(1, 3), slice(3, 5))
        ]
        assert torch.equal(torch.cat(parts), getattr(whole, method)(uniforms))


@names
def test_vectors_are_float64_and_shaped_like_outputs_of_any_precision(name: str):
    z, y = outputs_of(name), torch.tensor(LABELS[name])
    for dtype in (torch.bfloat16, torch.float32):
        low = z.to(dtype)
        likelihood, exact = find_loss(name).likelihood(low, y), find_loss(name).likelihood(low.double(), y)
        for value, expected in zip(everything(likelihood), everything(exact), strict=True):
            assert value.dtype == torch.float64
            assert torch.equal(value, expected)
        assert likelihood.score().shape == z.shape


@names
def test_entropy_is_the_mean_of_minus_log_p(name: str):
    z = outputs_of(name, images=1)
    if name == "squared_error":
        expected = 4 * 0.5 * np.log(2 * np.pi * np.e)
    else:
        expected = sum(-p * np.log(p) for p, _ in outcomes_of(name, z[0]))
    assert find_loss(name).likelihood(z, None).entropy().tolist() == pytest.approx([expected], rel=1e-12, abs=0)


def test_rare_draws_are_the_expected_number_of_unlikely_outcomes():
    z = torch.tensor([[[0.0, 3.0, -2.0], [1.0, 0.0, 0.5]]], dtype=torch.float64)
    p = torch.softmax(z[0], 1)
    expected = float(2 - p[0, 1] - p[1, 0])
    for name, outputs in (("token_cross_entropy", z), ("pixel_cross_entropy", z.mT)):
        assert find_loss(name).likelihood(outputs, None).rare_draws().tolist() == pytest.approx([expected])
    binary = find_loss("binary_cross_entropy").likelihood(torch.tensor([[2.0, -1.0]]), None)
    assert binary.rare_draws().tolist() == pytest.approx([1 / (1 + np.e**2) + 1 / (1 + np.e)])
    assert find_loss("squared_error").likelihood(z, None).rare_draws().tolist() == [np.inf]


# --- positions ---------------------------------------------------------------------------------------------------

POSITIONS = [name for name in SHAPES if "cross" in name and "binary" not in name]


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_whose_label_is_ignored_do_not_count(name: str):
    """Nothing is sent back from them, and what the network says there changes nothing."""
    z, y = outputs_of(name), torch.tensor(LABELS[name])
    y[1] = IGNORED  # the whole second image
    likelihood = find_loss(name).likelihood(z, y)
    uniforms = numbers(likelihood, 2)
    vectors = [likelihood.propagated(uniforms), likelihood.sampled(uniforms), likelihood.score(), likelihood.column(0)]
    for v in vectors:
        assert float(v[0].abs().sum()) > 0
        assert torch.equal(v[1], torch.zeros_like(v[1]))
    assert float(likelihood.entropy()[1]) == float(likelihood.rare_draws()[1]) == 0
    other = z.clone()
    other[1] = torch.nan
    again = find_loss(name).likelihood(other, y)
    assert torch.equal(again.propagated(uniforms), vectors[0])
    assert torch.equal(again.entropy(), likelihood.entropy())


def test_the_last_position_predicts_no_token():
    z = outputs_of("next_token_cross_entropy")
    likelihood = find_loss("next_token_cross_entropy").likelihood(z, None)
    same = find_loss("token_cross_entropy").likelihood(z[:, :-1], None)
    uniforms = numbers(likelihood, 2)
    for v in (likelihood.propagated(uniforms), likelihood.sampled(uniforms), columns_of(likelihood).sum(-1)):
        assert torch.equal(v.reshape(z.shape)[:, -1], torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(likelihood.propagated(uniforms)[:, :-1], same.propagated(uniforms[:, :6]))
    torch.testing.assert_close(likelihood.entropy(), same.entropy(), rtol=1e-14, atol=0)
    assert likelihood.columns == same.columns == 2 * 2


def test_next_tokens_are_labels_one_position_on():
    z, y = outputs_of("next_token_cross_entropy"), torch.tensor([[0, 2, 1], [1, 1, 0]])
    shifted = find_loss("token_cross_entropy").likelihood(z[:, :-1], y[:, 1:]).score()
    assert torch.equal(find_loss("next_token_cross_entropy").likelihood(z, y).score()[:, :-1], shifted)


def test_token_and_pixel_layouts_agree_and_any_number_of_positions_does():
    z = torch.randn(2, 3, 2, 5, dtype=torch.float64)
    token = find_loss("token_cross_entropy").likelihood(z, None)
    pixel = find_loss("pixel_cross_entropy").likelihood(z.movedim(-1, 1), None)
    flat = find_loss("token_cross_entropy").likelihood(z.flatten(1, 2), None)
    assert token.columns == pixel.columns == flat.columns == 6 * 4
    for k in (0, 5, 23):
        assert torch.equal(pixel.column(k).movedim(1, -1), token.column(k))
        assert torch.equal(flat.column(k).reshape(z.shape), token.column(k))
    uniforms = numbers(token, 2)
    assert torch.equal(pixel.sampled(uniforms).movedim(1, -1), token.sampled(uniforms))
    channels_last = z.movedim(-1, 1).contiguous(memory_format=torch.channels_last)
    again = find_loss("pixel_cross_entropy").likelihood(channels_last, None)
    contiguous = find_loss("pixel_cross_entropy").likelihood(channels_last.contiguous(), None)
    assert torch.equal(again.propagated(uniforms), contiguous.propagated(uniforms))


@pytest.mark.parametrize("block", [1, 7, 30, 10_000])
def test_the_size_of_a_block_changes_nothing(block: int, monkeypatch):
    z, y = torch.randn(3, 5, 4, dtype=torch.float64), torch.randint(0, 5, (3, 4))
    likelihood = find_loss("pixel_cross_entropy").likelihood(z, y)
    expected = everything(likelihood)
    monkeypatch.setitem(softmax.BLOCKS, "cpu", block)
    for value, whole in zip(everything(likelihood), expected, strict=True):
        torch.testing.assert_close(value, whole, rtol=1e-14, atol=0)


class LargeResults(TorchDispatchMode):
    """Counts the new tensors of at least `size` elements, views of one memory as one."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.kept = size, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().nbytes() >= 8 * self.size:
            self.kept[result.untyped_storage().data_ptr()] = result  # kept, so that no address comes twice
        return result


@pytest.mark.parametrize("name", ["token_cross_entropy", "pixel_cross_entropy", "next_token_cross_entropy"])
def test_only_the_result_is_as_large_as_the_outputs(name: str, monkeypatch):
    monkeypatch.setitem(softmax.BLOCKS, "cpu", 32)
    z = torch.randn(4, 8, 8, dtype=torch.float32)
    likelihood = find_loss(name).likelihood(z, torch.randint(0, 8, (4, 8)))
    uniforms = numbers(likelihood, 4)
    own = {uniforms.untyped_storage().data_ptr(), z.untyped_storage().data_ptr()}
    for call, allowed in (
        (lambda: likelihood.propagated(uniforms), 1),
        (lambda: likelihood.sampled(uniforms), 1),
        (likelihood.score, 1),
        (lambda: likelihood.column(40), 1),
        (likelihood.entropy, 0),
        (likelihood.rare_draws, 0),
    ):
        with LargeResults(z.numel() // 2) as seen:
            call()
        assert len(seen.kept.keys() - own) == allowed


# --- sure networks -----------------------------------------------------------------------------------------------

SURE = {
    "forty_apart": [40.0, 0.0, -3.0, 2.0],
    "sixty_apart": [60.0, 0.0, 0.0, 0.0],
    "two_left": [40.0, 40.0, 0.0, -40.0],
}


@pytest.mark.parametrize("logits", SURE.values(), ids=SURE)
@pytest.mark.parametrize("name", ["token_cross_entropy", "pixel_cross_entropy"])
def test_a_sure_network_loses_nothing_to_cancellation(name: str, logits):
    """H to 1e-12 in units of sqrt(H_ii H_jj), though p (1 - p) in float64 would be zero for p = 1 - 1e-18."""
    z = torch.tensor([logits, [0.3, -0.2, 0.1, 0.0]], dtype=torch.float64)
    p = torch.softmax(z[0], 0)
    expected = -torch.outer(p, p)
    for j in range(4):
        expected[j, j] = p[j] * sum(p[k] for k in range(4) if k != j)
    unit = expected.diagonal().sqrt()
    classes_last = name == "token_cross_entropy"
    outputs = z if classes_last else z.T
    likelihood = find_loss(name).likelihood(outputs[None], torch.tensor([[1, IGNORED]]))

    def first(v):
        return (v if classes_last else v.mT)[..., 0, :]

    s = torch.cat([first(likelihood.column(k)) for k in range(3)]) / unit
    torch.testing.assert_close(s.T @ s, expected / torch.outer(unit, unit), rtol=0, atol=1e-12)
    v = first(all_signs(find_loss(name), outputs).reshape(-1, *outputs.shape)) / unit
    torch.testing.assert_close(v.T @ v / len(v), expected / torch.outer(unit, unit), rtol=0, atol=1e-12)
    assert ((v * unit).sum(1).abs() <= 1e-12 * unit.max()).all()  # 1 is in the null space of H
    torch.testing.assert_close(first(likelihood.score())[0], p - F.one_hot(torch.tensor(1), 4), rtol=1e-12, atol=0)
    at_top = find_loss(name).likelihood(outputs[None], torch.tensor([[0, IGNORED]])).score()
    assert float(first(at_top)[0, 0]) == pytest.approx(-float(p[1:].sum()), rel=1e-12, abs=0)
    assert float(likelihood.rare_draws()) == pytest.approx(
        float(1 - p[0] if p[0] < 0.9 else p[1:].sum()), rel=1e-12, abs=0
    )
    below = logits[0] - np.array(logits)
    entropy = float(p.numpy() @ below) + np.log1p(np.exp(-below[1:]).sum())
    one = find_loss(name).likelihood(outputs[None], torch.tensor([[0, IGNORED]]))
    assert float(one.entropy()) == pytest.approx(entropy, rel=1e-12, abs=0)


@pytest.mark.parametrize("gap", [-700.0, -40.0, 40.0, 700.0])
def test_a_sure_yes_or_no_loses_nothing_to_cancellation(gap: float):
    z = torch.tensor([[gap]], dtype=torch.float64)
    q = 1 / (1 + np.exp(abs(gap)))  # of the unlikely answer
    loss = find_loss("binary_cross_entropy")
    likely, likelihood = float(gap > 0), loss.likelihood(z, None)
    assert float(likelihood.column(0)) == pytest.approx(np.sqrt(q), rel=1e-12, abs=0)
    assert abs(float(loss.likelihood(z, torch.tensor([[likely]])).score())) == pytest.approx(q, rel=1e-12, abs=0)
    assert float(likelihood.entropy()) == pytest.approx(q * (1 + abs(gap)), rel=1e-12, abs=0)
    assert float(likelihood.rare_draws()) == pytest.approx(q, rel=1e-12, abs=0)


@names
def test_outputs_that_are_not_numbers_are_not_hidden(name: str):
    z = torch.full_like(outputs_of(name), torch.nan)
    likelihood = find_loss(name).likelihood(z, None)
    if name != "squared_error":  # its H does not depend on the outputs
        assert columns_of(likelihood).isnan().any()
        assert likelihood.propagated(numbers(likelihood, 2)).isnan().any()
        assert likelihood.entropy().isnan().all()
    scored = find_loss(name).likelihood(z, torch.tensor(LABELS[name]).clamp_min(0).clamp_max(2))
    assert scored.score().isnan().any()


def test_a_class_that_never_comes_has_no_part():
    z = torch.tensor([[0.0, -torch.inf, 1.0]], dtype=torch.float64)
    likelihood = find_loss("cross_entropy").likelihood(z, None)
    without = find_loss("cross_entropy").likelihood(z[:, [0, 2]], None)
    assert torch.equal(likelihood.entropy(), without.entropy())
    s, expected = columns_of(likelihood)[0], columns_of(without)[0]
    torch.testing.assert_close((s @ s.T)[[0, 2]][:, [0, 2]], expected @ expected.T, rtol=1e-14, atol=0)
    assert torch.equal((s @ s.T)[1], torch.zeros(3, dtype=torch.float64))


# --- what is refused ---------------------------------------------------------------------------------------------

OUTPUTS = {
    "positions_unnamed": ("cross_entropy", (2, 3, 4), r"\[images, classes\].*token_cross.*next_token.*pixel_cross"),
    "one_class": ("cross_entropy", (2, 1), r"at least 2 classes for loss='cross_entropy'.*'binary_cross_entropy'"),
    "no_class": ("cross_entropy", (2,), r"\[images, classes\].*got shape \[2\].*binary_cross_entropy"),
    "no_position": ("token_cross_entropy", (2, 3), r"\[images, \*positions, classes\].*One label an image.*'cross_ent"),
    "one_token_class": ("token_cross_entropy", (2, 3, 1), r"at least 2 classes for loss='token_cross_entropy'"),
    "one_pixel_class": ("pixel_cross_entropy", (2, 1, 4, 4), r"\[images, classes, \*positions\] with at least 2 cl"),
    "one_next_token": ("next_token_cross_entropy", (2, 1, 5), r"at least 2 positions.*the last predicts nothing"),
    "four_dimensions": ("next_token_cross_entropy", (2, 3, 4, 5), r"\[images, positions, classes\] for loss='next_t"),
    "empty": ("token_cross_entropy", (2, 0, 5), r"at least one image and position.*\[2, 0, 5\]"),
    "no_output": ("binary_cross_entropy", (2, 0), r"model outputs must be \[images, ...\]; got shape \[2, 0\]"),
    "scalar": ("squared_error", (), r"model outputs must be \[images, ...\]; got shape \[\]"),
}


@pytest.mark.parametrize(("name", "shape", "message"), OUTPUTS.values(), ids=OUTPUTS)
def test_outputs_that_do_not_fit(name: str, shape, message: str):
    with pytest.raises(ValueError, match=message):
        find_loss(name).check(torch.zeros(shape))


@names
def test_outputs_that_fit(name: str):
    find_loss(name).check(outputs_of(name))


WRONG_LABELS = {
    "shape": ("cross_entropy", [[1], [2]], r"one class index an image, shape \[2\].*got shape \[2, 1\]"),
    "token_shape": ("token_cross_entropy", [1, 2], r"one class index a position, shape \[2, 2\].*got shape \[2\]"),
    "pixel_shape": ("pixel_cross_entropy", [[1, 2], [0, 0]], r"shape \[2, 1, 2\], for loss='pixel_.*shape \[2, 2\]"),
    "float": ("cross_entropy", [1.0, 2.0], r"integer dtype for loss='cross_entropy'; got torch.float32.*labels.long"),
    "range": ("cross_entropy", [1, 7], r"from 0 to 3; got 1 to 7. Check that the model has one output for each class"),
    "void": (
        "pixel_cross_entropy",
        [[[1, 255]], [[0, IGNORED]]],
        r"got 0 to 255.*If 255 marks.*loss=CrossEntropy\('pixel_cross_entropy', ignore_index=255\)",
    ),
    "negative": ("token_cross_entropy", [[0, -1], [2, 2]], r"got -1 to 2.*ignore_index=-1"),
}


@pytest.mark.parametrize(("name", "labels", "message"), WRONG_LABELS.values(), ids=WRONG_LABELS)
def test_labels_that_do_not_fit_are_refused_by_every_estimator(name: str, labels, message: str):
    """Also where only a mask is made of them: a void label that is not `ignore_index` would count as a position."""
    with pytest.raises(ValueError, match=message):
        find_loss(name).likelihood(outputs_of(name), torch.tensor(labels))


SCORE_LABELS = {
    "binary_shape": ("binary_cross_entropy", [0, 1], r"one value in \[0, 1\] for each output, shape \[2, 2, 2\]"),
    "binary_range": ("binary_cross_entropy", [[[0, 1], [1, 2]]] * 2, r"one value in \[0, 1\].*got 0 to 2"),
    "binary_nan": ("binary_cross_entropy", [[[0, 1], [1, float("nan")]]] * 2, r"one value in \[0, 1\].*got nan"),
    "squared_shape": ("squared_error", [0.0, 1.0], r"labels must be one target for each output, shape \[2, 2, 2\]"),
}


@pytest.mark.parametrize(("name", "labels", "message"), SCORE_LABELS.values(), ids=SCORE_LABELS)
def test_labels_that_cannot_be_outcomes(name: str, labels, message: str):
    with pytest.raises(ValueError, match=message):
        find_loss(name).likelihood(outputs_of(name), torch.tensor(labels)).score()


@names
def test_a_score_needs_labels(name: str):
    with pytest.raises(ValueError, match=r"labels must be given for estimator='empirical'.*propagated"):
        find_loss(name).likelihood(outputs_of(name), None).score()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.bool, torch.float32])
def test_labels_of_any_dtype_that_can_hold_them(dtype):
    z = torch.tensor([[0.5], [-2.0]])
    for labels in (torch.tensor([[1], [0]]), torch.tensor([1, 0])):  # one output an image: [images] will do
        score = find_loss("binary_cross_entropy").likelihood(z, labels.to(dtype)).score()
        torch.testing.assert_close(score, z.double().sigmoid() - torch.tensor([[1.0], [0.0]]), rtol=1e-15, atol=0)
    if not dtype.is_floating_point and dtype != torch.bool:
        y = torch.tensor([1, 3])
        scores = [find_loss("cross_entropy").likelihood(outputs_of("cross_entropy"), y.to(d)) for d in (dtype, y.dtype)]
        assert torch.equal(scores[0].score(), scores[1].score())


# --- find_loss ---------------------------------------------------------------------------------------------------


def test_every_name_is_found():
    assert [loss.name for loss in LOSSES] == list(SHAPES)
    assert all(find_loss(loss.name) is loss for loss in LOSSES)
    mine = CrossEntropy("token_cross_entropy", ignore_index=0)
    assert find_loss(mine) is mine


@pytest.mark.parametrize("loss", ["hinge", 3, None])
def test_an_unknown_loss_lists_the_names(loss):
    with pytest.raises(ValueError, match=r"loss must be one of cross_entropy, token_cross_entropy, .*; got"):
        find_loss(loss)


def test_a_class_is_not_an_instance():
    with pytest.raises(ValueError, match=r"not a class; got CrossEntropyLoss. Write CrossEntropyLoss\(\)"):
        find_loss(nn.CrossEntropyLoss)
    with pytest.raises(ValueError, match=r"name must be one of cross_entropy, .*; got 'tokens'"):
        CrossEntropy("tokens")


def test_an_ignore_index_of_ones_own():
    z = outputs_of("token_cross_entropy")
    padded, y = torch.tensor([[2, 0], [1, 0]]), torch.tensor([[2, IGNORED], [1, IGNORED]])
    mine = CrossEntropy("token_cross_entropy", ignore_index=0).likelihood(z, padded)
    assert torch.equal(mine.score(), find_loss("token_cross_entropy").likelihood(z, y).score())


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_loss_of_torch(reduction: str):
    loss = find_loss(nn.CrossEntropyLoss(reduction=reduction, ignore_index=1))
    assert loss == CrossEntropy("cross_entropy", ignore_index=1, any_positions=True)
    images, pixels = outputs_of("cross_entropy"), outputs_of("pixel_cross_entropy")
    for z, name in ((images, "cross_entropy"), (pixels, "pixel_cross_entropy")):
        loss.check(z)
        y = torch.tensor(LABELS[name]).clamp_min(0)
        expected = CrossEntropy(name, ignore_index=1).likelihood(z, y)
        assert torch.equal(loss.likelihood(z, y).score(), expected.score())


def test_bce_with_logits_loss_of_torch():
    assert find_loss(nn.BCEWithLogitsLoss(reduction="sum")) == BinaryCrossEntropy()


class Focal(nn.CrossEntropyLoss):
    """A loss of one's own, derived from torch's."""


MODULES = {
    "weight": (nn.CrossEntropyLoss(weight=torch.ones(3)), r"-log p of a distribution; CrossEntropyLoss\(weight=.*p\(y"),
    "smoothing": (nn.CrossEntropyLoss(label_smoothing=0.1), r"\(label_smoothing=0.1\) is not.*has no Fisher.*without"),
    "bce_weight": (nn.BCEWithLogitsLoss(weight=torch.ones(3)), r"BCEWithLogitsLoss\(weight=...\) is not"),
    "pos_weight": (nn.BCEWithLogitsLoss(pos_weight=torch.ones(3)), r"BCEWithLogitsLoss\(pos_weight=...\) is not"),
    "mse": (nn.MSELoss(), r"got MSELoss. Instead say loss='squared_error'.*variance 1.*half the squared error"),
    "nll": (nn.NLLLoss(), r"got NLLLoss. Instead say loss='cross_entropy': softmax\(log p\) is p"),
    "bce": (nn.BCELoss(), r"got BCELoss. Instead return the logits and say loss='binary_cross_entropy'"),
    "gaussian": (nn.GaussianNLLLoss(), r"got GaussianNLLLoss. Instead say loss=lambda z: torch.distributions.Normal"),
    "poisson": (nn.PoissonNLLLoss(), r"got PoissonNLLLoss. Instead say loss=lambda z: .*Poisson\(z.exp\(\)\)"),
    "l1": (nn.L1Loss(), r"got L1Loss. Instead say loss=lambda z: torch.distributions.Laplace\(z, 1.0\)"),
    "huber": (nn.HuberLoss(), r"got HuberLoss. Instead give its distribution"),
    "derived": (Focal(), r"got Focal. Instead give its distribution"),
}


@pytest.mark.parametrize(("module", "message"), MODULES.values(), ids=MODULES)
def test_loss_modules_that_are_not_minus_log_p(module: nn.Module, message: str):
    with pytest.raises(ValueError, match=message):
        find_loss(module)
