"""Rank correlation of two maps on a grid, and its null distribution by toroidal shifts."""

from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.stats import rankdata

MIN_OVERLAP = 0.25  # share of the places that a shift must lay on others
MIN_SHIFTS = 20  # of a usable null distribution
BLOCK_BYTES = 1 << 26  # of maps that are transformed at a time


class ShiftedCorrelations(NamedTuple):
    """Rank correlations of one map with many others, and those of shifted maps.

    Parameters
    ----------
    correlation
        Spearman correlation with each other map (n_others,); NaN if a map is constant.
    null
        The same for each shift (n_shifts, n_others).
    """

    correlation: np.ndarray
    null: np.ndarray

    def standardized(self) -> np.ndarray:
        """Return correlations (n_others,) minus the mean of the null, by its standard deviation."""
        if not len(self.null):
            return np.full(len(self.correlation), np.nan)
        deviation = self.null.std(axis=0)
        centered = self.correlation - self.null.mean(axis=0)
        is_constant = ~(deviation > 0)
        return np.divide(
            centered, deviation, out=np.full(len(centered), np.nan), where=~is_constant
        )


def shifted_correlations(
    values: np.ndarray,
    others: np.ndarray,
    cells: np.ndarray,
    *,
    n_shifts: int = 500,
    seed: int | tuple[int, ...] = 0,
) -> ShiftedCorrelations:
    """Return rank correlations of a map with others, and those after toroidal shifts of the map.

    The map is moved over the rectangle around the tissue; what leaves it on one side enters on the
    other. So the map keeps its autocorrelation, and loses its relation to the others. Tissue is
    no rectangle: only pairs of places that both have tissue count, as in a correlation with missing
    values. A shift is used if it has at least a quarter of all pairs. If there are more than
    `n_shifts` of them, that many are drawn without replacement; the same for all others.

    This is valid if maps are independent and their law is the same all over the tissue: then each
    shift has the same expected correlation. A shift has fewer pairs than no shift, so its
    correlation varies more, which makes the test conservative. Ranks are those of the whole map.

    Parameters
    ----------
    values
        The map (n,), a value for each place.
    others
        The maps (n, n_others) that it is compared with.
    cells
        Row and column of each place on the grid (n, 2), as whole numbers.
    n_shifts
        Largest number of shifts.
    seed
        Random seed for the choice of the shifts.
    """
    cells = cells - cells.min(axis=0)
    shape = tuple(int(size) for size in cells.max(axis=0) + 1)
    place = np.ravel_multi_index(tuple(cells.T), shape)
    if len(np.unique(place)) < len(place):
        raise ValueError("two places have the same cell of the grid; keep one of them")
    ranks = standardized_ranks(values[:, None])
    mask = _transform(np.ones((len(place), 1)), place, shape)[0]
    n_pairs = _correlate(mask, mask, shape).round()
    shifts = _choose_shifts(n_pairs, len(place), n_shifts, seed)
    transformed = _transform(np.column_stack([ranks, ranks**2]), place, shape)
    shared = _Shared(mask, transformed[0], n_pairs, shifts, shape)
    sums = np.stack([_correlate(part, mask, shape)[shifts] for part in transformed])
    null = np.empty((len(shifts), others.shape[1]))
    correlation = np.empty(others.shape[1])
    block = max(1, BLOCK_BYTES // (n_pairs.size * 16))
    for start in range(0, others.shape[1], block):
        columns = slice(start, start + block)
        other_ranks = standardized_ranks(others[:, columns])
        correlation[columns] = ranks[:, 0] @ other_ranks / len(place)
        null[:, columns] = _shift_block(shared, sums, other_ranks, place)
    null[:, np.isnan(correlation)] = np.nan
    return ShiftedCorrelations(correlation, null)


def standardized_ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks of each column (n, m) with mean 0 and variance 1; NaN if it is constant."""
    ranks = rankdata(values, axis=0)
    ranks -= ranks.mean(axis=0)
    deviation = np.sqrt((ranks**2).mean(axis=0))
    is_constant = deviation == 0
    return np.where(is_constant, np.nan, ranks / np.where(is_constant, 1, deviation))


class _Shared(NamedTuple):
    """What all blocks of maps share."""

    mask: np.ndarray  # transformed
    ranks: np.ndarray  # transformed
    n_pairs: np.ndarray  # of each shift
    shifts: np.ndarray  # positions in it
    shape: tuple[int, ...]


def _shift_block(
    shared: _Shared, sums: np.ndarray, other_ranks: np.ndarray, place: np.ndarray
) -> np.ndarray:
    """Return the correlations (n_shifts, m) over the pairs of each shift."""
    other_ranks = np.nan_to_num(other_ranks)
    others = _transform(other_ranks, place, shared.shape)
    squares = _transform(other_ranks**2, place, shared.shape)
    shape = shared.shape
    shifts = shared.shifts
    n = shared.n_pairs[shifts][:, None]
    total, total_of_squares = sums[:, :, None]
    other_total = _correlate(shared.mask, others, shape)[:, shifts].T
    other_squares = _correlate(shared.mask, squares, shape)[:, shifts].T
    products = _correlate(shared.ranks, others, shape)[:, shifts].T
    variance = (n * total_of_squares - total**2).clip(0)
    other_variance = (n * other_squares - other_total**2).clip(0)
    scale = np.sqrt(variance * other_variance)
    covariance = n * products - total * other_total
    # Rounding of the transforms leaves about 1e-12 of the square of the number of places.
    is_constant = scale <= 1e-9 * n**2
    return np.divide(covariance, scale, out=np.zeros_like(covariance), where=~is_constant)


def _choose_shifts(
    n_pairs: np.ndarray, n_places: int, n_shifts: int, seed: int | tuple[int, ...]
) -> np.ndarray:
    """Return the shifts that are used, as positions in the flat grid, in ascending order."""
    usable = np.flatnonzero(n_pairs >= MIN_OVERLAP * n_places)
    usable = usable[usable != 0]
    if len(usable) > n_shifts:
        usable = np.sort(np.random.default_rng(seed).choice(usable, n_shifts, replace=False))
    return usable


def _transform(values: np.ndarray, place: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the Fourier transform of each column (n, m) on the grid; empty cells are zero."""
    grids = np.zeros((values.shape[1], shape[0] * shape[1]))
    grids[:, place] = values.T
    return fft.rfft2(grids.reshape(-1, *shape))


def _correlate(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return for each shift the sum of products with the shifted map, the shifts flattened."""
    sums = fft.irfft2(first.conj() * second, s=shape)
    return sums.reshape(*sums.shape[:-2], -1)
