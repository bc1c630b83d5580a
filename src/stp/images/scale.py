"""µm per pixel of an image: its sources, and the check that they agree."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import warn
from stp.images.coordinates import (
    SpotsOnImage,
    affine_of,
    coordinate_systems,
    linear_scale,
    um_system,
)
from stp.images.lattice import bin_um, lattice_scale, spans_plane
from stp.tables.coordinates import read_coordinates

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


XENIUM_REGIONS = ("cell_labels", "cell_circles")  # as spatialdata-io names them

USER = "um_per_px"  # the caller's argument, which overrules all other sources
UM_SYSTEM = "the coordinate system um"
SCALE = "stp_scale"  # attribute of a SpatialData: the scales that the user chose, by image
SCALE_SOURCE = "stp_scale_source"  # attribute: where a reader took the scale from, by image
# 10x writes `spot_diameter_fullres` for this diameter, though a spot measures 55 µm.
SPOT_DIAMETER_UM = 65.0
TOLERANCE = 0.05  # two sources that differ by more contradict each other


def um_per_unit_from_places(um: np.ndarray, centers: np.ndarray) -> float | None:
    """Return µm per unit of `centers`, from the same places in µm.

    Parameters
    ----------
    um
        Places (n, 2) in µm.
    centers
        The same places (n, 2) in any unit; places that are not known in both units are ignored.

    Returns
    -------
    µm per unit, or None if no affine map takes `centers` to `um`: they are other places.
    """
    has_place = np.isfinite(um).all(axis=1) & np.isfinite(centers).all(axis=1)
    um = um[has_place]
    design = np.column_stack([centers[has_place], np.ones(has_place.sum())])
    if not spans_plane(design):
        return None
    map_to_um = np.linalg.lstsq(design, um, rcond=None)[0]
    distance_um = np.linalg.norm(design @ map_to_um - um, axis=1)
    if np.median(distance_um) > TOLERANCE * um.std():
        return None
    return float(np.sqrt(abs(np.linalg.det(map_to_um[:2]))))


def scale_factors(uns: Mapping[str, Any], region: str | None = None) -> Mapping[str, float]:
    """Return the scale factors of 10x: those of the region's library, else of the only library.

    Entries of `uns["spatial"]` that are no libraries are ignored, such as CELLxGENE's `is_single`.
    """
    entries = uns.get("spatial", {})
    if not isinstance(entries, Mapping):
        return {}
    libraries = {name: entry for name, entry in entries.items() if isinstance(entry, Mapping)}
    if region in libraries:
        return libraries[region].get("scalefactors", {})
    if len(libraries) == 1:
        return next(iter(libraries.values())).get("scalefactors", {})
    return {}


@dataclass(frozen=True)
class Scale:
    """The physical scale of an image.

    Parameters
    ----------
    um_per_px
        µm per pixel.
    source
        Name of the source of the scale.
    others
        µm per pixel of the sources that contradict the caller, by name.
    """

    um_per_px: float
    source: str
    others: Mapping[str, float] = field(default_factory=dict)


def resolve_scale(
    sources: Mapping[str, float | None],
    spot_diameter: float | None = None,
    is_square_grid: bool = False,
) -> Scale:
    """Return the first known µm per unit, with its source and those that contradict the caller.

    The caller's `um_per_px` overrules all other sources; if one of them differs by more than 5 %, a
    warning names both.

    Parameters
    ----------
    sources
        µm per unit by the name of the source, the most trusted first; None if a source is silent.
        The source `um_per_px` is the caller's argument.
    spot_diameter
        `spot_diameter_fullres` in the same unit. It is used, with a warning, if no source is known.
    is_square_grid
        The spots lie on a square grid, so that the distance between them would give the scale.

    Raises
    ------
    ValueError
        No source is known, a value is no scale, or two sources differ by more than 5 %.
    """
    available = {name: value for name, value in sources.items() if value is not None}
    if USER in available:
        return _scale_of_user(available)
    for name, value in available.items():
        _require_scale(name, value)
    if available:
        return _scale_of_data(available)
    if spot_diameter:
        warn(
            f"µm per pixel taken from the spot diameter ({SPOT_DIAMETER_UM:g} µm): "
            "pass um_per_px= if you know it"
        )
        return Scale(SPOT_DIAMETER_UM / spot_diameter, "spot diameter")
    if is_square_grid:
        raise ValueError(
            "no physical scale: array_row and array_col are a square grid, which says nothing "
            "about the distance between its spots; pass spot_pitch_um= (200 for Spatial "
            "Transcriptomics) to stp.io.from_anndata or stp.io.write_store, or pass um_per_px= "
            "(µm per pixel of the full-resolution image)"
        )
    raise ValueError(
        "no physical scale: pass um_per_px= (µm per pixel of the full-resolution image), or "
        "give the table microns_per_pixel in its scalefactors or array_row and array_col in obs"
    )


def _scale_of_user(available: Mapping[str, float]) -> Scale:
    """Return the scale that the caller gives; warn if other sources contradict it."""
    um_per_px = available[USER]
    _require_scale(USER, um_per_px)
    others = {
        name: float(value) for name, value in available.items() if not agree(value, um_per_px)
    }
    if others:
        texts = [f"{name} gives {value:.4g}" for name, value in others.items()]
        warn(
            f"um_per_px={um_per_px:.4g} is used although {' and '.join(texts)} µm per pixel; look "
            "at the slide with stp.pl.patches(sdata) if you are not sure"
        )
    return Scale(float(um_per_px), USER, others)


def _scale_of_data(available: Mapping[str, float]) -> Scale:
    """Return the first scale; raise ValueError if another source contradicts it."""
    source, um_per_px = next(iter(available.items()))
    for name, value in available.items():
        if not agree(value, um_per_px):
            raise ValueError(
                "sources of the physical scale contradict each other: "
                f"{source} gives {um_per_px:.4g} µm per pixel, {name} gives {value:.4g}; "
                "pass the right one as um_per_px="
            )
    return Scale(float(um_per_px), source)


def agree(value: float, other: float) -> bool:
    """Return whether two scales differ by no more than 5 %; what is no scale agrees with none."""
    if not (0 < value < np.inf and 0 < other < np.inf):
        return False
    return bool(abs(np.log(value / other)) <= np.log1p(TOLERANCE))


def _require_scale(source: str, value: float) -> None:
    if not 0 < value < np.inf:
        raise ValueError(f"{source} gives {value:g} µm per pixel, which is no scale")


def record_scale(sdata: "SpatialData", image_key: str, scale: Scale) -> None:
    """Record in the attributes of a SpatialData that the user chose the scale of an image.

    Sources that contradict it are no error then, as long as the coordinate system "um" agrees.
    """
    record = {**asdict(scale), "others": dict(scale.others)}
    sdata.attrs[SCALE] = {**sdata.attrs.get(SCALE, {}), image_key: record}


def record_source(sdata: "SpatialData", image_key: str, scale: Scale) -> None:
    """Record in the attributes of a SpatialData where the scale of an image was taken from."""
    sources = sdata.attrs.get(SCALE_SOURCE, {})
    sdata.attrs[SCALE_SOURCE] = {**sources, image_key: scale.source}


def first_source(sdata: "SpatialData", image_key: str, source: str) -> str:
    """Return where a scale was taken from; behind the system "um" that a reader made is another."""
    if source != UM_SYSTEM:
        return source
    return sdata.attrs.get(SCALE_SOURCE, {}).get(image_key, source)


def slide_scale(
    sdata: "SpatialData",
    table: "AnnData",
    slide: SpotsOnImage,
    um_per_px: float | None,
    spot_pitch_um: float | None,
) -> Scale:
    """Return µm per pixel of the image of a slide, and its sources (method.md section 4).

    Parameters
    ----------
    sdata
        SpatialData with the slide.
    table
        Rows of the slide's spots, in the order of its centers.
    slide
        Spots and image in the coordinate system that they share.
    um_per_px
        µm per pixel as the caller gives it, or None.
    spot_pitch_um
        µm between neighboring spots as the caller gives it, or None.
    """
    units_per_pixel = linear_scale(affine_of(slide.image, slide.coordinate_system))
    # 10x gives its scale factors in the spots' own unit: pixels of the full-resolution image.
    units_per_full_pixel = linear_scale(affine_of(slide.spots, slide.coordinate_system))
    factors = scale_factors(table.uns, slide.region)
    lattice = lattice_scale(
        table.obs,
        slide.centers,
        spot_pitch_um=spot_pitch_um,
        known_pitch_um=bin_um(slide.region),
    )
    um_per_unit = {
        "microns_per_pixel of the scalefactors": (
            factors.get("microns_per_pixel", 0) / units_per_full_pixel
        ),
        "the um of Xenium in obsm['spatial']": _xenium_um_per_unit(sdata, table, slide),
        **lattice.um_per_unit,
    }
    sources = {USER: um_per_px, UM_SYSTEM: um_of_system(slide.image)}
    for name, value in um_per_unit.items():
        sources[name] = None if not value else value * units_per_pixel
    if um_per_px is None:
        recorded = _recorded_scale(sdata, slide.image_key, sources)
        if recorded is not None:
            return recorded
    diameter = factors.get("spot_diameter_fullres", 0) * units_per_full_pixel / units_per_pixel
    return resolve_scale(sources, diameter, lattice.is_square)


def _recorded_scale(
    sdata: "SpatialData", image_key: str, sources: Mapping[str, float | None]
) -> Scale | None:
    """Return the scale that the user chose when the image was read, or None if there is none.

    It counts only as long as the coordinate system "um" agrees with it: the image may have been
    replaced or moved since.
    """
    record = sdata.attrs.get(SCALE, {}).get(image_key)
    um_per_px = sources[UM_SYSTEM]
    if record is None or um_per_px is None or not agree(um_per_px, record["um_per_px"]):
        return None
    others = {name: float(value) for name, value in record["others"].items()}
    for name, value in sources.items():
        if value is not None and not agree(value, um_per_px):
            others[name] = float(value)
    return Scale(um_per_px, UM_SYSTEM, others)


def um_of_system(element: Any) -> float | None:
    """Return µm per pixel of an image, or µm per unit of spots, that are in "um"; else None."""
    um = um_system(coordinate_systems(element))
    return None if um is None else linear_scale(affine_of(element, um))


def _xenium_um_per_unit(
    sdata: "SpatialData", table: "AnnData", slide: SpotsOnImage
) -> float | None:
    """Return µm per unit of the centers from the µm that 10x gives for Xenium.

    spatialdata-io stores those in `obsm["spatial"]`; for other technologies it stores pixels there.
    """
    is_xenium = sdata.attrs.get("spatialdata_io_reader") == "xenium"
    if not is_xenium and slide.region not in XENIUM_REGIONS:
        return None
    if "spatial" not in table.obsm:
        return None
    um = read_coordinates(table)
    return um_per_unit_from_places(um, slide.centers)
