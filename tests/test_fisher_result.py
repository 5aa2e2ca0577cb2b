"""The printed result: one table whatever the names, and what a reader must know above and below it."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from fisherkit.fisher import FisherTrace, fisher_trace

LONG = "encoder_of_the_first_stage_with_a_rather_long_name.block_of_attention.output_projection"


def result(*names: str, **options) -> FisherTrace:
    """Of a chain of layers with these names."""
    torch.manual_seed(0)
    model = nn.Module()
    layers = [nn.Linear(5, 5) for _ in names]
    for name, layer in zip(names, layers, strict=True):
        *path, last = name.split(".")
        owner = model
        for part in path:
            owner.add_module(part, getattr(owner, part, nn.Module()))
            owner = getattr(owner, part)
        owner.add_module(last, layer)
    model.forward = nn.Sequential(*layers).forward
    return fisher_trace(model, torch.randn(40, 5), **options)


def test_the_table_as_it_is():
    lines = str(result("first", "second", population=200, draws=2)).split("\n")
    assert lines[0] == (
        "True Fisher trace, propagated, 2 draws, 40 of 200 images, cross_entropy, batchnorm=eval, float32, seed 0 "
        "(nats²; ± standard error)"
    )
    assert lines[1] == "layer         trace          ±   share  parameters  engine"
    assert re.fullmatch(r"first  [ \d.]{12}  [ \d.]{9}  [ \d.]{5}% {10}30  ghost", lines[2])
    assert re.fullmatch(r"second [ \d.]{12}  [ \d.]{9}  [ \d.]{5}% {10}30  ghost", lines[3])
    assert re.fullmatch(r"total  [ \d.]{12}  [ \d.]{9}    100% {10}60", lines[4])


def test_a_long_name_has_a_line_of_its_own_and_moves_no_column():
    lines = str(result("first", LONG)).split("\n")
    place = lines.index(LONG)
    header, first, values, total = lines[1], lines[2], lines[place + 1], lines[place + 2]
    assert max(map(len, (header, first, values, total))) <= 120
    assert values.startswith("       ")
    assert first.index("ghost") == values.index("ghost") == header.index("engine")
    assert total.startswith("total ")


def test_only_long_names():
    lines = str(result(LONG)).split("\n")
    assert lines[1].startswith("layer   ")
    assert lines[2] == LONG
    assert lines[3].startswith("     ")


@pytest.mark.parametrize("length", [60, 61])
def test_names_up_to_sixty_letters_stay_in_their_row(length: int):
    name = "x" * length
    lines = str(result(name)).split("\n")
    assert (lines[2] == name) == (length > 60)
    assert max(map(len, lines[1:4])) <= 120


def test_intervals_have_the_level_asked_for():
    found = result("first", "second")
    narrow, wide = found.interval(0.5), found.interval(0.99)
    assert narrow.shape == wide.shape == (2, 2)
    assert (wide[:, 0] < narrow[:, 0]).all()
    assert (narrow[:, 0] < found.trace).all()
    assert (found.trace < narrow[:, 1]).all()
    assert (narrow[:, 1] < wide[:, 1]).all()
    assert found.total_interval().shape == (2,)
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        found.total_interval(95)


def test_one_image_has_no_interval():
    found = fisher_trace(nn.Linear(3, 4), torch.randn(1, 3))
    assert np.isnan(found.interval()).all()
    assert np.isnan(found.total_interval()).all()
    assert np.isnan(found.total_skewness)
    assert not any("carry" in note for note in found.notes)
