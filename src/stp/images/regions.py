"""The regions that a table annotates: which of its rows are spots of which shapes or labels."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stp.images.coordinates import coordinate_systems, spot_centers, um_system
from stp.tables.keys import REGION, SPOT

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


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


def check_one_slide(table: "AnnData") -> None:
    """Raise ValueError if a table annotates several regions."""
    attrs = table.uns.get("spatialdata_attrs")
    regions = list(table.obs[attrs["region_key"]].unique()) if attrs else []
    if len(regions) > 1:
        raise ValueError(
            f"one slide is needed, the table covers {regions}; subset the table to one of them "
            "first"
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


def annotate_shapes(adata: "AnnData", region: str) -> "AnnData":
    """Return the table with each row annotating the shape of the same position in `region`."""
    from spatialdata.models import TableModel

    adata.obs[REGION] = region
    adata.obs[REGION] = adata.obs[REGION].astype("category")
    adata.obs[SPOT] = np.arange(adata.n_obs)
    adata.uns.pop("spatialdata_attrs", None)
    return TableModel.parse(adata, region=region, region_key=REGION, instance_key=SPOT)
