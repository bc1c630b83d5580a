"""Find in any SpatialData the spots of a table, the image under them, and its physical scale."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stp.images.coordinates import (
    coordinate_systems,
    finest_array,
    images_under_spots,
    linear_scale,
    shared_system,
    spot_centers,
    um_system,
)
from stp.images.pyramid import ImagePyramid
from stp.images.scale import slide_scale
from stp.tables.keys import REGION, SPOT

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@dataclass(frozen=True)
class SlideQuery:
    """What a caller says about the slide of a table; what is None is resolved from the data.

    Parameters
    ----------
    image_key
        Image, or a mapping from each region of the table to its image.
    shapes_key
        Shapes or labels of the spots.
    coordinate_system
        Coordinate system that spots and image share.
    um_per_px
        µm per pixel of the finest level of the image.
    """

    image_key: str | Mapping[str, str] | None = None
    shapes_key: str | None = None
    coordinate_system: str | None = None
    um_per_px: float | None = None

    def image_of(self, region: str) -> str | None:
        """Return the image that was named for a region, if there is one."""
        return self.image_key.get(region) if isinstance(self.image_key, Mapping) else self.image_key


@dataclass(frozen=True)
class Slide:
    """The spots of one region of a table and the picture that they lie on."""

    region: str
    rows: np.ndarray  # (n,) positions of the spots in the table
    centers: np.ndarray  # (n, 2) x, y in the coordinate system
    coordinate_system: str
    image_key: str
    pyramid: ImagePyramid


def find_slides(
    sdata: "SpatialData",
    table: "AnnData",
    query: SlideQuery = SlideQuery(),
) -> list[Slide]:
    """Resolve what is left unsaid: the table's regions, the image that each shares a coordinate system with, its scale.

    Raises
    ------
    KeyError
        The table annotates nothing, or a named element is missing.
    ValueError
        Several readings are possible (they are listed), or the physical scale is unknown or contradicted.
    """
    if not hasattr(sdata, "images"):
        raise TypeError(
            "images are needed: pass a SpatialData; stp.io.from_anndata makes one of an AnnData and an image"
        )
    regions = _regions(table)
    names = [region.name for region in regions]
    return [_find_slide(sdata, table, region, names, query) for region in regions]


def only_slide(sdata: "SpatialData", table: "AnnData", query: SlideQuery = SlideQuery()) -> Slide:
    """Resolve the slide of a table that covers one, as `find_slides` does; ValueError where it covers several."""
    check_one_slide(table)
    return find_slides(sdata, table, query)[0]


def check_one_slide(table: "AnnData") -> None:
    """Refuse a table that annotates several regions."""
    attrs = table.uns.get("spatialdata_attrs")
    regions = list(table.obs[attrs["region_key"]].unique()) if attrs else []
    if len(regions) > 1:
        raise ValueError(
            f"one slide is needed, the table covers {regions}; subset the table to one of them first"
        )


def spots_in_um(sdata: Any, table: "AnnData") -> np.ndarray | None:
    """Return the centers of a table's spots (n_obs, 2) in their coordinate system um; None where they have none."""
    if not getattr(sdata, "shapes", None) or "spatialdata_attrs" not in table.uns:
        return None
    centers = np.full((table.n_obs, 2), np.nan)
    for region in _regions(table):
        spots = _element(sdata, region.name)
        if (um := um_system(coordinate_systems(spots))) is None:
            return None
        centers[region.rows] = spot_centers(spots, region.instances, um, region.name)
    return centers


class _Region(NamedTuple):
    """The spots of a table that annotate one element."""

    name: str
    rows: np.ndarray  # (n,) positions in the table
    instances: np.ndarray  # (n,) ids in the element


def _regions(table: "AnnData") -> list[_Region]:
    """List the regions that a table annotates, in the order of its rows."""
    attrs = table.uns.get("spatialdata_attrs")
    if not attrs:
        raise KeyError(
            "the table annotates no spots (uns['spatialdata_attrs']); stp.io.from_anndata makes one that does"
        )
    regions = table.obs[attrs["region_key"]].astype(str).to_numpy()
    instances = table.obs[attrs["instance_key"]].to_numpy()
    rows = {name: np.flatnonzero(regions == name) for name in dict.fromkeys(regions)}
    return [_Region(name, index, instances[index]) for name, index in rows.items()]


