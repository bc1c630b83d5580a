"""How strongly measured spots express a gene program, in a unit that slides share."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from stp._progress import track
from stp.tables.profiles import profiles

if TYPE_CHECKING:
    from anndata import AnnData

CONSTANT = 1e-6  # a standard deviation below it is that of values that do not vary


def score_program(
    tables: Mapping[str, "AnnData"],
    columns: Mapping[str, np.ndarray],
    weights: np.ndarray,
    slides: np.ndarray,
    *,
    layer: str | None,
    is_usable: np.ndarray,
) -> np.ndarray:
    """Return how strongly each spot expresses a program: (n_spots,), NaN if it is not usable.

    Each gene is standardized within its slide, so that its mean is 0 and its standard deviation 1.
    The score is the weighted sum over the genes, standardized within the slide again. A gene that
    does not vary in a slide counts as 0 there. Tables on disk are read in blocks, twice.

    Parameters
    ----------
    tables
        Tables by their labels.
    columns
        Columns (n_genes,) of the genes in each table.
    weights
        Weights (n_genes,).
    slides
        Number of the slide of each spot (n_spots,), counted through all tables.
    layer
        Layer with the expression; raw counts become log1p of counts per 10,000.
    is_usable
        Whether a spot (n_spots,) is scored and counts in the means.
    """
    n_slides = int(slides.max(initial=-1)) + 1
    number = np.bincount(slides[is_usable], minlength=n_slides)[:, None].clip(1)
    totals = np.zeros((n_slides, len(weights)))
    squares = np.zeros_like(totals)
    for rows, block in _read(tables, columns, layer, is_usable, "average the program"):
        values = block.astype(np.float64)
        for slide in np.unique(slides[rows]):
            own = values[slides[rows] == slide]
            totals[slide] += own.sum(axis=0)
            squares[slide] += (own**2).sum(axis=0)
    means = totals / number
    sd = np.sqrt(np.maximum(squares / number - means**2, 0))
    scale = np.divide(weights, sd, out=np.zeros_like(sd), where=sd > CONSTANT)
    scores = np.full(len(slides), np.nan)
    for rows, block in _read(tables, columns, layer, is_usable, "score the program"):
        own = slides[rows]
        scores[rows] = ((block - means[own]) * scale[own]).sum(axis=1)
    return _standardize(scores, slides, is_usable, n_slides)


def _read(
    tables: Mapping[str, "AnnData"],
    columns: Mapping[str, np.ndarray],
    layer: str | None,
    is_usable: np.ndarray,
    title: str,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows (m,), counted through all tables, and their profiles (m, n_genes)."""
    first = 0
    for label, table in track(tables.items(), title, "reference"):
        rows = np.flatnonzero(is_usable[first : first + table.n_obs])
        n_read = 0
        if len(rows):
            for block in profiles(table, layer, columns[label], rows):
                yield first + rows[n_read : n_read + len(block)], block
                n_read += len(block)
        first += table.n_obs


def _standardize(
    scores: np.ndarray, slides: np.ndarray, is_usable: np.ndarray, n_slides: int
) -> np.ndarray:
    """Return scores with a mean of 0 and a standard deviation of 1 in each slide."""
    own = slides[is_usable]
    values = scores[is_usable]
    number = np.bincount(own, minlength=n_slides).clip(1)
    means = np.bincount(own, values, n_slides) / number
    off = values - means[own]
    sd = np.sqrt(np.bincount(own, off**2, n_slides) / number)
    standardized = np.full(len(scores), np.nan)
    standardized[is_usable] = np.divide(
        off, sd[own], out=np.zeros_like(off), where=sd[own] > CONSTANT
    )
    return standardized


def choose_extremes(
    scores: np.ndarray, slides: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the spots of highest and of lowest score in each slide, in ascending order.

    Of a slide with n scored spots, it is `share * n`, and at least one, of each kind. The highest
    have a score above 0 and the lowest below. Of spots with equal scores, some are drawn with a
    fixed seed, because the first in the table often lie side by side.

    Parameters
    ----------
    scores
        Scores (n_spots,); NaN is not chosen.
    slides
        Number of the slide of each spot (n_spots,).
    share
        Share of the scored spots of a slide, up to 0.5.
    """
    rng = np.random.default_rng(0)
    highest = []
    lowest = []
    for slide in np.unique(slides):
        rows = rng.permutation(np.flatnonzero((slides == slide) & np.isfinite(scores)))
        n = min(max(round(share * len(rows)), 1), len(rows) // 2)
        order = rows[np.argsort(scores[rows], kind="stable")]
        lowest.append(order[:n][scores[order[:n]] < 0])
        top = order[len(order) - n :]
        highest.append(top[scores[top] > 0])
    return np.sort(np.concatenate(highest)), np.sort(np.concatenate(lowest))
