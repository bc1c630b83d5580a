"""Spot coordinates of a table: x and y, read by column name if there are names."""

from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import preview

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

# Names of the columns x and y, as scanpy, Seurat and Space Ranger write them.
NAME_PAIRS = (
    ("x", "y"),
    ("X", "Y"),
    ("imagecol", "imagerow"),
    ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    ("pixel_x", "pixel_y"),
)
# The call that helps if a SpatialData or an AnnData has spots without coordinates.
REMEDY = (
    "leave them out: stp.io.from_anndata(adata, image, missing='drop'), or take the other rows of "
    "the table"
)
LATTICE_NAMES = {"array_row", "array_col", "row", "col"}


def read_coordinates(adata: "AnnData", spatial_key: str = "spatial") -> np.ndarray:
    """Return the spot coordinates (n_obs, 2) as x and y; the columns of a DataFrame go by name.

    Raises
    ------
    KeyError
        `obsm[spatial_key]` is missing.
    ValueError
        It has fewer than two columns, its values are no numbers, or the names of its columns do
        not tell x from y.
    """
    if spatial_key not in adata.obsm:
        raise KeyError(
            f"adata.obsm[{spatial_key!r}] is missing: put spot centers there, x and y in pixels "
            "of the full-resolution image, or pass spatial_key= one of "
            f"{list(adata.obsm)}"
        )
    values = adata.obsm[spatial_key]
    if hasattr(values, "columns"):
        return _read_by_name(values, f"obsm[{spatial_key!r}]")
    coordinates = _to_numbers(values, f"obsm[{spatial_key!r}]")
    if coordinates.ndim != 2 or coordinates.shape[1] < 2:
        raise ValueError(
            f"obsm[{spatial_key!r}] has the shape {coordinates.shape}; "
            "coordinates need a column x and a column y"
        )
    return coordinates[:, :2]


def has_coordinates(coordinates: np.ndarray) -> np.ndarray:
    """Return for each row (n,) whether both coordinates are finite numbers."""
    return np.isfinite(coordinates).all(axis=1)


def require_coordinates(coordinates: np.ndarray, names: "pd.Index", remedy: str) -> None:
    """Raise ValueError if spots have no coordinates; the message names the first of them."""
    is_placed = has_coordinates(coordinates)
    if is_placed.all():
        return
    missing = names[~is_placed]
    raise ValueError(
        f"{len(missing)} of {len(names)} spots have no coordinates ({preview(missing)}); {remedy}"
    )


def repeated_place(places: np.ndarray) -> tuple[int, int] | None:
    """Return two rows of places (n, 2) that are equal, or None; rows without a place do not count.

    The rows are the first that repeats an earlier one, and the earlier one, which comes first.
    """
    import pandas as pd

    rows = np.flatnonzero(has_coordinates(places))
    frame = pd.DataFrame(places[rows])
    is_repeat = frame.duplicated().to_numpy()
    if not is_repeat.any():
        return None
    second = int(is_repeat.argmax())
    is_equal = (places[rows] == places[rows[second]]).all(axis=1)
    return int(rows[is_equal.argmax()]), int(rows[second])


def _to_numbers(values: Any, slot: str) -> np.ndarray:
    if hasattr(values, "columns"):
        values = values.astype(object).where(values.notna(), np.nan)
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the coordinates in {slot} are no numbers: {error}") from error


def _read_by_name(frame: "pd.DataFrame", slot: str) -> np.ndarray:
    columns = [str(column) for column in frame.columns]
    pairs = [pair for pair in NAME_PAIRS if set(pair) <= set(columns)]
    if not pairs:
        note = ""
        if LATTICE_NAMES & set(columns):
            note = "; lattice indices such as array_row and array_col are no pixels"
        raise ValueError(
            f"{slot} is a DataFrame with columns {columns}, which do not tell x from y{note}; "
            "name them x and y"
        )
    frame = frame.set_axis(columns, axis=1)
    readings = [_to_numbers(frame[list(pair)], slot) for pair in pairs]
    for pair, reading in zip(pairs[1:], readings[1:], strict=True):
        if not np.array_equal(reading, readings[0], equal_nan=True):
            raise ValueError(
                f"{slot} has two pairs of coordinates that differ, {pairs[0]} and {pair}; "
                "keep the pair in pixels of the full-resolution image"
            )
    return readings[0]
