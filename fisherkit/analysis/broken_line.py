"""A continuous line of a few straight pieces through noisy points."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

Values = Float64[np.ndarray, " row"]
MOST_KNOTS = 6  # rise, shoulder, fall, plateau; a deficit that ends on the way; one to spare
_ROUNDS = 4
_EXACT = 1e-24  # of the scatter: what is left is rounding


@dataclass(frozen=True, eq=False)
class BrokenLine:
    """The knots in ascending order, and the line's height at both ends and at the knots.

    `covariance` is that of the heights given the knots, `squares` the chi-squared left, where weights are 1 / variance.
    """

    places: Values  # first row, knots, last row
    heights: Values
    covariance: Float64[np.ndarray, "place place"]
    squares: float

    @property
    def knots(self) -> Values:
        """Where the slope changes."""
        return self.places[1:-1]


def broken_line(x: Values, y: Values, weight: Values, *, most_knots: int = MOST_KNOTS) -> BrokenLine:
    """The continuous piecewise linear fit by weighted least squares, its number of knots chosen by BIC.

        y ~ b0 + b1 x + sum_j c_j max(x - k_j, 0),        BIC(K) = n log(squares / n) + (2 + 2 K) log n

    Knots are at rows: between two rows the line could rise as high as it likes. One more is added where it leaves the
    fewest squares, then all are moved in turn, until two more in a row have not lowered BIC. x ascending; n rows take
    at most (n - 3) / 2 knots.
    """
    scale = float(x[-1] - x[0]) or 1.0
    unit, w = (x - x[0]) / scale, weight / weight.mean()
    scatter = float((w * np.square(y - np.average(y, weights=w))).sum())
    knots: tuple[float, ...] = ()
    score = _bic(_squares(unit, y, w, knots), scatter, len(x), 0)
    more = knots
    for count in range(1, min(most_knots, (len(x) - 3) // 2) + 1):
        more = _with_another(unit, y, w, more)
        found = _bic(_squares(unit, y, w, more), scatter, len(x), count)
        if found < score:
            knots, score = more, found
        elif count > len(knots) + 1:
            break
    places = np.array([0.0, *sorted(knots), 1.0])
    design, at_places = _design(unit, knots), _design(places, knots)
    covariance = at_places @ np.linalg.pinv(design.T @ (design * weight[:, None])) @ at_places.T
    heights = at_places @ _coefficients(unit, y, weight, knots)
    return BrokenLine(x[0] + scale * places, heights, covariance, _squares(unit, y, weight, knots))


def _bic(squares: float, scatter: float, rows: int, knots: int) -> float:
    # the floor makes an exact fit final: no knot is better than none left to gain
    left = max(squares, _EXACT * scatter, np.finfo(float).tiny)
    return rows * float(np.log(left / rows)) + (2 + 2 * knots) * float(np.log(rows))


def _design(x: np.ndarray, knots: tuple[float, ...]) -> np.ndarray:
    return np.stack([np.ones_like(x), x, *(np.maximum(x - knot, 0.0) for knot in knots)], axis=-1)


def _coefficients(x: np.ndarray, y: np.ndarray, w: np.ndarray, knots: tuple[float, ...]) -> np.ndarray:
    root = np.sqrt(w)
    return np.asarray(np.linalg.lstsq(_design(x, knots) * root[:, None], y * root, rcond=None)[0])


def _squares(x: np.ndarray, y: np.ndarray, w: np.ndarray, knots: tuple[float, ...]) -> float:
    return float((w * np.square(y - _design(x, knots) @ _coefficients(x, y, w, knots))).sum())


def _with_another(x: np.ndarray, y: np.ndarray, w: np.ndarray, knots: tuple[float, ...]) -> tuple[float, ...]:
    """One knot more; all are moved in turn until none moves."""
    found = [*knots, _best_row(x, y, w, knots)]
    for _ in range(_ROUNDS):
        before = list(found)
        for place in range(len(found)):
            others = (*found[:place], *found[place + 1 :])
            found[place] = _best_row(x, y, w, others)
        if found == before:
            break
    return tuple(found)


def _best_row(x: np.ndarray, y: np.ndarray, w: np.ndarray, others: tuple[float, ...]) -> float:
    """The inner row at which one more knot leaves the fewest squares; all rows are tried at once.

    With the other columns projected out, a column r removes (r . y)^2 / (r . r).
    """
    root = np.sqrt(w)
    basis, _ = np.linalg.qr(_design(x, others) * root[:, None])
    columns = np.maximum(x[None, :] - x[1:-1, None], 0.0) * root  # [knot, row]
    rest = columns - (columns @ basis) @ basis.T
    removed = np.square(rest @ (y * root - basis @ (basis.T @ (y * root))))
    length = np.square(rest).sum(axis=1)
    free = length > 1e-10 * np.square(columns).sum(axis=1)  # not a knot that is there already
    gain = np.where(free, removed / np.where(free, length, 1.0), -1.0)
    return float(x[1:-1][int(np.argmax(gain))])