def _find_slide(
    sdata: "SpatialData", table: "AnnData", region: _Region, regions: list[str], query: SlideQuery
) -> Slide:
    """Resolve the image, the spot centers and the scale of one region."""
    shapes_key = query.shapes_key or region.name
    spots = _element(sdata, shapes_key)
    image_key, system = _image_of(
        sdata, spots, region.name, regions, query.image_of(region.name), query.coordinate_system
    )
    centers = spot_centers(spots, region.instances, system, shapes_key)
    value, source = slide_scale(
        sdata, table[region.rows], region.name, spots, centers, image_key, system, query.um_per_px
    )
    pyramid = ImagePyramid.from_spatialdata(
        sdata, image_key, coordinate_system=system, um_per_px=value
    )
    pyramid = replace(pyramid, scale_source=source)
    return Slide(region.name, region.rows, centers, system, image_key, pyramid)


def _element(sdata: "SpatialData", key: str) -> Any:
    for elements in (sdata.shapes, sdata.labels):
        if key in elements:
            return elements[key]
    raise KeyError(
        f"no shapes or labels {key!r}; pass shapes_key= one of {sorted([*sdata.shapes, *sdata.labels])}"
    )


def _image_of(
    sdata, spots, region, regions, image_key: str | None, system: str | None
) -> tuple[str, str]:
    """Choose the finest RGB image under the spots in a coordinate system that both share, and that system."""
    if not sdata.images:
        raise KeyError("the SpatialData has no image; stp.io.from_anndata(adata, image) adds one")
    if image_key is not None and image_key not in sdata.images:
        raise KeyError(f"no image {image_key!r}; pass image_key= one of {sorted(sdata.images)}")
    candidates = (
        [image_key]
        if image_key
        else [key for key in _rgb_images(sdata) if _owner(key, regions) in ("", region)]
    )
    found = {key: shared_system(spots, sdata.images[key], system, key) for key in candidates}
    shared = {key: one for key, one in found.items() if one}
    shared = images_under_spots(sdata, spots, shared) if len(shared) > 1 else shared
    resolution = {key: linear_scale(one[1]) for key, one in shared.items()}
    if not resolution:
        where = f"in {system!r}" if system else "in any coordinate system of the spots"
        raise ValueError(
            f"no RGB image {where}; images are {sorted(sdata.images)}, spots are in {sorted(coordinate_systems(spots))}"
        )
    finest = max(resolution.values())
    best = [key for key, value in resolution.items() if value > 0.99 * finest]
    if len(best) > 1:
        raise ValueError(f"several images fit the spots; pass image_key= one of {best}")
    return best[0], shared[best[0]][0]


def _owner(image_key: str, regions: list[str]) -> str:
    """Name the region after which an image is named, as the readers do: `region_full_image`; "" where there is none."""
    return max(
        (region for region in regions if f"{image_key}_".startswith(f"{region}_")),
        key=len,
        default="",
    )


def _rgb_images(sdata: "SpatialData") -> list[str]:
    """List images with channels r, g, b; where there is none, those of 8 bits whose 3 or 4 channels have no names."""
    from spatialdata.models import get_channel_names

    channels = {
        key: [str(name).lower() for name in get_channel_names(image)]
        for key, image in sdata.images.items()
    }
    named = [
        key
        for key, names in channels.items()
        if names[:3] in (["r", "g", "b"], ["red", "green", "blue"])
    ]
    unnamed = [
        key for key, names in channels.items() if names in (["0", "1", "2"], ["0", "1", "2", "3"])
    ]
    return named or [key for key in unnamed if finest_array(sdata.images[key]).dtype == np.uint8]


def annotate_shapes(adata: "AnnData", region: str) -> "AnnData":
    """Make a table annotate the shapes `region`, row by row."""
    from spatialdata.models import TableModel

    adata.obs[REGION] = region
    adata.obs[REGION] = adata.obs[REGION].astype("category")
    adata.obs[SPOT] = np.arange(adata.n_obs)
    adata.uns.pop("spatialdata_attrs", None)
    return TableModel.parse(adata, region=region, region_key=REGION, instance_key=SPOT)
