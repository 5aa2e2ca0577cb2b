"""The pieces of every closed form are the per-image gradient itself: norms and inner products between images."""

import pytest
import torch
from cases import BY_NAME, CASES, Case
from reference import jacobians, outputs

from fisherkit.fisher import ghost as ghost_module
from fisherkit.fisher.forms import form as form_module
from fisherkit.fisher.forms.form import Form
from fisherkit.fisher.forms.table import find_form
from fisherkit.fisher.ghost import ghost
from fisherkit.fisher.layers import trainable_layers
from fisherkit.fisher.plan import make_plan
from fisherkit.fisher.survey import survey
from fisherkit.fisher.undisturbed import undisturbed
from fisherkit.fisher.vectors import Vectors

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

CLOSED = [case for case in CASES if case.closed]


def norms_and_grams(case: Case, monkeypatch: pytest.MonkeyPatch):
    """Each layer's norms by its form, sums of squares of its blocks, Gram matrices of its blocks, and the reference."""
    model, inputs = case.build()
    model.eval()
    v = torch.randn_like(outputs(model, inputs))
    squares, grams = {}, {}

    def spied(layer):
        form = find_form(layer)

        def norms(layer, a):
            def given(g):
                blocks = [block.flatten(1) for block in form.blocks(layer, a, g)]
                squares[layer.name] = sum(block.square().sum(1) for block in blocks)
                grams[layer.name] = sum(block @ block.T for block in blocks)
                return form.norms(layer, a)(g)

            return given

        return Form(norms, form.blocks)

    monkeypatch.setattr(ghost_module, "find_form", spied)
    layers = trainable_layers(model)
    with undisturbed(model):
        found = survey(model, inputs, layers, lambda z: ())
        plan = make_plan(layers, found, engine="ghost", stochastic=True, batchnorm="eval")
        values = ghost(model, inputs, lambda z: Vectors(1, lambda _: v), plan.layers)
    rows = {name: [] for name in values}
    for i in range(len(v)):
        for name, j in jacobians(model, inputs, i).items():
            rows[name].append(v[i].reshape(-1) @ j)
    return (
        {name: value[0] for name, value in values.items()},
        squares,
        grams,
        {n: torch.stack(r) for n, r in rows.items()},
    )


def check(case: Case, monkeypatch: pytest.MonkeyPatch):
    norms, squares, grams, gradients = norms_and_grams(case, monkeypatch)
    assert set(norms) == set(squares) == set(gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(squares[name], norms[name], rtol=1e-10, atol=1e-14, msg=name)
        torch.testing.assert_close(grams[name], gradient @ gradient.T, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("case", CLOSED, ids=lambda case: case.name)
def test_blocks_are_the_gradient_of_each_image(case: Case, monkeypatch: pytest.MonkeyPatch):
    check(case, monkeypatch)


SEVERAL = [
    *("mlp", "sequence_linear", "embedding_padding", "cross_attention"),
    *("conv2d_grouped", "conv_transpose2d_grouped"),
]


@pytest.mark.parametrize("name", SEVERAL)
def test_large_gradients_come_in_several_pieces(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(form_module, "PIECE", 30)
    check(BY_NAME[name], monkeypatch)


def test_a_piece_is_never_empty_and_never_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(form_module, "PIECE", 30)
    assert list(form_module.spans(5, 14)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert list(form_module.spans(2, 1000)) == [slice(0, 1), slice(1, 2)]
    assert list(form_module.spans(2, 0)) == [slice(0, 2)]
