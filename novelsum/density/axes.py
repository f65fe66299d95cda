"""Points by the few axes along which they differ most, and a lower bound on their distances by those. NumPy only.

Of a point x, less the centre, Px are its coordinates along the axes and r_x the length of what they leave out. Then

    ‖x - y‖² >= ‖Px - Py‖² + (r_x - r_y)² = ‖x‖² + ‖y‖² - 2 (Px · Py + r_x · r_y)

because what is left out of two points has at most the product r_x · r_y. So one matrix product of the *short* rows
(Px, r_x) bounds all distances from below, and a pair above a known bound on the K-th distance needs no other look. It
holds for any axes: those only decide how many pairs are left.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.formula import Array
from novelsum.rows import Integers

Short = NDArray[np.float32]

LEFT_OUT, LONG = 0.1, 400
"""Axes are taken until they leave out this part of the squared lengths. Of more dimensions than so many it falls with
their root, as a pair that must be looked at in full costs the more."""
MOST_AXES = 384
_FEW_DIMENSIONS = 64
"""Up to so many coordinates are compared as they are."""
_STEP = 16
SAMPLE_ROWS = 4096
_BY_COVARIANCE = 1024
_ROUNDS = 3
_TILE_ROWS = 1024
_BEYOND = 1e6
"""Points so many times as far from the centre as most of the sample are left to the full comparison."""
_ALWAYS = 1e30
_ROUNDED = 1e-9
"""What float64, and axes that are not quite orthogonal, may take from the square of a length: never as much."""
_UNIT = float(np.finfo(np.float32).eps) / 2


@dataclass(frozen=True)
class Axes:
    """``centre`` (D,) float64, ``scale`` a power of two, ``axes`` (D, d) float64 or None for all coordinates."""

    centre: Array
    scale: float
    axes: Array | None = None

    @staticmethod
    def all(sample: Array) -> "Axes":
        """All coordinates, about the middle of some points (s, D)."""
        centre = np.median(sample, axis=0) if len(sample) else np.zeros(sample.shape[1])
        return Axes(centre, _scale(np.linalg.norm(sample - centre, axis=1)))

    @staticmethod
    def of(sample: Array) -> "Axes":
        """The principal axes of some points (s, D), as many as leave out little of the squared lengths."""
        axes = Axes.all(sample)
        if sample.shape[1] <= _FEW_DIMENSIONS or len(sample) < 2:
            return axes
        residuals = (sample - axes.centre) / axes.scale
        lengths = np.linalg.norm(residuals, axis=1, keepdims=True)
        residuals = (residuals / np.maximum(lengths, 1.0)).astype(np.float32)  # no outlier decides alone
        found, squares = _principal(residuals)
        left = 1 - np.cumsum(squares) / max(float(np.square(residuals).sum(dtype=np.float64)), 1e-300)
        wanted = int(np.searchsorted(-left, -LEFT_OUT * min(1.0, LONG / sample.shape[1]) ** 0.5)) + 1
        wanted = min(-(-wanted // _STEP) * _STEP, MOST_AXES, found.shape[1])
        return Axes(axes.centre, axes.scale, np.ascontiguousarray(found[:, :wanted]))

    @property
    def error(self) -> float:
        """The part of ‖x‖²/2 + ‖y‖²/2 that a float32 product of short rows is off at most.

        A product of n numbers errs by n roundings of ‖x‖·‖y‖, which is at most that sum; casts and norms add a few.
        """
        return 1.1 * (self.width + 10) * _UNIT

    @property
    def width(self) -> int:
        """Columns of a short row."""
        return (len(self.centre) if self.axes is None else self.axes.shape[1]) + 2

    def shorten(self, vectors: NDArray[np.floating[Any]], lengths: Array) -> Short:
        """The points vectors (n, D) / lengths (n,) as short rows (n, d + 2): Px, r_x, and -‖x‖²/2 above its error.

        In the product with (Py, r_y, 1) that is the greater the less the bound on the distance of x and y.
        """
        short: Short = np.zeros((len(vectors), self.width), dtype=np.float32)
        for start in range(0, len(vectors), _TILE_ROWS):
            tile = slice(start, start + _TILE_ROWS)
            residuals = vectors[tile] / lengths[tile, None]
            residuals -= self.centre
            residuals /= self.scale
            squares = np.einsum("ij,ij->i", residuals, residuals)
            near = squares < _BEYOND**2
            residuals[~near] = 0.0
            of_tile = short[tile]
            if self.axes is None:
                of_tile[:, :-2] = residuals
            else:
                projected = residuals @ self.axes
                left = squares - np.einsum("ij,ij->i", projected, projected)
                of_tile[:, :-2] = projected
                of_tile[:, -2] = np.sqrt(np.maximum(left, 0.0) + _ROUNDED * np.where(near, squares, 0.0))
            of_tile[:, -1] = np.where(near, -squares * (0.5 - self.error), _ALWAYS)
        return short

    def sought(self, short: Short) -> tuple[Short, Array]:
        """Short rows (m, d + 2) as they are multiplied with others, and ‖x‖²/2 (m,) below its error."""
        rows = short.copy()
        rows[:, -1] = 1.0
        last = short[:, -1].astype(np.float64)
        halves = np.where(last > 0, -np.inf, -last * (0.5 - self.error / 2) / (0.5 - self.error))
        return rows, halves


def _scale(lengths: Array) -> float:
    """A power of two at most twice as large as nearly all of some lengths (s,), 1 where these are zero."""
    usual = float(np.quantile(lengths, 0.95)) if len(lengths) else 0.0
    return float(2.0 ** np.ceil(np.log2(usual))) if 0 < usual < np.inf else 1.0


def evenly(count: int, wanted: int) -> Integers:
    """Places of about so many of ``count`` rows, or of all."""
    return np.arange(0, count, max(1, -(-count // wanted)))


def _principal(residuals: NDArray[np.float32]) -> tuple[Array, Array]:
    """Orthonormal axes (D, d) along which residuals (s, D) are longest, and their squared lengths there (d,)."""
    dimension = residuals.shape[1]
    if dimension <= _BY_COVARIANCE:
        squares, axes = np.linalg.eigh((residuals.T @ residuals).astype(np.float64))
        return axes[:, ::-1], np.maximum(squares[::-1], 0.0)
    axes = np.random.default_rng(0).normal(size=(dimension, min(MOST_AXES + _STEP, len(residuals)))).astype(np.float32)
    for _ in range(_ROUNDS):
        axes = np.linalg.qr(residuals.T @ (residuals @ axes))[0]
    along = (residuals @ axes).astype(np.float64)
    squares, turn = np.linalg.eigh(along.T @ along)
    return np.linalg.qr(axes @ turn[:, ::-1])[0].astype(np.float64), np.maximum(squares[::-1], 0.0)
