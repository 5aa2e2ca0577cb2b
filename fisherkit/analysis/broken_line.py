"""A continuous line of a few straight pieces through noisy points."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

Values = Float64[np.ndarray, " row"]
MOST_KNOTS = 3  # rise, shoulder, fall, plateau
_ROUNDS = 4
_GRID, _ZOOMS = 9, 14  # 4^-14 of the space between two rows
_EXACT = 1e-24  # of the scatter: what is left is rounding


@dataclass(frozen=True, eq=False)
class BrokenLine:
    """The knots in ascending order, the line's height at both ends and at the knots, and the weighted squares left."""

    places: Values  # first row, knots, last row
    heights: Values
    squares: float

    @property
    def knots(self) -> Values:
        """Where the slope changes."""
        return self.places[1:-1]

    @property
    def highest(self) -> float:
        """Where the line is highest: a knot, or an end."""
        return float(self.places[int(np.argmax(self.heights))])


def broken_line(x: Values, y: Values, weight: Values, *, most_knots: int = MOST_KNOTS) -> BrokenLine:
    """The continuous piecewise linear fit by weighted least squares, its number of knots chosen by BIC.

        y ~ b0 + b1 x + sum_j c_j max(x - k_j, 0),        BIC(K) = n log(squares / n) + (2 + 2 K) log n

    A knot is added where it leaves the fewest squares (at a row, then all knots again in turn, then between the rows
    beside it), as long as BIC falls. x ascending; n rows take at most (n - 3) / 2 knots.
    """
    scale = float(x[-1] - x[0]) or 1.0
    unit, w = (x - x[0]) / scale, weight / weight.mean()
    scatter = float((w * np.square(y - np.average(y, weights=w))).sum())
    knots: tuple[float, ...] = ()
    squares, score = _squares(unit, y, w, knots), 0.0
    score = _bic(squares, scatter, len(x), 0)
    for count in range(1, min(most_knots, (len(x) - 3) // 2) + 1):
        more = _with_another(unit, y, w, knots)
        left = _squares(unit, y, w, more)
        if _bic(left, scatter, len(x), count) >= score:
            break
        knots, squares, score = more, left, _bic(left, scatter, len(x), count)
    places = np.array([0.0, *sorted(knots), 1.0])
    heights = _design(places, knots) @ _coefficients(unit, y, w, knots)
    return BrokenLine(x[0] + scale * places, heights, squares)


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
            found[place] = _between_rows(x, y, w, others, _best_row(x, y, w, others))
        if np.allclose(found, before, rtol=0, atol=1e-9):
            break
    return tuple(found)


def _best_row(x: np.ndarray, y: np.ndarray, w: np.ndarray, others: tuple[float, ...]) -> float:
    """The inner row at which one more knot leaves the fewest squares; all rows are tried at once."""
    return float(x[1:-1][int(np.argmax(_gains(x, y, w, others)(x[1:-1])))])


def _between_rows(x: np.ndarray, y: np.ndarray, w: np.ndarray, others: tuple[float, ...], row: float) -> float:
    """The best place of a knot between the rows beside the one given."""
    index, gains = int(np.searchsorted(x, row)), _gains(x, y, w, others)
    tried = [row, _zoomed(gains, x[index - 1], row), _zoomed(gains, row, x[index + 1])]
    return float(tried[int(np.argmax(gains(np.array(tried))))])


def _zoomed(gains: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> float:
    """The place of the maximum between two rows; there is one, so the grid points beside the best one hold it."""
    grid = np.linspace(low, high, _GRID)
    for _ in range(_ZOOMS):
        top = int(np.argmax(gains(grid)))
        grid = np.linspace(grid[max(top - 1, 0)], grid[min(top + 1, _GRID - 1)], _GRID)
    return float(grid[_GRID // 2])


def _gains(
    x: np.ndarray, y: np.ndarray, w: np.ndarray, others: tuple[float, ...]
) -> Callable[[np.ndarray], np.ndarray]:
    """How much of the squares one more knot takes away, for many places of it at once.

    With the other columns projected out, a column r removes (r . y)^2 / (r . r).
    """
    root = np.sqrt(w)
    basis, _ = np.linalg.qr(_design(x, others) * root[:, None])
    target = y * root - basis @ (basis.T @ (y * root))

    def of(places: np.ndarray) -> np.ndarray:
        columns = np.maximum(x[None, :] - places[:, None], 0.0) * root  # [knot, row]
        rest = columns - (columns @ basis) @ basis.T
        length = np.square(rest).sum(axis=1)
        free = length > 1e-10 * np.square(columns).sum(axis=1)  # not a knot that is there already
        return np.asarray(np.where(free, np.square(rest @ target) / np.where(free, length, 1.0), -1.0))

    return of
