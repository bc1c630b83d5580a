"""Write features of tiles in the layout of KatherLab's STAMP."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._atomic import write_atomically
from stp._log import count, logger
from stp.data.feature_h5 import MODEL_ATTRIBUTE
from stp.images.regions import check_one_slide, spots_in_um
from stp.io._store_path import local_path
from stp.tables import keys
from stp.tables.embeddings import read_embedding, require_finite
from stp.tables.provenance import model_of
from stp.tables.table import get_table

if TYPE_CHECKING:
    from spatialdata import SpatialData

# The first version of KatherLab's STAMP with this layout; it refuses files of newer versions.
LAYOUT_VERSION = "2.1.0"


def write_features(
    sdata: "SpatialData",
    path: str | Path,
    *,
    use_rep: str = keys.IMAGES,
    table_key: str = "table",
) -> None:
    """Write the features of tiles as a file that KatherLab's STAMP and torchmil read.

    Parameters
    ----------
    sdata
        A SpatialData with the tiles of one slide: of :func:`stp.io.read_wsi` after
        :func:`stp.tl.embed_images`, of :func:`stp.io.read_features`, or a tile store.
    path
        The new HDF5 file, whose name ends with `.h5`. A file that is there is replaced.
    use_rep
        Name of the features in `obsm`.
    table_key
        Name of the table in a SpatialData.

    Notes
    -----
    The file has the features as `feats` and the upper left corners of the tiles in µm as `coords`.
    Attributes are those of version 2.1, with the model as `extractor`. The attribute `stp_model`
    keeps the digest of the model, so that :func:`stp.io.read_features` recognizes it.

    Raises
    ------
    KeyError
        There is no such table, or no such features.
    ValueError
        Tiles have no places in µm or no size, features are NaN or infinite, the table covers
        several slides, or `path` does not end with `.h5`.

    Examples
    --------
    >>> slide = stp.io.read_wsi("slide.tif", um_per_px=1.0, tile_um=112)
    >>> stp.tl.embed_images(slide, model)
    >>> stp.io.write_features(slide, "slide.h5")
    """
    path = local_path(path)
    if path.suffix != ".h5":
        raise ValueError(f"{path} must end with .h5: KatherLab's STAMP reads no other name")
    table = get_table(sdata, table_key)
    values = read_embedding(table, use_rep)
    rows = np.arange(len(values))
    require_finite(values, rows, f"features obsm[{use_rep!r}]", "leave out these rows")
    centers = spots_in_um(sdata, table)
    check_one_slide(table, centers)
    details = table.uns.get(use_rep, table.uns.get(use_rep.removesuffix(keys.aligned("")), {}))
    params = details.get("params", {}) if isinstance(details, Mapping) else {}
    tile_um = sdata.attrs.get(keys.SLIDE, {}).get("tile_um") or params.get("tile_um")
    if centers is None or tile_um is None:
        raise ValueError(
            "the layout of KatherLab's STAMP needs the side and the places of the tiles in µm, and "
            "they are not known; pass tile_um= to stp.io.read_wsi, or um_per_px= and tile_um= to "
            "stp.io.read_features"
        )
    attributes = _describe(model_of(table, use_rep), float(tile_um), params.get("um_per_px"))
    corners = (centers - tile_um / 2).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: _write(file, values, corners, attributes))
    logger.info(f"Wrote {path.name}: {count(len(values), 'tile')}")


def _describe(
    model: Mapping[str, Any] | None, tile_um: float, um_per_px: float | None
) -> dict[str, Any]:
    """Return the attributes of the file."""
    attributes: dict[str, Any] = {
        "stamp_version": LAYOUT_VERSION,
        "extractor": model["name"] if model else "unknown",
        "unit": "um",
        "tile_size_um": tile_um,
        "feat_type": "tile",
    }
    if um_per_px is not None:
        attributes["tile_size_px"] = round(tile_um / um_per_px)
    if model:
        attributes["code_hash"] = model["digest"]
        record = {key: model[key] for key in ("name", "class", "digest")}
        attributes[MODEL_ATTRIBUTE] = json.dumps(record)
    return attributes


def _write(
    path: Path, values: np.ndarray, corners: np.ndarray, attributes: Mapping[str, Any]
) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["feats"] = values
        file["coords"] = corners
        file.attrs.update(attributes)
