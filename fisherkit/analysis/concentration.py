"""Where the Fisher information lies over depth."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from fisherkit.recording import Trajectory

Rows = Float64[np.ndarray, " row"]


@dataclass(frozen=True, eq=False)
class Concentration:
    """How a variable is spread over the layers, in the rows in which all layers were measured.

    With L layers in the order of the network, l = 0 .. L-1, and v_l >= 0 the value of a layer,

        share_l = v_l / sum_k v_k                        [row, layer]
        entropy = -sum_l share_l log share_l             nats; 0: one layer has all, log L: all have the same
        normalised_entropy = entropy / log L             0 .. 1; NaN for a single layer
        centre = sum_l share_l l / (L - 1)               0: all in the first layer, 1: all in the last
        last_quarter = sum of share_l over the last ceil(L / 4) layers

    NaN in a row whose values are all zero.
    """

    epoch: Rows
    share: Float64[np.ndarray, "row layer"]
    entropy: Rows
    normalised_entropy: Rows
    centre: Rows
    last_quarter: Rows


def concentration(trajectory: Trajectory, name: str = "fisher_true") -> Concentration:
    """The spread of a per-layer variable over depth, through time.

    Raises:
        ValueError: there is no such variable, or it is negative somewhere.
    """
    every = trajectory.variable(name)
    rows = np.flatnonzero(np.isfinite(every).all(axis=1))
    values = every[rows]
    if (values < 0).any():
        raise ValueError(f"name must be of a variable that is not negative; got {name!r}, which is in some row.")
    total = values.sum(axis=1, keepdims=True)
    share = np.where(total > 0, values / np.where(total > 0, total, 1.0), np.nan)
    count = share.shape[1]
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    depth = np.arange(count) / max(count - 1, 1)
    return Concentration(
        epoch=trajectory.series["epoch"][rows],
        share=share,
        entropy=entropy,
        normalised_entropy=entropy / np.log(count) if count > 1 else np.full(len(rows), np.nan),
        centre=share @ depth,
        last_quarter=share[:, -math.ceil(count / 4) :].sum(axis=1),
    )
