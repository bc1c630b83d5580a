"""The regions that a table annotates: which of its rows are spots of which shapes or labels."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stp.images.coordinates import coordinate_systems, spot_centers, um_system
from stp.tables.coordinates import repeated_place
from stp.tables.keys import REGION, SPOT
from stp.tables.valid_names import valid_name

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData


# An entry of `uns["spatial"]` with one of these is a library; `is_single` of CELLxGENE is none.
LIBRARY_KEYS = {"images", "scalefactors", "metadata"}


class Region(NamedTuple):
    """The spots of a table that annotate one element."""

    name: str
    rows: np.ndarray  # (n,) positions in the table
    instances: np.ndarray  # (n,) ids in the element


def list_regions(table: "AnnData") -> list[Region]:
    """Return the regions that a table annotates, in the order of its rows.

    Raises
    ------
    KeyError
        The table annotates no spots.
    """
    attrs = table.uns.get("spatialdata_attrs")
    if not attrs:
        raise KeyError(
            "the table annotates no spots (uns['spatialdata_attrs']); stp.io.from_anndata makes "
            "one that does"
        )
    names = table.obs[attrs["region_key"]].astype(str).to_numpy()
    instances = table.obs[attrs["instance_key"]].to_numpy()
    regions = []
    for name in dict.fromkeys(names):
        rows = np.flatnonzero(names == name)
        regions.append(Region(name, rows, instances[rows]))
    return regions


def check_one_slide(table: "AnnData", centers: np.ndarray | None = None) -> None:
    """Raise ValueError if the spots of a table are those of several slides.

    They are if the table annotates several regions, if several libraries of `uns["spatial"]` occur
    in it, or if two spots have one place: they share a lattice position or their coordinates.

    Parameters
    ----------
    table
        Table of the spots.
    centers
        Spot centers (n, 2) in any unit, if they are known.
    """
    attrs = table.uns.get("spatialdata_attrs")
    regions = []
    if attrs and attrs["region_key"] in table.obs:
        regions = list(table.obs[attrs["region_key"]].unique())
    if len(regions) > 1:
        raise ValueError(_several_slides(f"the table covers the regions {regions}", ""))
    check_region(table, centers)


def check_region(table: "AnnData", centers: np.ndarray | None = None, is_only: bool = True) -> None:
    """Raise ValueError if the rows of one region are the spots of several slides.

    Parameters
    ----------
    table
        Rows of the region.
    centers
        Spot centers (n, 2) in any unit, if they are known.
    is_only
        Whether the table has no other region. Otherwise libraries of `uns["spatial"]` that no
        column of `obs` mentions are taken for those of the other regions.
    """
    libraries, column = list_libraries(table)
    if len(libraries) > 1 and (column or is_only):
        raise ValueError(
            _several_slides(
                f"the table covers the libraries {libraries} of uns['spatial']",
                column,
                "" if column else ", or keep only its own library in uns['spatial']",
            )
        )
    if {"array_row", "array_col"} <= set(table.obs):
        lattice = table.obs[["array_row", "array_col"]].apply(_to_numbers)
        _check_places(table, lattice.to_numpy(dtype=float), "the lattice position", column)
    if centers is not None:
        _check_places(table, centers, "the coordinates", column)


def list_libraries(table: "AnnData") -> tuple[list[str], str]:
    """Return the libraries of `uns["spatial"]` that occur in a table, and the column with them.

    The column is the one of `obs` whose values are libraries; of several, the one with most. If
    there is none, all libraries are returned with the name "".
    """
    slot = table.uns.get("spatial", {})
    entries = slot.items() if isinstance(slot, Mapping) else ()
    libraries = [str(name) for name, entry in entries if _is_library(entry)]
    best: list[str] = []
    best_column = ""
    if len(libraries) < 2:
        return libraries, best_column
    # A region is named after its library, without the characters that SpatialData cannot store.
    labels = {valid_name(name): name for name in libraries} | {name: name for name in libraries}
    for column in table.obs:
        if table.obs[column].dtype.kind not in "OiuU":
            continue
        values = {str(value) for value in table.obs[column].dropna().unique()}
        if len(values) > len(best) and values <= set(labels):
            occurring = {labels[value] for value in values}
            best = [name for name in libraries if name in occurring]
            best_column = str(column)
    return (best, best_column) if best else (libraries, "")


def _is_library(entry: Any) -> bool:
    """Return whether an entry of `uns["spatial"]` is that of a library, as scanpy writes it."""
    return isinstance(entry, Mapping) and (not entry or bool(LIBRARY_KEYS & set(entry)))


def _to_numbers(column: "pd.Series") -> "pd.Series":
    import pandas as pd

    return pd.to_numeric(column.astype(object), errors="coerce")


def _check_places(table: "AnnData", places: np.ndarray, kind: str, library_key: str) -> None:
    rows = repeated_place(places)
    if rows is not None:
        first, second = rows
        x, y = places[first]
        raise ValueError(
            _several_slides(
                f"the spots {table.obs_names[first]} and {table.obs_names[second]} share {kind} "
                f"({x:g}, {y:g})",
                library_key,
                ", or keep one of them if it is one spot",
            )
        )


def _several_slides(fact: str, library_key: str, more: str = "") -> str:
    """Return the message about a table of several slides."""
    key = repr(library_key) if library_key else "'library_id'"
    return (
        f"one slide is needed, but {fact}; make a region and an image of each slide: "
        f"stp.io.from_anndata(adata, images, library_key={key}), or subset the table to one of "
        f"them{more}"
    )


def find_spots(sdata: "SpatialData", key: str) -> Any:
    """Return the shapes or labels of this name; raise KeyError if there are none."""
    for elements in (sdata.shapes, sdata.labels):
        if key in elements:
            return elements[key]
    raise KeyError(
        f"no shapes or labels {key!r}; "
        f"pass shapes_key= one of {sorted([*sdata.shapes, *sdata.labels])}"
    )


def spots_in_um(sdata: Any, table: "AnnData") -> np.ndarray | None:
    """Return the centers of a table's spots (n_obs, 2) in µm.

    None means that the table annotates no shapes, or that they have no coordinate system in µm.
    """
    if not getattr(sdata, "shapes", None) or "spatialdata_attrs" not in table.uns:
        return None
    centers = np.full((table.n_obs, 2), np.nan)
    for region in list_regions(table):
        spots = find_spots(sdata, region.name)
        um = um_system(coordinate_systems(spots))
        if um is None:
            return None
        centers[region.rows] = spot_centers(spots, region.instances, um, region.name)
    return centers


def annotate_shapes(adata: "AnnData", region: str | Sequence[str]) -> "AnnData":
    """Return the table with each row annotating the shape whose id is its position in the table.

    Parameters
    ----------
    adata
        Table of the spots, which is changed.
    region
        Name of the shapes, or one name for each row.
    """
    from spatialdata.models import TableModel

    adata.obs[REGION] = region
    adata.obs[REGION] = adata.obs[REGION].astype("category")
    adata.obs[SPOT] = np.arange(adata.n_obs)
    adata.uns.pop("spatialdata_attrs", None)
    names = [region] if isinstance(region, str) else list(dict.fromkeys(region))
    return TableModel.parse(
        adata,
        region=names[0] if len(names) == 1 else names,
        region_key=REGION,
        instance_key=SPOT,
    )
