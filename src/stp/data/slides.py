"""Find in any SpatialData the spots of a table, the image under them, and its physical scale."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._scale import bin_um, fitted_um_per_unit, lattice_um_per_unit, resolve, scale_factors, um_system
from stp.patches import ImagePyramid, affine_of, inverse, linear_scale

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

PREFERRED = ("um", "global")  # coordinate systems, where spots and image meet in several
SAME_PX = 0.5  # two coordinate systems that put spots no further apart on the image say the same
XENIUM_REGIONS = ("cell_labels", "cell_circles")  # as spatialdata-io names them


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


def _systems(element: Any) -> dict[str, Any]:
    from spatialdata.transformations import get_transformation

    return get_transformation(element, get_all=True)


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


def _under(sdata: Any, spots: Any, shared: dict[str, tuple[str, np.ndarray]]) -> dict[str, tuple[str, np.ndarray]]:
    """Keep the images on which spots lie; all, where none does."""
    from spatialdata import get_centroids

    kept = {}
    for key, (system, matrix) in shared.items():
        centers = get_centroids(spots, coordinate_system=system).compute()[["x", "y"]].to_numpy(dtype=float)
        to_pixels = inverse(affine_of(sdata.images[key], system), f"image {key!r} to {system!r}")
        pixels = centers @ to_pixels[:2, :2].T + to_pixels[:2, 2]
        sizes = _finest(sdata.images[key]).sizes
        if ((pixels >= 0) & (pixels <= (sizes["x"], sizes["y"]))).all(axis=1).any():
            kept[key] = (system, matrix)
    return kept or shared


def _shared(spots: Any, image: Any, wanted: str | None, key: str) -> tuple[str, np.ndarray] | None:
    """Name the coordinate system in which spots and image meet, and map spots to pixels (3, 3).

    It is the wanted one, else um, global, or any other if all others put the spots in the same place.
    """
    both = [name for name in _systems(spots) if name in _systems(image) and wanted in (None, name)]
    both.sort(key=lambda name: PREFERRED.index(name) if name in PREFERRED else len(PREFERRED))
    to_pixels = [
        inverse(affine_of(image, name), f"image {key!r} to {name!r}") @ affine_of(spots, name) for name in both
    ]
    if not both:
        return None
    others = [] if both[0] in PREFERRED else to_pixels[1:]
    if not all(np.allclose(other, to_pixels[0], rtol=1e-3, atol=SAME_PX) for other in others):
        raise ValueError(f"spots and image share several coordinate systems; pass coordinate_system= one of {both}")
    return both[0], to_pixels[0]


def _rgb_images(sdata: "SpatialData") -> list[str]:
    """List images with channels r, g, b; where there is none, those of 8 bits whose 3 or 4 channels have no names."""
    from spatialdata.models import get_channel_names

    channels = {key: [str(name).lower() for name in get_channel_names(image)] for key, image in sdata.images.items()}
    named = [key for key, names in channels.items() if names[:3] in (["r", "g", "b"], ["red", "green", "blue"])]
    unnamed = [key for key, names in channels.items() if names in (["0", "1", "2"], ["0", "1", "2", "3"])]
    return named or [key for key in unnamed if _finest(sdata.images[key]).dtype == np.uint8]


def _finest(image: Any) -> Any:
    """Return the array of an image, the finest of a multiscale one."""
    return next(iter(image["scale0"].data_vars.values())) if hasattr(image, "children") else image


def _centers(spots: Any, instances: np.ndarray, system: str, name: str) -> np.ndarray:
    """Look up the centers of these instances (n, 2), by id and never by order."""
    from spatialdata import get_centroids

    centroids = get_centroids(spots, coordinate_system=system).compute()
    missing = ~np.isin(instances, centroids.index)
    if missing.any():
        raise ValueError(f"{missing.sum()} rows of the table have no spot in {name!r}, e.g. {instances[missing][0]}")
    return centroids.loc[instances, ["x", "y"]].to_numpy(dtype=float)


def _scale(sdata, table, region, spots, centers, image_key, system, um_per_px) -> tuple[float, str]:
    """Resolve um per pixel of the image from every source there is (method.md section 4)."""
    image, um = sdata.images[image_key], um_system(_systems(sdata.images[image_key]))
    units_per_pixel = linear_scale(affine_of(image, system))
    spot_units = linear_scale(affine_of(spots, system))  # per unit of the spots, which 10x gives in full pixels
    factors = scale_factors(table.uns, region)
    per_unit = {
        "microns_per_pixel of the scalefactors": factors.get("microns_per_pixel", 0) / spot_units,
        "the um of Xenium in obsm['spatial']": _xenium_um_per_unit(sdata, table, region, centers),
        "the spot lattice": lattice_um_per_unit(table.obs, centers, bin_um(region)),
    }
    sources = {
        "um_per_px": um_per_px,
        "the coordinate system um": linear_scale(affine_of(image, um)) if um else None,
        **{name: value * units_per_pixel if value else None for name, value in per_unit.items()},
    }
    diameter = factors.get("spot_diameter_fullres", 0) * spot_units / units_per_pixel
    return resolve(sources, diameter)


def _xenium_um_per_unit(sdata: Any, table: "AnnData", region: str, centers: np.ndarray) -> float | None:
    """Compare centers with those of 10x, which spatialdata-io keeps in um for Xenium and for nothing else."""
    if sdata.attrs.get("spatialdata_io_reader") != "xenium" and region not in XENIUM_REGIONS:
        return None
    if "spatial" not in table.obsm:
        return None
    return fitted_um_per_unit(np.asarray(table.obsm["spatial"], dtype=float)[:, :2], centers)
