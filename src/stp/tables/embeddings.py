"""Read embeddings from `obsm`, and refuse values that are not finite."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import preview
from stp.tables import keys
from stp.tables.table import require

if TYPE_CHECKING:
    from anndata import AnnData

READ_ROWS = 8192  # embeddings that are read at a time


def read_embedding(adata: "AnnData", rep: str) -> np.ndarray:
    """Return `obsm[rep]` (n_obs, d). The rows of spots without features are NaN.

    Raises
    ------
    KeyError
        The embedding is missing.
    ValueError
        A row has infinite values, or NaN in a part of its columns.
    """
    values = np.asarray(require(adata, "obsm", rep, keys.maker_call(rep)))
    check_rows(values, f"obsm[{rep!r}]")
    return values


def read_blocks(embedding: Any, label: str) -> Iterator[np.ndarray]:
    """Yield the rows of an embedding in order, a block at a time, and check them.

    Parameters
    ----------
    embedding
        Array (n_obs, d) in memory or on disk.
    label
        Name of the embedding in an error.
    """
    for start in range(0, embedding.shape[0], READ_ROWS):
        block = np.asarray(embedding[start : start + READ_ROWS], dtype=np.float32)
        check_rows(block, label, start)
        yield block


def check_rows(values: np.ndarray, label: str, first_row: int = 0) -> None:
    """Raise ValueError if a row is neither finite nor NaN in all of its columns.

    Parameters
    ----------
    values
        Rows (n, d) of an embedding or a prediction.
    label
        Name of the array in the error.
    first_row
        Number of the first of these rows in the whole array.
    """
    is_usable = np.ones(len(values), dtype=bool)
    for start in range(0, len(values), READ_ROWS):
        block = values[start : start + READ_ROWS]
        is_nan = np.isnan(block).all(axis=1)
        is_usable[start : start + len(block)] = is_nan | np.isfinite(block).all(axis=1)
    if not is_usable.all():
        rows = first_row + np.flatnonzero(~is_usable)
        raise ValueError(
            f"{label} has infinite values, or NaN in a part of the columns, in row "
            f"{preview(rows)}; a spot without features has NaN in all columns, so make "
            "these rows again"
        )


def require_finite(values: np.ndarray, rows: np.ndarray, title: str, remedy: str) -> None:
    """Raise ValueError if what a model computed has NaN or infinite values.

    Parameters
    ----------
    values
        Outputs of the model (n, d).
    rows
        Rows of the table (n,) to which they belong.
    title
        Name of the outputs, their model and its precision in the error.
    remedy
        What the user can do.
    """
    is_finite = np.isfinite(values).all(axis=1)
    if not is_finite.all():
        bad_rows = np.sort(rows[~is_finite])
        raise ValueError(
            f"{title} are NaN or infinite in row {preview(bad_rows)}, so nothing was written; "
            f"{remedy}"
        )
