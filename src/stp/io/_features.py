"""Read features of tiles that other tools wrote as a SpatialData."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import count, logger
from stp.images.source_slide import file_record
from stp.io._store_path import local_path
from stp.io._tiles_elements import assemble_tiles
from stp.tables import keys
from stp.tables.table import record
from stp.tables.valid_names import unique_names

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from stp.data.feature_files import FeatureFile


def read_features(
    path: str | Path,
    *,
    um_per_px: float | None = None,
    tile_um: float | None = None,
    name: str | None = None,
    key_added: str = keys.FEATURES,
    table_key: str = keys.TABLE,
) -> "SpatialData":
    """Read the features of the tiles of a slide that another tool extracted.

    The file is recognized by its structure, never by its name.

    Parameters
    ----------
    path
        An HDF5 file of KatherLab's STAMP (versions 1 to 2.5), TRIDENT or CLAM; a file of CLAM with
        a tensor (`.pt`); or a store of LazySlide, which needs `table_key` if it has features of
        several models.
    um_per_px
        µm per pixel of the slide at full resolution, for TRIDENT and CLAM, which do not record it.
        Without it, tiles have features and no places.
    tile_um
        Side of a tile in µm, for CLAM, which does not record it.
    name
        Name of the slide and its tiles; by default that of the file.
    key_added
        Name under which the results are stored.
    table_key
        Name of the table in a SpatialData.

    Returns
    -------
    SpatialData whose table has a row per tile and no genes. The tiles are sorted from top to
    bottom, and from left to right in each row, if their places are known. If the places are known
    in µm, they are squares with the name of the slide. The vector of a slide or patient encoder is
    a table of one row. Sets the following fields:

    `table.obsm['X_features' | key_added]` : (n, width) float32 or float64
        The features; those of 16 bits become 32 bits without a change of their values.
    `table.obsm['spatial']` : (n, 2) float64
        Centers of the tiles, in pixels of the slide if `um_per_px` is known, else in µm.
    `table.uns['X_features' | key_added]` : dict
        `params`: the format of the file, `tile_um` and `um_per_px` of the patches that the encoder
        saw. `model`: name, class and digest, by which features of other encoders are recognized.

    Raises
    ------
    FileNotFoundError
        There is nothing at `path`.
    ValueError
        The file has another structure or is damaged, features are NaN or infinite, or a scale
        contradicts what the file records.

    Examples
    --------
    >>> slide = stp.io.read_wsi("slide.tif", um_per_px=1.0, tile_um=112)
    >>> stp.tl.embed_images(slide, model)
    >>> stp.io.write_features(slide, "slide.h5")
    >>> features = stp.io.read_features("slide.h5")
    >>> features["table"].uns["X_features"]["params"]["tile_um"]
    112.0
    """
    import anndata

    from stp.data.feature_files import open_features

    path = local_path(path)
    file = open_features(path, table_key=table_key, um_per_px=um_per_px, tile_um=tile_um)
    values = file.read()
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    centers = file.centers()
    name = name or path.name.removesuffix(path.suffix)
    (name,) = unique_names([name], reserved=[keys.TABLE])
    adata = anndata.AnnData(np.empty((file.n_tiles, 0), np.float32), obsm={key_added: values})
    adata.obs_names = [f"{name}_{row}" for row in range(file.n_tiles)]
    params = {
        "path": str(path),
        "writer": file.writer,
        "tile_um": file.tile_um,
        "um_per_px": file.um_per_px,
    }
    record(adata, key_added, params, model=file.model)
    place = "at places in µm" if centers is not None else "without places in µm"
    logger.info(
        f"Read {count(file.n_tiles, 'tile')} with {file.width} features {place} from {path.name} "
        f"({file.writer})."
    )
    return assemble_tiles(adata, centers, name, _describe_source(path, file))


def _describe_source(path: Path, file: "FeatureFile") -> dict[str, Any]:
    """Return the record of the slide of these features, as far as the file has one."""
    slide_um = file.scale.slide_um_per_px
    return {
        **file_record(path),
        "um_per_px": slide_um,
        "um_per_px_source": None if slide_um is None else file.writer,
        "um_per_unit": slide_um or 1.0,
        "tile_um": file.tile_um,
    }
