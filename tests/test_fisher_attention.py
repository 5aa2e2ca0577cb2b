"""nn.MultiheadAttention by closed forms: what is refused, and that nothing is left behind."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from attention_models import Crossing, Encoder, Masked, SelfAttention
from reference import exact_per_image
from torch import Tensor, nn
from torch.nn.functional import linear

from fisherkit.fisher import fisher_trace


def built(model: nn.Module) -> nn.Module:
    return model.double().eval()


def sequences(images: int = 4, width: int = 4) -> Tensor:
    return torch.randn(images, 5, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Scaled(nn.MultiheadAttention):
    """A subclass may compute anything."""

    def forward(self, *args, **kwargs):
        output, weights = super().forward(*args, **kwargs)
        return 2 * output, weights


def test_a_subclass_goes_to_another_engine():
    model = built(SelfAttention())
    model.attention.__class__ = Scaled
    with pytest.raises(ValueError, match=r"layer 'attention' \(and 1 more\): there is no closed form for Scaled"):
        fisher_trace(model, sequences(width=3), engine="ghost")
    result = fisher_trace(model, sequences(width=3), estimator="exact")
    assert result.engines["attention"] == result.engines["attention.out_proj"] == "vmap"
    for layer, values in exact_per_image(model, sequences(width=3)).items():
        assert result[layer] == pytest.approx(float(values.mean()), rel=1e-10)


def test_a_replaced_forward_goes_to_another_engine():
    model = built(SelfAttention())
    original = model.attention.forward
    model.attention.forward = lambda *args, **kwargs: (3 * original(*args, **kwargs)[0], None)
    with pytest.raises(ValueError, match=r"layer 'attention' \(and 1 more\): the forward of MultiheadAtt"):
        fisher_trace(model, sequences(width=3), engine="ghost")
    result = fisher_trace(model, sequences(width=3), estimator="exact")
    for layer, values in exact_per_image(model, sequences(width=3)).items():
        assert result[layer] == pytest.approx(float(values.mean()), rel=1e-10)


def test_hooks_on_the_attention_are_part_of_the_model():
    model = built(SelfAttention())
    model.attention.register_forward_pre_hook(lambda module, args: tuple(2 * x for x in args[:1]) + args[1:])
    model.attention.register_forward_hook(lambda module, args, output: (torch.tanh(output[0]), output[1]))
    result = fisher_trace(model, sequences(width=3), estimator="exact", engine="ghost")
    for layer, values in exact_per_image(model, sequences(width=3)).items():
        assert result[layer] == pytest.approx(float(values.mean()), rel=1e-10)


@pytest.mark.parametrize("fails", [False, True], ids=["measured", "failed"])
def test_the_forward_is_put_back(fails: bool):
    model = built(Masked())
    before = set(vars(model.attention))
    if fails:
        model.out.register_forward_hook(lambda module, args, output: output if len(output) < 4 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fisher_trace(model, sequences())
    else:
        fisher_trace(model, sequences())
    assert set(vars(model.attention)) == before


def test_two_attentions_alike_do_not_meet():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.MultiheadAttention(4, 2, batch_first=True)
            self.second, self.out = deepcopy(self.first), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x, x, x)[0]
            return self.out(self.second(y, x, y)[0].sum(1))

    model = built(Two())
    result = fisher_trace(model, sequences(), estimator="exact", engine="ghost")
    for layer, values in exact_per_image(model, sequences()).items():
        assert result[layer] == pytest.approx(float(values.mean()), rel=1e-10)


def test_attention_between_images_is_one_joint_model():
    model = built(SelfAttention(batch_first=True))
    model.attention.batch_first = False  # images taken for positions
    model.forward = lambda x: model.out(model.attention(*[model.embed(x)] * 3)[0].sum(1))
    result = fisher_trace(model, sequences(width=3))
    assert set(result.engines.values()) == {"batch"}
    assert any("change with the other images" in note for note in result.notes)


def copied(q, k, v, w, b):
    """A projection as some other torch might write it: of copies."""
    return tuple(linear(q.clone(), part, own) for part, own in zip(w.chunk(3), b.chunk(3), strict=True))


def doubled(q, k, v, w, b):
    """Or of another weight than its own."""
    return tuple(linear(q, part, own) for part, own in zip((2 * w).chunk(3), b.chunk(3), strict=True))


heads = F.multi_head_attention_forward


def elsewhere(*args, **kwargs):
    """Or through code that is not seen."""
    return heads(*args, **kwargs)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("_in_projection_packed", copied),
        ("_in_projection_packed", doubled),
        ("multi_head_attention_forward", elsewhere),
    ],
    ids=["copied", "doubled", "unseen"],
)
def test_a_torch_that_computes_attention_otherwise_is_refused(name: str, other, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(F, name, other)
    with pytest.raises(ValueError, match=r"nn.MultiheadAttention of torch .* not known here; use engine='batch'"):
        fisher_trace(built(SelfAttention()), sequences(width=3))


def test_float32_and_batches_of_any_size():
    model = Crossing(same=True).eval()
    x = sequences(7).float()
    whole, cut = (fisher_trace(model, x, estimator="exact", engine="ghost", batch_size=size) for size in (7, 2))
    assert cut.trace == pytest.approx(whole.trace, rel=1e-5)


def test_the_fast_path_of_the_encoder_is_back_after_a_measurement():
    model, x = built(Encoder(1)), sequences()
    assert torch.backends.mha.get_fastpath_enabled()
    fisher_trace(model, x)
    assert torch.backends.mha.get_fastpath_enabled()
