"""Write scored tiles as GeoJSON, which QuPath opens on the slide."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._atomic import write_atomically
from stp._log import count, logger
from stp.images.tile_places import find_tile_places
from stp.io._store_path import local_path
from stp.tables import keys
from stp.tables.table import get_table, require
from stp.tables.tile_scores import (
    MAKER,
    PERCENT,
    attention_columns,
    read_attention,
    read_contribution,
    read_outputs,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

DECIMALS = 2  # of pixels


def write_geojson(
    sdata: "SpatialData",
    path: str | Path,
    *,
    key: str = keys.ATTENTION,
    um_per_px: float | None = None,
    table_key: str = "table",
    overwrite: bool = False,
) -> None:
    """Write scored tiles as GeoJSON for QuPath: squares on the slide with their measurements.

    Open the slide in QuPath and drop the file on it. Measure > Show measurement maps then colors
    the tiles by attention and contributions.

    Parameters
    ----------
    sdata
        SpatialData with the tiles or spots of one slide, scored by :func:`stp.tl.score_tiles`.
    path
        The new file, `<slide>.geojson`.
    key
        Name of the scores of tiles.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error.
    table_key
        Name of the table in a SpatialData.
    overwrite
        Replace an existing file.

    Notes
    -----
    The file is a FeatureCollection. Coordinates are pixels of level 0. Each tile is a feature of
    the `objectType` "tile" with the name of its row. Its `measurements` are the attention, its rank
    in the slide, and the contributions in the units of :func:`stp.pl.attention`. Measurements that
    are missing are left out. Other readers, such as geopandas, find them in `properties`.

    Raises
    ------
    FileExistsError
        There is something at `path`, and `overwrite` is False.
    KeyError
        Tiles have no scores.
    TypeError
        `sdata` is no SpatialData, so that tiles have no places.
    ValueError
        Tiles have no places, or µm per pixel of the slide are unknown; pass `um_per_px`.

    Examples
    --------
    >>> config = stp.train.SlideConfig(epochs=2, hidden=16, attention=8)
    >>> target = stp.train.Classes("EGFR", positive="mutated")
    >>> slide_model = stp.train.fit_slides(cohort, "runs/map", targets=target, config=config)
    >>> tiles = stp.io.read_features("features/P1.h5")
    >>> stp.tl.score_tiles(tiles, slide_model)
    >>> stp.io.write_geojson(tiles, "P1.geojson", um_per_px=0.5, overwrite=True)
    """
    path = local_path(path)
    if path.is_dir() or (path.exists() and not overwrite):
        raise FileExistsError(f"{path} exists; pass overwrite=True to replace it, or another path")
    table = get_table(sdata, table_key)
    measurements = _read_measurements(table, key)
    places = find_tile_places(sdata, table, um_per_px)
    corners = places.side / 2 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])
    rings = (places.centers[:, None] + corners).round(DECIMALS).tolist()
    names = table.obs_names[places.rows]
    features = [
        _make_feature(
            str(name), ring, {title: values[row] for title, values in measurements.items()}
        )
        for name, ring, row in zip(names, rings, places.rows, strict=True)
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))
    logger.info(f"Wrote {path.name}: {count(len(features), 'tile')}")


def _read_measurements(table: "AnnData", key: str) -> dict[str, np.ndarray]:
    """Return the measurements (n_obs,) by the names that QuPath shows."""
    measurements = {}
    columns = attention_columns(table, key)
    for column, target in columns.items():
        suffix = "" if len(columns) == 1 else f" {target}"
        values = read_attention(table, key, column).values / PERCENT
        measurements[f"attention{suffix}"] = values
        ranks = require(table, "obs", keys.rank(column), MAKER).to_numpy(dtype=float)
        measurements[f"attention rank{suffix}"] = ranks
    for output in read_outputs(table, key).index:
        measurements[f"contribution {output}"] = read_contribution(table, key, output).values
    return measurements


def _make_feature(
    name: str, ring: list[list[float]], measurements: dict[str, Any]
) -> dict[str, Any]:
    """Return a tile as QuPath reads it."""
    finite = {title: float(value) for title, value in measurements.items() if np.isfinite(value)}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "tile",
            "name": name,
            "isLocked": True,
            "measurements": finite,
        },
    }
