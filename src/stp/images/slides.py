"""Find in any SpatialData the spots of a table, the image under them, and its physical scale."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.coordinates import _centers, _finest, _shared, _systems, _under, linear_scale, um_system
from stp.images.pyramid import ImagePyramid
from stp.images.scale import _scale
from stp.tables.keys import REGION, SPOT

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


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
    *,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | None = None,
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
    slides, regions = [], _regions(table)
    names = [region for region, _, _ in regions]
    for region, rows, instances in regions:
        image = image_key.get(region) if isinstance(image_key, Mapping) else image_key
        slides.append(
            _find_slide(
                sdata, table, region, names, rows, instances, image, shapes_key or region, coordinate_system, um_per_px
            )
        )
    return slides


def only_slide(sdata: "SpatialData", table: "AnnData", **where: Any) -> Slide:
    """Resolve the slide of a table that covers one, as `find_slides` does; ValueError where it covers several."""
    check_one_slide(table)
    return find_slides(sdata, table, **where)[0]


def check_one_slide(table: "AnnData") -> None:
    """Refuse a table that annotates several regions."""
    attrs = table.uns.get("spatialdata_attrs")
    regions = list(table.obs[attrs["region_key"]].unique()) if attrs else []
    if len(regions) > 1:
        raise ValueError(f"one slide is needed, the table covers {regions}; subset the table to one of them first")


def spots_in_um(sdata: Any, table: "AnnData") -> np.ndarray | None:
    """Return the centers of a table's spots (n_obs, 2) in their coordinate system um; None where they have none."""
    if not getattr(sdata, "shapes", None) or "spatialdata_attrs" not in table.uns:
        return None
    centers = np.full((table.n_obs, 2), np.nan)
    for region, rows, instances in _regions(table):
        spots = _element(sdata, region)
        if (um := um_system(_systems(spots))) is None:
            return None
        centers[rows] = _centers(spots, instances, um, region)
    return centers


def _regions(table: "AnnData") -> list[tuple[str, np.ndarray, np.ndarray]]:
    """List region, rows and instance ids of a table that annotates elements."""
    attrs = table.uns.get("spatialdata_attrs")
    if not attrs:
        raise KeyError(
            "the table annotates no spots (uns['spatialdata_attrs']); stp.io.from_anndata makes one that does"
        )
    names, instances = (
        table.obs[attrs["region_key"]].astype(str).to_numpy(),
        table.obs[attrs["instance_key"]].to_numpy(),
    )
    rows = {name: np.flatnonzero(names == name) for name in dict.fromkeys(names)}
    return [(name, index, instances[index]) for name, index in rows.items()]


def _find_slide(
    sdata, table, region, regions, rows, instances, image_key, shapes_key, coordinate_system, um_per_px
) -> Slide:
    spots = _element(sdata, shapes_key)
    image_key, system = _image_of(sdata, spots, region, regions, image_key, coordinate_system)
    centers = _centers(spots, instances, system, shapes_key)
    value, source = _scale(sdata, table[rows], region, spots, centers, image_key, system, um_per_px)
    pyramid = ImagePyramid.from_spatialdata(sdata, image_key, coordinate_system=system, um_per_px=value)
    return Slide(region, rows, centers, system, image_key, replace(pyramid, scale_source=source))


def _element(sdata: "SpatialData", key: str) -> Any:
    for elements in (sdata.shapes, sdata.labels):
        if key in elements:
            return elements[key]
    raise KeyError(f"no shapes or labels {key!r}; pass shapes_key= one of {sorted([*sdata.shapes, *sdata.labels])}")


def _image_of(sdata, spots, region, regions, image_key: str | None, system: str | None) -> tuple[str, str]:
    """Choose the finest RGB image under the spots in a coordinate system that both share, and that system."""
    if not sdata.images:
        raise KeyError("the SpatialData has no image; stp.io.from_anndata(adata, image) adds one")
    if image_key is not None and image_key not in sdata.images:
        raise KeyError(f"no image {image_key!r}; pass image_key= one of {sorted(sdata.images)}")
    candidates = (
        [image_key] if image_key else [key for key in _rgb_images(sdata) if _owner(key, regions) in ("", region)]
    )
    found = {key: _shared(spots, sdata.images[key], system, key) for key in candidates}
    shared = {key: one for key, one in found.items() if one}
    shared = _under(sdata, spots, shared) if len(shared) > 1 else shared
    resolution = {key: linear_scale(one[1]) for key, one in shared.items()}
    if not resolution:
        where = f"in {system!r}" if system else "in any coordinate system of the spots"
        raise ValueError(
            f"no RGB image {where}; images are {sorted(sdata.images)}, spots are in {sorted(_systems(spots))}"
        )
    finest = max(resolution.values())
    best = [key for key, value in resolution.items() if value > 0.99 * finest]
    if len(best) > 1:
        raise ValueError(f"several images fit the spots; pass image_key= one of {best}")
    return best[0], shared[best[0]][0]


def _owner(image_key: str, regions: list[str]) -> str:
    """Name the region after which an image is named, as the readers do: `region_full_image`; "" where there is none."""
    return max((region for region in regions if f"{image_key}_".startswith(f"{region}_")), key=len, default="")


def _rgb_images(sdata: "SpatialData") -> list[str]:
    """List images with channels r, g, b; where there is none, those of 8 bits whose 3 or 4 channels have no names."""
    from spatialdata.models import get_channel_names

    channels = {key: [str(name).lower() for name in get_channel_names(image)] for key, image in sdata.images.items()}
    named = [key for key, names in channels.items() if names[:3] in (["r", "g", "b"], ["red", "green", "blue"])]
    unnamed = [key for key, names in channels.items() if names in (["0", "1", "2"], ["0", "1", "2", "3"])]
    return named or [key for key in unnamed if _finest(sdata.images[key]).dtype == np.uint8]


def tie(adata: "AnnData", region: str) -> "AnnData":
    """Make a table annotate the shapes `region`, row by row."""
    from spatialdata.models import TableModel

    adata.obs[REGION] = region
    adata.obs[REGION] = adata.obs[REGION].astype("category")
    adata.obs[SPOT] = np.arange(adata.n_obs)
    adata.uns.pop("spatialdata_attrs", None)
    return TableModel.parse(adata, region=region, region_key=REGION, instance_key=SPOT)
