"""Concentration over depth: values that can be counted on the fingers."""

import numpy as np
import pytest
from analysis_cases import NAN, run
from hypothesis import given
from hypothesis import strategies as st

from fisherkit.analysis import concentration


def layers(rows):
    return run(rows, layers=[f"layer{k}" for k in range(len(rows[0]))])


def test_known_rows():
    found = concentration(layers([[1, 1, 1, 1], [0, 0, 0, 2], [3, 0, 0, 1], [0, 0, 0, 0], [1, NAN, 1, 1]]))
    np.testing.assert_array_equal(found.epoch, [1, 2, 3, 4])
    np.testing.assert_allclose(found.share[:3], [[0.25] * 4, [0, 0, 0, 1], [0.75, 0, 0, 0.25]])
    np.testing.assert_allclose(found.entropy[:3], [np.log(4), 0, -0.75 * np.log(0.75) - 0.25 * np.log(0.25)])
    np.testing.assert_allclose(found.normalised_entropy[:2], [1, 0])
    np.testing.assert_allclose(found.centre[:3], [0.5, 1, 0.25])
    np.testing.assert_allclose(found.last_quarter[:3], [0.25, 1, 0.25])
    for values in (found.share, found.entropy, found.centre, found.last_quarter):
        assert np.isnan(values[3]).all()


@pytest.mark.parametrize(("count", "last"), [(1, 1), (4, 1), (5, 2), (8, 2), (20, 5)])
def test_the_last_quarter_is_rounded_up(count, last):
    found = concentration(layers([[1.0] * count]))
    assert found.last_quarter[0] == pytest.approx(last / count)


def test_a_single_layer_has_all():
    found = concentration(layers([[2.0]]))
    assert (found.entropy[0], found.centre[0]) == (0, 0)
    assert np.isnan(found.normalised_entropy[0])


@given(st.lists(st.floats(0.001, 1e3), min_size=2, max_size=9), st.floats(1e-6, 1e6))
def test_only_shares_count_and_all_stay_in_their_range(values, scale):
    found, scaled = concentration(layers([values])), concentration(layers([[scale * value for value in values]]))
    np.testing.assert_allclose(found.share, scaled.share, rtol=1e-9)
    assert found.share.sum() == pytest.approx(1)
    assert 0 <= found.normalised_entropy[0] <= 1 + 1e-12
    assert 0 <= found.centre[0] <= 1
    mirrored = concentration(layers([values[::-1]]))
    assert mirrored.centre[0] == pytest.approx(1 - found.centre[0])
    assert mirrored.entropy[0] == pytest.approx(found.entropy[0])


def test_negative_values_have_no_share():
    with pytest.raises(ValueError, match="name must be of a variable that is not negative; got 'fisher_true'"):
        concentration(layers([[1.0, -1.0]]))
