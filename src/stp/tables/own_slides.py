"""A slide that is searched must not be among the references: its spots would find themselves."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stp._log import warn
from stp.tables import keys
from stp.tables.references import name_slides

if TYPE_CHECKING:
    from anndata import AnnData

N_COMPARED = 16  # spots whose vectors are compared
TOLERANCE = 1e-4  # of vectors that were computed twice


def check_other_slides(
    adata: "AnnData", tables: Mapping[str, "AnnData"], reps: Sequence[str]
) -> None:
    """Raise ValueError if a reference holds spots of the table that is searched.

    Spots with the same names are the same if their slides have the same name. If a slide has no
    name, their vectors decide, or else their coordinates.

    Parameters
    ----------
    adata
        Table that is searched.
    tables
        References by their labels.
    reps
        Names of the embeddings in `obsm` that may be compared.
    """
    own = _find_own_slide(adata, tables, reps)
    if own is not None:
        label, spot = own
        raise ValueError(
            f"{label} holds spots of the slide that is searched, such as {spot!r}, which "
            "would find themselves; leave this slide out of the reference, or give the "
            "slides different names"
        )


def warn_of_own_slide(
    adata: "AnnData", tables: Mapping[str, "AnnData"], reps: Sequence[str]
) -> None:
    """Warn if a reference holds spots of the table that is predicted; see `check_other_slides`.

    Parameters
    ----------
    adata
        Table that is predicted.
    tables
        References by their labels.
    reps
        Names of the embeddings in `obsm` that may be compared.
    """
    own = _find_own_slide(adata, tables, reps)
    if own is not None:
        label, spot = own
        warn(
            f"{label} holds spots of the slide that is predicted, such as {spot!r}, so the "
            "predictions know measured counts of this slide, and their scores are too good; leave "
            "this slide out of the reference, or give the slides different names"
        )


def _find_own_slide(
    adata: "AnnData", tables: Mapping[str, "AnnData"], reps: Sequence[str]
) -> tuple[str, str] | None:
    """Return the first reference that holds spots of the table, and a spot; None without one."""
    for label, table in tables.items():
        shared = adata.obs_names.intersection(table.obs_names)
        if len(shared) and (table is adata or _is_same(adata, table, shared, reps)):
            return label, str(shared[0])
    return None


def _is_same(
    adata: "AnnData", table: "AnnData", shared: Sequence[str], reps: Sequence[str]
) -> bool:
    """Return whether spots that share their names are the same spots."""
    rows = _first_rows(adata, shared)
    other_rows = _first_rows(table, shared)
    slides = name_slides({"": adata})[""][rows]
    other_slides = name_slides({"": table})[""][other_rows]
    if (slides != "").all() and (other_slides != "").all():
        return bool((slides == other_slides).any())
    for rep in reps:
        if rep in adata.obsm and rep in table.obsm:
            pairs = list(zip(rows, other_rows, strict=True))[:N_COMPARED]
            return all(_are_equal(adata, table, rep, pair) for pair in pairs)
    if keys.SPATIAL not in adata.obsm or keys.SPATIAL not in table.obsm:
        return False
    places = np.asarray(adata.obsm[keys.SPATIAL])[rows]
    other_places = np.asarray(table.obsm[keys.SPATIAL])[other_rows]
    return places.shape == other_places.shape and bool((places == other_places).all())


def _first_rows(table: "AnnData", names: Sequence[str]) -> np.ndarray:
    """Return the first row of each name."""
    is_repeat = table.obs_names.duplicated()
    rows = np.flatnonzero(~is_repeat)
    return rows[table.obs_names[rows].get_indexer_for(names)]


def _are_equal(adata: "AnnData", table: "AnnData", rep: str, pair: tuple[int, int]) -> bool:
    """Return whether a row of one table has the vector of a row of the other, which may be NaN."""
    row, other = pair
    vector = np.asarray(adata.obsm[rep][row : row + 1], dtype=float)
    other_vector = np.asarray(table.obsm[rep][other : other + 1], dtype=float)
    if vector.shape != other_vector.shape:
        return False
    return bool(np.allclose(vector, other_vector, atol=TOLERANCE, equal_nan=True))
