"""Is the fall of the trace one of confidence: made-up runs in which it is, and is not."""

import dataclasses

import numpy as np
import pytest
from analysis_cases import pieces, run

from fisherkit.analysis import confound

EPOCHS = np.arange(1.0, 31.0)
FISHER = pieces(EPOCHS, (1, 0.0), (10, 2.0), (30, 0.0))


def made(entropy_fall, *, norm_growth=0.0, **more):
    entropy = pieces(EPOCHS, (1, 0.5), (10, 0.0), (30, -entropy_fall))
    found = run(FISHER, series={"entropy": entropy}, **more)
    norm = pieces(EPOCHS, (1, 0.0), (10, 0.0), (30, norm_growth))[:, None]
    return dataclasses.replace(found, variables={**found.variables, "weight_norm": norm})


@pytest.mark.parametrize(
    ("fall", "verdict"),
    [
        (2.0, "confidence can account for the fall"),
        (3.0, "confidence can account for the fall"),
        (1.0, "confidence can account for a part of the fall"),
        (0.1, "the fall is not one of confidence"),
        (-1.0, "the fall is not one of confidence"),
    ],
)
def test_the_falls_are_compared_from_the_peak_of_the_trace_on(fall, verdict):
    found = confound(made(fall))
    assert found.verdict == verdict
    assert found.fisher_fall == pytest.approx(2, abs=1e-3)
    assert found.entropy_fall == pytest.approx(fall, abs=1e-3)
    assert found.explained == pytest.approx(fall / 2, abs=1e-3)
    assert found.fisher.peak_epoch == 10
    assert found.entropy.shape == ("falls" if fall > 0 else found.entropy.shape)


def test_growing_weights_are_taken_out():
    found = confound(made(0.1, norm_growth=0.7))
    assert found.scale_invariant_fall == pytest.approx(2 - 2 * 0.7, abs=1e-3)
    assert found.weight_norm.shape == "rises"


def test_without_a_fall_or_an_entropy_there_is_nothing_to_compare():
    rising = run(pieces(EPOCHS, (1, 0.0), (30, 3.0)), series={"entropy": 1 / EPOCHS})
    found = confound(rising)
    assert found.verdict == "no fall to account for"
    assert np.isnan(found.explained)
    assert found.entropy.shape == "falls"
    bare = confound(run(FISHER))
    assert bare.verdict == "the entropy is not recorded"
    assert bare.entropy is bare.weight_norm is None
    assert confound(made(1.0, attributes={"exploded": "inf"})).verdict == "no fall to account for"


def test_the_entropy_of_the_same_probe_is_taken():
    base = made(2.0)
    probe = {"fisher_true_deficit": base.variables["fisher_true"]}
    found = dataclasses.replace(
        base, variables={**base.variables, **probe}, series={**base.series, "entropy_deficit": np.ones(30)}
    )
    assert confound(found, "fisher_true_deficit").verdict == "the fall is not one of confidence"
    assert confound(found).verdict == "confidence can account for the fall"
