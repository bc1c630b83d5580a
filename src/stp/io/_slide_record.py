"""The record of the slide whose tiles a SpatialData has, and of how they were laid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp.images.pyramid import ImagePyramid
from stp.images.scale import USER
from stp.images.source_slide import file_record
from stp.tables import keys
from stp.tables.table import as_list

if TYPE_CHECKING:
    from spatialdata import SpatialData

STAIN = "stain"
POLYGONS = "polygons"


@dataclass(frozen=True)
class TileSettings:
    """How tiles are laid on a slide.

    Parameters
    ----------
    tile_um
        Side of a tile in µm; None for a slide without tiles.
    min_tissue
        Share of a tile that must be tissue.
    tissue
        Path of a GeoJSON file, polygons of shapely, or None for what is stained.
    tissue_class
        Classes of the annotations in a GeoJSON file that are tissue.
    """

    tile_um: float | None
    min_tissue: float
    tissue: Any = None
    tissue_class: str | Sequence[str] | None = None

    def describe(self) -> dict[str, Any]:
        """Return the settings as a store records them."""
        if self.tile_um is None:
            return {"tile_um": None}
        if self.tissue is None:
            tissue: Any = STAIN
        elif isinstance(self.tissue, str | Path):
            tissue = file_record(self.tissue)
        else:
            tissue = POLYGONS
        return {
            "tile_um": float(self.tile_um),
            "min_tissue": float(self.min_tissue),
            "tissue": tissue,
            "tissue_class": None if self.tissue_class is None else as_list(self.tissue_class),
        }


def describe_slide(
    path: str | Path, pyramid: ImagePyramid, settings: TileSettings
) -> dict[str, Any]:
    """Return the record of a slide that was read from a file."""
    return {
        **file_record(path),
        "um_per_px": pyramid.um_per_px,
        "um_per_px_source": pyramid.scale_source,
        "um_per_unit": pyramid.um_per_px,
        **settings.describe(),
        "version": version("stp-spatial"),
    }


def slide_record(sdata: "SpatialData") -> dict[str, Any]:
    """Return the record of the slide whose tiles a SpatialData has.

    Raises
    ------
    ValueError
        There is no such record, or the slide has no tiles.
    """
    record = getattr(sdata, "attrs", {}).get(keys.SLIDE)
    if record is None:
        raise ValueError(
            "the SpatialData has no record of the slide of its tiles (attrs['stp_slide']); "
            "stp.io.read_wsi and stp.io.read_features make one that has"
        )
    return dict(record)


def is_same(
    record: Mapping[str, Any],
    source: Mapping[str, Any],
    settings: Mapping[str, Any],
    um_per_px: float | None,
) -> bool:
    """Return whether a record is of this slide and these settings; its path may have changed.

    Parameters
    ----------
    record
        Record in a tile store.
    source
        Record of the file of the slide.
    settings
        Settings of the tiles, as `TileSettings` describes them.
    um_per_px
        µm per pixel that the caller passes, or None.
    """
    is_scale_of_user = record.get("um_per_px_source") == USER
    if is_scale_of_user != (um_per_px is not None):
        return False
    if um_per_px is not None and record["um_per_px"] != um_per_px:
        return False
    expected = {**source, **settings}
    return all(
        _without_path(record.get(key)) == _without_path(value)
        for key, value in expected.items()
        if key != "path"
    )


def _without_path(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: inner for key, inner in value.items() if key != "path"}
