"""Is the fall of the Fisher trace more than growing confidence? Its phases beside those of entropy and weight norm."""

from dataclasses import dataclass

import numpy as np

from fisherkit.analysis.curve import Curve, curve
from fisherkit.analysis.phases import Phases, phases
from fisherkit.recording import Trajectory

MOST, SOME = 0.8, 0.2  # of the fall of the logarithm
_NAN = float("nan")


@dataclass(frozen=True)
class Confound:
    """The trace, the entropy of the predictions and the norm of all weights; None where not recorded.

    Falls are differences of natural logarithms between the peak of the trace and its last row. `explained` is the fall
    of the entropy over that of the trace; `scale_invariant_fall` that of tr F times the squared weight norm.
    """

    verdict: str
    fisher: Phases
    entropy: Phases | None
    weight_norm: Phases | None
    fisher_fall: float = _NAN
    entropy_fall: float = _NAN
    explained: float = _NAN
    scale_invariant_fall: float = _NAN


def confound(trajectory: Trajectory, name: str = "fisher_true") -> Confound:
    """Compare the fall of the trace with that of the entropy, from the peak of the trace on.

    For softmax cross-entropy tr F = E[ tr J^T (diag(p) - p p^T) J ]: with the network's Jacobian J as it is, the trace
    falls as p (1 - p) does when predictions become confident, and so does the entropy, up to a logarithm (q log 1/q for
    an error probability q). So explained = (log H_peak - log H_last) / (log F_peak - log F_last) near or above 1 says
    that confidence alone can account for the fall, near 0 that the Jacobian shrank. A growing norm of scale-invariant
    weights (those before a batchnorm) lowers tr F by its square without changing the function: `scale_invariant_fall`
    leaves that out.

        explained >= 0.8:  "confidence can account for the fall"
        0.2 to 0.8:        "confidence can account for a part of the fall"
        < 0.2:             "the fall is not one of confidence"

    Raises:
        ValueError: there is no such variable.
    """
    suffix = name.removeprefix("fisher_true").removeprefix("fisher_empirical")
    entropy = f"entropy{suffix}" if f"entropy{suffix}" in trajectory.series else "entropy"
    known = {*trajectory.series, *trajectory.variables}
    fisher = phases(trajectory, name)
    confidence = phases(trajectory, entropy) if entropy in known else None
    norm = phases(trajectory, "weight_norm") if "weight_norm" in known else None
    if not np.isfinite(fisher.forgotten):
        return Confound("no fall to account for", fisher, confidence, norm)
    fall = -float(np.log1p(-fisher.forgotten))
    lost = _fall(curve(trajectory, entropy), fisher.peak_epoch) if confidence else _NAN
    grown = -_fall(curve(trajectory, "weight_norm"), fisher.peak_epoch) if norm else _NAN
    return Confound(_verdict(lost / fall), fisher, confidence, norm, fall, lost, lost / fall, fall - 2 * grown)


def _fall(found: Curve, since: float) -> float:
    """The fall of the logarithm from an epoch to the last row."""
    return float(np.interp(since, found.epoch, found.log) - found.log[-1]) if len(found) else _NAN


def _verdict(explained: float) -> str:
    if not np.isfinite(explained):
        return "the entropy is not recorded"
    if explained >= MOST:
        return "confidence can account for the fall"
    return "confidence can account for a part of the fall" if explained >= SOME else "the fall is not one of confidence"
