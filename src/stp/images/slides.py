"""The slides of a table in any SpatialData: spots, the image under them, and its scale."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.coordinates import (
    SharedSystem,
    SpotsOnImage,
    affine_of,
    centroids_of,
    coordinate_systems,
    finest_array,
    inverse,
    linear_scale,
    shared_system,
    spot_centers,
)
from stp.images.files.channel_names import has_color_names, has_no_names
from stp.images.lattice import warn_if_exchanged
from stp.images.level_places import place_levels
from stp.images.levels import open_element
from stp.images.placement import check_spots_on_image, share_on_image
from stp.images.pyramid import ImagePyramid
from stp.images.regions import (
    Region,
    check_one_slide,
    check_region,
    find_spots,
    list_regions,
)
from stp.images.scale import scale_factors, slide_scale
from stp.images.spacing import warn_if_not_plausible
from stp.tables.coordinates import REMEDY, require_coordinates

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@dataclass(frozen=True)
class SlideQuery:
    """Names and scale by which a caller chooses the slide of a table; None is resolved.

    Parameters
    ----------
    image_key
        Name of the image, or a mapping from each region of the table to the name of its image; by
        default it is resolved from the table.
    shapes_key
        Name of the shapes or labels of the spots; by default the region that the table annotates.
    coordinate_system
        Coordinate system that spots and image share; by default it is resolved from the data.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error.
    spot_pitch_um
        µm between neighboring spots of a square grid, such as 200 for Spatial Transcriptomics.
    """

    image_key: str | Mapping[str, str] | None = None
    shapes_key: str | None = None
    coordinate_system: str | None = None
    um_per_px: float | None = None
    spot_pitch_um: float | None = None

    def image_of(self, region: str) -> str | None:
        """Return the name of a region's image, or None if the caller did not name it."""
        return self.image_key.get(region) if isinstance(self.image_key, Mapping) else self.image_key


@dataclass(frozen=True)
class Slide:
    """The spots of one region of a table and the image that they lie on."""

    region: str
    rows: np.ndarray  # (n,) positions of the spots in the table
    centers: np.ndarray  # (n, 2) x, y in the coordinate system
    coordinate_system: str
    image_key: str
    pyramid: ImagePyramid
    other_scales: Mapping[str, float] = field(default_factory=dict)  # overruled by the user


def find_slides(
    sdata: "SpatialData",
    table: "AnnData",
    query: SlideQuery = SlideQuery(),
) -> list[Slide]:
    """Return the slides of a table: for each region its spots, its image and the image's scale.

    Raises
    ------
    TypeError
        `sdata` is no SpatialData.
    KeyError
        The table annotates no spots, or a named element is missing.
    ValueError
        Several images or coordinate systems fit, most spots lie outside the image, spots have no
        coordinates, a region has the spots of several slides, or the physical scale is unknown or
        contradicted.
    """
    if not hasattr(sdata, "images"):
        raise TypeError(
            "images are needed: pass a SpatialData; stp.io.from_anndata makes one of an AnnData "
            "and an image"
        )
    regions = list_regions(table)
    names = [region.name for region in regions]
    return [_find_slide(sdata, table, region, names, query) for region in regions]


def only_slide(sdata: "SpatialData", table: "AnnData", query: SlideQuery = SlideQuery()) -> Slide:
    """Return the slide of a table that covers one; see `find_slides`.

    Raises
    ------
    ValueError
        The table covers several slides.
    """
    check_one_slide(table)
    return find_slides(sdata, table, query)[0]


def _find_slide(
    sdata: "SpatialData", table: "AnnData", region: Region, names: list[str], query: SlideQuery
) -> Slide:
    """Return the slide of one region; `names` are those of all regions of the table."""
    shapes_key = query.shapes_key or region.name
    spots = find_spots(sdata, shapes_key)
    image_key, system = _choose_image(sdata, spots, region.name, names, query)
    centers = spot_centers(spots, region.instances, system, shapes_key)
    rows = table[region.rows]
    require_coordinates(centers, rows.obs_names, REMEDY)
    check_region(rows, centers, is_only=len(names) == 1)
    element = sdata.images[image_key]
    levels = place_levels(open_element(element, image_key))
    to_pixels = inverse(affine_of(element, system), f"image {image_key!r} to {system!r}")
    check_spots_on_image(
        _map_places(centers, to_pixels),
        levels[0].shape,
        f"image {image_key!r}",
        scale_factors(table.uns, region.name),
    )
    scale = slide_scale(
        sdata,
        rows,
        SpotsOnImage(region.name, spots, centers, element, image_key, system),
        query.um_per_px,
        query.spot_pitch_um,
    )
    pyramid = ImagePyramid(levels, scale.um_per_px, to_pixels, scale.source)
    if table.n_vars:  # tiles may have any size
        pixels = pyramid.to_pixels(centers)
        warn_if_not_plausible(pixels * scale.um_per_px, scale.um_per_px, region.name)
        warn_if_exchanged(rows.obs, pixels, region.name)
    return Slide(
        region=region.name,
        rows=region.rows,
        centers=centers,
        coordinate_system=system,
        image_key=image_key,
        pyramid=pyramid,
        other_scales=scale.others,
    )


