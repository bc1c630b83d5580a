"""The lattice of the spots of a slide: its fit, its kind, and the scale that it gives."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from stp._log import warn

if TYPE_CHECKING:
    import pandas as pd

VISIUM_PITCH_UM = 100.0  # between neighboring spots; 10x, hexagonal
HEXAGONAL_RATIO = 3**0.5  # between rows, in units of the distance between columns
# Rows and columns of a lattice may be this much closer or farther apart than its kind asks for.
MAX_STRETCH = 0.1
# A fit counts if the root mean square of its residuals is below this share of the pitch. The
# jittered spots of HER2+ sections have 5 to 9 % (method.md section 4).
MAX_RESIDUAL = 0.1
INDEX_NAMES = (("array_row", "array_col"), ("array_y", "array_x"))  # rows, then columns
MIN_SPOTS = 16  # fewer may lie anywhere
MIN_COSINE = 0.87  # of the angle to an axis of the image: 30 degrees


@dataclass(frozen=True)
class Lattice:
    """A regular arrangement of spots.

    Parameters
    ----------
    kind
        "hexagonal" as in Visium; "square"; or "other", which gives no scale.
    row_distance
        Distance between rows, in the unit of the spot centers.
    column_distance
        Distance between columns. Neighbors in a row of a hexagonal lattice are two columns apart.
    """

    kind: Literal["hexagonal", "square", "other"]
    row_distance: float
    column_distance: float

    def um_per_unit(self, pitch_um: float | None = None) -> float | None:
        """Return µm per unit of the spot centers, or None if the pitch is unknown.

        Parameters
        ----------
        pitch_um
            µm between neighboring spots; by default 100 for a hexagonal lattice, which is that of
            Visium, and unknown for all others.
        """
        if self.kind == "hexagonal":
            pitch_um = VISIUM_PITCH_UM if pitch_um is None else pitch_um
            area_um = pitch_um * HEXAGONAL_RATIO / 2 * pitch_um / 2
        elif self.kind == "square" and pitch_um is not None:
            area_um = pitch_um * pitch_um
        else:
            return None
        return float((area_um / self.row_distance / self.column_distance) ** 0.5)


class LatticeScale(NamedTuple):
    """The sources of scale that a lattice gives."""

    um_per_unit: dict[str, float | None]  # by the name of the source
    is_square: bool  # a square grid, which says nothing about its pitch


def lattice_scale(
    obs: "pd.DataFrame",
    centers: np.ndarray,
    *,
    spot_pitch_um: float | None = None,
    known_pitch_um: float | None = None,
) -> LatticeScale:
    """Return µm per unit of `centers` as the lattice of the spots gives it.

    Parameters
    ----------
    obs
        Table of the spots with their lattice indices `array_row` and `array_col`.
    centers
        Spot centers (n, 2) in any unit.
    spot_pitch_um
        µm between neighboring spots as the caller gives it, or None.
    known_pitch_um
        µm between neighboring spots that the data give, as for the bins of Visium HD.

    Raises
    ------
    ValueError
        `spot_pitch_um` is no distance, or there is no lattice to which it applies.
    """
    if spot_pitch_um is not None and not 0 < spot_pitch_um < np.inf:
        raise ValueError(f"spot_pitch_um={spot_pitch_um:g} is no distance in µm between spots")
    lattice = fit_lattice(obs, centers)
    if lattice is None or lattice.kind == "other":
        if spot_pitch_um is not None:
            raise ValueError(
                f"spot_pitch_um={spot_pitch_um:g} needs array_row and array_col in obs that fit "
                "the spot centers as a square or hexagonal lattice; pass um_per_px= instead"
            )
        return LatticeScale({}, is_square=False)
    um_per_unit = {"the spot lattice": lattice.um_per_unit(known_pitch_um)}
    if spot_pitch_um is not None:
        um_per_unit["spot_pitch_um"] = lattice.um_per_unit(spot_pitch_um)
    return LatticeScale(um_per_unit, is_square=lattice.kind == "square")


def um_per_unit_from_lattice(
    obs: "pd.DataFrame", centers: np.ndarray, pitch_um: float | None = None
) -> float | None:
    """Return µm per unit of `centers`, from a least-squares fit of the lattice of the spots.

    Parameters
    ----------
    obs
        Table of the spots with their lattice indices `array_row` and `array_col`.
    centers
        Spot centers (n, 2) in any unit; spots without indices or center are ignored.
    pitch_um
        µm between neighboring spots; by default 100 for a hexagonal lattice, which is that of
        Visium, and unknown for all others.

    Returns
    -------
    µm per unit. None if there is no lattice, or if its pitch is unknown.
    """
    lattice = fit_lattice(obs, centers)
    return None if lattice is None else lattice.um_per_unit(pitch_um)


def fit_lattice(obs: "pd.DataFrame", centers: np.ndarray) -> Lattice | None:
    """Return the lattice of the spots, by a least-squares fit of their indices to their centers.

    The lattice is fitted because the median distance to the nearest neighbor is biased if spots
    are jittered (method.md section 4).

    Parameters
    ----------
    obs
        Table of the spots with their lattice indices `array_row` and `array_col`.
    centers
        Spot centers (n, 2) in any unit; spots without indices or center are ignored.

    Returns
    -------
    The lattice. None if there are no indices, if they do not span two dimensions, or, with a
    warning, if they do not fit the centers.
    """
    fit = _fit_steps(obs, centers)
    if fit is None:
        return None
    row_distance, column_distance = np.linalg.norm(fit.steps, axis=1)
    # On Visium's lattice, row + column is always even, or always odd.
    has_one_parity = len(np.unique(fit.lattice_index.sum(axis=1) % 2)) == 1
    if has_one_parity:
        pitch = np.hypot(row_distance, column_distance)
    else:
        pitch = np.sqrt(row_distance * column_distance)
    if fit.residual >= MAX_RESIDUAL * pitch:
        warn(
            "array_row and array_col do not belong to the spot coordinates: the root mean square "
            f"of the residuals of the lattice is {fit.residual / pitch:.0%} of the distance "
            f"between spots (limit {MAX_RESIDUAL:.0%}), so no scale is taken from them"
        )
        return None
    return Lattice(
        _find_kind(row_distance / column_distance, has_one_parity),
        float(row_distance),
        float(column_distance),
    )


def warn_if_exchanged(obs: "pd.DataFrame", pixels: np.ndarray, name: str) -> None:
    """Warn if rows of the lattice go to the right of the image, and its columns go down.

    On an image, columns go to the right and rows go down, unless the image is rotated or flipped.
    Those of CytAssist, so of Visium HD, are flipped. A rotation alone cannot exchange rows and
    columns: one of the two then goes to the left or up.

    Parameters
    ----------
    obs
        Table of the spots with their lattice indices `array_row` and `array_col`, or `array_y` and
        `array_x`.
    pixels
        Spot centers (n, 2) in pixels; spots without indices or center are ignored.
    name
        Name of the slide.
    """
    names = next((names for names in INDEX_NAMES if set(names) <= set(obs)), INDEX_NAMES[0])
    fit = _fit_steps(obs, pixels, names)
    if fit is None or len(fit.lattice_index) < MIN_SPOTS:
        return
    row_step, column_step = fit.steps
    pitch = np.sqrt(np.linalg.norm(row_step) * np.linalg.norm(column_step))
    goes_right = row_step[0] > MIN_COSINE * np.linalg.norm(row_step)
    goes_down = column_step[1] > MIN_COSINE * np.linalg.norm(column_step)
    if goes_right and goes_down and fit.residual < MAX_RESIDUAL * pitch:
        warn(
            f"rows of the lattice of {name} ({names[0]}) go to the right of the image and its "
            f"columns ({names[1]}) go down: x and y of the spots may be exchanged. Look at them "
            "with stp.pl.spots, and exchange the columns of their coordinates unless the image is "
            "flipped"
        )


class _Fit(NamedTuple):
    """A least-squares fit of lattice indices to spot centers."""

    lattice_index: np.ndarray  # (n, 2) row and column of the spots with indices and center
    steps: np.ndarray  # (2, 2) from a row to the next, and from a column to the next
    residual: float  # root mean square, in the unit of the centers


def _fit_steps(
    obs: "pd.DataFrame", centers: np.ndarray, names: tuple[str, str] = INDEX_NAMES[0]
) -> _Fit | None:
    """Return the fit of rows and columns in `obs`; None if they are missing or span no plane."""
    if not set(names) <= set(obs):
        return None
    index = obs[list(names)].to_numpy(dtype=float)
    centers = np.asarray(centers, dtype=float)
    has_place = np.isfinite(index).all(axis=1) & np.isfinite(centers).all(axis=1)
    index = index[has_place]
    centers = centers[has_place]
    design = np.column_stack([index, np.ones(len(index))])
    if not spans_plane(design):
        return None
    steps = np.linalg.lstsq(design, centers, rcond=None)[0]
    residuals = np.linalg.norm(design @ steps - centers, axis=1)
    return _Fit(index, steps[:2], float(np.sqrt((residuals**2).mean())))


def _find_kind(ratio: float, has_one_parity: bool) -> Literal["hexagonal", "square", "other"]:
    """Return the kind of a lattice whose rows are `ratio` times as far apart as its columns."""
    if has_one_parity and _is_close(ratio, HEXAGONAL_RATIO):
        return "hexagonal"
    if has_one_parity and _is_close(ratio, 1 / HEXAGONAL_RATIO):
        warn(
            "array_row and array_col seem to be exchanged: columns are "
            f"{1 / ratio:.3g} times as far apart as rows, and in Visium it is the other way round; "
            "no scale is taken from them"
        )
    if not has_one_parity and _is_close(ratio, 1.0):
        return "square"
    return "other"


def _is_close(ratio: float, expected: float) -> bool:
    return bool(abs(np.log(ratio / expected)) <= np.log1p(MAX_STRETCH))


def spans_plane(design: np.ndarray) -> bool:
    """Return whether places, given as rows x, y, 1, are neither one place nor on one line."""
    return len(design) >= 3 and bool(np.linalg.matrix_rank(design) == 3)


def bin_um(region: str) -> float | None:
    """Return µm between the bins of Visium HD, or None for a region of another kind.

    spatialdata-io writes it into the name of the region: `..._square_008um`. Bins that overlap are
    named after their side and their distance: `..._square_016um_every_008um`.
    """
    match = re.search(r"(?:square|every)_(\d+)um$", region)
    return float(match[1]) if match else None
