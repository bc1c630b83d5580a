"""A slide that is searched must not be among the references: its spots would find themselves."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stp.tables import keys
from stp.tables.references import name_slides

if TYPE_CHECKING:
    from anndata import AnnData


def check_other_slides(adata: "AnnData", tables: Mapping[str, "AnnData"]) -> None:
    """Raise ValueError if a reference holds spots of the table that is searched.

    Spots are the same if they have the same names, and the same slide or the same coordinates.
    """
    for label, table in tables.items():
        shared = adata.obs_names.intersection(table.obs_names)
        if table is not adata and not len(shared):
            continue
        rows = adata.obs_names.get_indexer_for(shared)
        other_rows = table.obs_names.get_indexer_for(shared)
        is_same = table is adata or _have_one_place(adata, rows, table, other_rows)
        if is_same or _have_one_slide(adata, rows, table, other_rows):
            raise ValueError(
                f"{label} holds spots of the slide that is searched, such as {shared[0]!r}, which "
                "would find themselves; leave this slide out of the reference, or give the "
                "slides different names"
            )


def _have_one_place(
    adata: "AnnData", rows: np.ndarray, table: "AnnData", other_rows: np.ndarray
) -> bool:
    """Return whether a spot has the same coordinates in both tables."""
    if keys.SPATIAL not in adata.obsm or keys.SPATIAL not in table.obsm:
        return False
    places = np.asarray(adata.obsm[keys.SPATIAL])[rows]
    other_places = np.asarray(table.obsm[keys.SPATIAL])[other_rows]
    if len(places) != len(other_places) or places.shape != other_places.shape:
        return False
    return bool((places == other_places).all(axis=1).any())


def _have_one_slide(
    adata: "AnnData", rows: np.ndarray, table: "AnnData", other_rows: np.ndarray
) -> bool:
    """Return whether a spot has the same named slide in both tables."""
    slides = name_slides({"": adata})[""][rows]
    other_slides = name_slides({"": table})[""][other_rows]
    if len(slides) != len(other_slides):
        return False
    return bool(((slides == other_slides) & (slides != "")).any())