def _choose_image(
    sdata: "SpatialData", spots: Any, region: str, regions: list[str], query: SlideQuery
) -> tuple[str, str]:
    """Return the name of a region's image, and the coordinate system that it shares with the spots.

    It is the finest RGB image under the spots, unless the query names another.
    """
    candidates = _list_candidates(sdata, region, regions, query.image_of(region))
    shared = _find_shared_systems(sdata, spots, candidates, query.coordinate_system)
    on_spots = _keep_images_on_spots(sdata, spots, shared)
    finest = _list_finest(on_spots)
    image_key = _require_unique(finest)
    return image_key, shared[image_key].name


def _list_candidates(
    sdata: "SpatialData", region: str, regions: list[str], image_key: str | None
) -> list[str]:
    """List the named image, or all RGB images that are not named after another region."""
    if not sdata.images:
        raise KeyError("the SpatialData has no image; stp.io.from_anndata(adata, image) adds one")
    if image_key is None:
        return [key for key in _rgb_images(sdata) if _owner(key, regions) in ("", region)]
    if image_key not in sdata.images:
        raise KeyError(f"no image {image_key!r}; pass image_key= one of {sorted(sdata.images)}")
    return [image_key]


def _find_shared_systems(
    sdata: "SpatialData", spots: Any, image_keys: list[str], system: str | None
) -> dict[str, SharedSystem]:
    """Return the images that share a coordinate system with the spots, each with that system."""
    shared = {}
    for key in image_keys:
        of_image = shared_system(spots, sdata.images[key], system, key)
        if of_image is not None:
            shared[key] = of_image
    if not shared:
        place = f"in {system!r}" if system else "in any coordinate system of the spots"
        raise ValueError(
            f"no RGB image {place}; images are {sorted(sdata.images)}, "
            f"spots are in {sorted(coordinate_systems(spots))}"
        )
    return shared


def _keep_images_on_spots(
    sdata: "SpatialData", spots: Any, shared: dict[str, SharedSystem]
) -> dict[str, SharedSystem]:
    """Return the images on which at least one spot lies; all images if no spot lies on any."""
    if len(shared) == 1:
        return shared
    on_spots = {
        key: system
        for key, system in shared.items()
        if _is_under_a_spot(sdata.images[key], spots, system.name, key)
    }
    return on_spots or shared


def _is_under_a_spot(image: Any, spots: Any, system: str, image_key: str) -> bool:
    centers = centroids_of(spots, system).to_numpy(dtype=float)
    to_pixels = inverse(affine_of(image, system), f"image {image_key!r} to {system!r}")
    sizes = finest_array(image).sizes
    return share_on_image(_map_places(centers, to_pixels), (sizes["y"], sizes["x"])) > 0


def _map_places(places: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the places (n, 2) after an affine map (3, 3)."""
    return places @ affine[:2, :2].T + affine[:2, 2]


def _list_finest(shared: dict[str, SharedSystem]) -> list[str]:
    """List the images with the most pixels per unit of the spots; 1 % less counts as equal."""
    resolution = {key: linear_scale(system.spots_to_pixels) for key, system in shared.items()}
    highest = max(resolution.values())
    return [key for key, value in resolution.items() if value > 0.99 * highest]


def _require_unique(image_keys: list[str]) -> str:
    if len(image_keys) > 1:
        raise ValueError(f"several images fit the spots; pass image_key= one of {image_keys}")
    return image_keys[0]


def _owner(image_key: str, regions: list[str]) -> str:
    """Return the region after which an image is named, as in `region_full_image`; else ""."""
    full_images = {f"{region}_full_image": region for region in regions}
    if image_key in full_images:
        return full_images[image_key]
    owners = [region for region in regions if f"{image_key}_".startswith(f"{region}_")]
    return max(owners, key=len, default="")


def _rgb_images(sdata: "SpatialData") -> list[str]:
    """List the images with channels r, g, b in any order.

    If there is none, list those of 8 bits whose 3 or 4 channels have no names.
    """
    from spatialdata.models import get_channel_names

    named = []
    unnamed = []
    for key, image in sdata.images.items():
        channels = list(get_channel_names(image))
        if has_color_names(channels):
            named.append(key)
        if len(channels) in (3, 4) and has_no_names(channels):
            unnamed.append(key)
    return named or [key for key in unnamed if finest_array(sdata.images[key]).dtype == np.uint8]
