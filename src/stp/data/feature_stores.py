"""SpatialData stores with features of tiles: those of stp, and those of LazySlide."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.data.feature_layout import (
    Extraction,
    Layout,
    TileScale,
    matrix_shape,
    require_float,
    resolve,
)
from stp.data.store_source import STORE
from stp.tables import keys
from stp.tables.provenance import model_of

if TYPE_CHECKING:
    import zarr

TILE_STORE = "tile store"
LAZYSLIDE = "LazySlide store"
SPATIALDATA = "SpatialData store"
TILE_SPEC = "tile_spec"  # attribute of LazySlide: the tiles by their name
X = "X"


@dataclass(frozen=True)
class StoreArrays:
    """Features in a table of a store.

    Parameters
    ----------
    path
        The zarr folder.
    table_key
        Name of the table.
    rep
        Name of the features in `obsm`, or "X".
    shapes_key
        Name of the shapes with the places of the tiles; None if they are in `obsm["spatial"]`.
    """

    path: Path
    table_key: str
    rep: str
    shapes_key: str | None

    def features(self) -> np.ndarray:
        """Return the features (n_tiles, width) in the order of the table."""
        import anndata

        element = self._table[self.rep if self.rep == X else f"obsm/{self.rep}"]
        # zarr reads a missing chunk as zeros.
        if hasattr(element, "nchunks") and element.nchunks_initialized < element.nchunks:
            raise ValueError(
                f"{self.path} has lost a part of its features; copy it again, or write it again"
            )
        values = anndata.io.read_elem(element)
        return np.asarray(values.toarray() if hasattr(values, "toarray") else values)

    def places(self) -> np.ndarray | None:
        """Return the places (n_tiles, 2) as x, y in the unit of the store; None without."""
        if self.shapes_key is not None:
            return self._corners()
        name = f"obsm/{keys.SPATIAL}"
        return self._table[name][:] if name in self._table else None

    def _corners(self) -> np.ndarray | None:
        """Return the top left corners of LazySlide's tiles, in the order of the table."""
        import anndata
        import pandas as pd

        name = str(self.shapes_key)
        if Path(name).name != name:
            raise ValueError(
                f"{self.path} has tiles in the shapes {name!r}, which is a path and no name; "
                "extract its features again"
            )
        file = self.path / "shapes" / name / "shapes.parquet"
        if not file.is_file():
            return None
        tiles = pd.read_parquet(file, columns=["tile_id", "x", "y"]).set_index("tile_id")
        ids = anndata.io.read_elem(self._table["obs"])["tile_id"]
        missing = set(ids).difference(tiles.index)
        if missing or not tiles.index.is_unique:
            raise ValueError(
                f"the tiles of the table {self.table_key!r} of {self.path} are not those of the "
                f"shapes {self.shapes_key!r}; extract its features again"
            )
        return tiles.loc[ids].to_numpy(dtype=np.float64)

    @property
    def _table(self) -> "zarr.Group":
        import zarr

        group = zarr.open_group(self.path, mode="r", use_consolidated=False)
        return group[f"tables/{self.table_key}"]


def open_store(
    path: Path, use_rep: str, table_key: str, um_per_px: float | None, tile_um: float | None
) -> Layout:
    """Return the layout of a store.

    Raises
    ------
    ValueError
        There is no such table or no such features, or they cannot be used.
    """
    import zarr

    try:
        group = zarr.open_group(path, mode="r", use_consolidated=False)
    except (FileNotFoundError, zarr.errors.ContainsArrayError):
        group = {}
    tables = sorted(group["tables"].group_keys()) if "tables" in group else []
    if not tables:
        raise ValueError(
            f"{path} is a folder without tables, so it is no tile store; pass the store or the "
            "file of one slide"
        )
    is_lazyslide = TILE_SPEC in group.attrs
    if is_lazyslide and table_key == keys.TABLE and table_key not in tables:
        table_key = _only_table(path, group, tables)
    if table_key not in tables:
        raise ValueError(f"{path} has no table {table_key!r}; pass table_key= one of {tables}")
    table = group["tables"][table_key]
    if is_lazyslide and use_rep == keys.IMAGES and f"obsm/{use_rep}" not in table:
        use_rep = X
    shape, dtype = _features_shape(path, table, use_rep)
    shapes_key = _region(table) if is_lazyslide else None
    arrays = StoreArrays(path, table_key, use_rep, shapes_key)
    model: dict[str, str] | None
    if is_lazyslide:
        scale, model = _describe_lazyslide(path, group, arrays, shape[1])
    else:
        scale, model = _describe_tile_store(path, group, table, use_rep)
    slide_um = resolve(um_per_px, scale.slide_um_per_px, "um_per_px", path)
    scale = TileScale(
        resolve(tile_um, scale.tile_um, "tile_um", path),
        scale.um_per_px,
        slide_um if scale.um_per_unit is None else scale.um_per_unit,
        scale.is_corner,
        slide_um,
    )
    if keys.SLIDE in group.attrs:
        writer = TILE_STORE
    else:
        writer = LAZYSLIDE if is_lazyslide else SPATIALDATA
    return Layout(writer, arrays, shape, dtype, scale, model)


def _only_table(path: Path, group: Any, tables: list[str]) -> str:
    """Return the only table of a store of LazySlide that has features of tiles."""
    specs = group.attrs[TILE_SPEC]
    names = [name for name in tables if _region(group["tables"][name]) in specs]
    if len(names) != 1:
        raise ValueError(
            f"{path} has {len(names)} tables with features of tiles; pass table_key= one of "
            f"{names or tables}"
        )
    return names[0]


def _region(table: Any) -> str | None:
    """Return the name of the shapes that a table annotates."""
    import anndata

    name = "uns/spatialdata_attrs/region"
    if name not in table:
        return None
    regions = np.atleast_1d(anndata.io.read_elem(table[name]))
    return str(regions[0]) if len(regions) == 1 else None


def _features_shape(path: Path, table: Any, rep: str) -> tuple[tuple[int, int], np.dtype]:
    """Return the shape and the type of features, without reading them."""
    name = rep if rep == X else f"obsm/{rep}"
    if name not in table:
        names = sorted(table["obsm"]) if "obsm" in table else []
        raise ValueError(
            f"{path} has no obsm[{rep!r}] in the table {table.basename!r}; pass use_rep= one of "
            f'{names}, or "X"'
        )
    element = table[name]
    label = f"{rep if rep == X else f'obsm[{rep!r}]'} of {path}"
    if hasattr(element, "shape"):
        shape = element.shape
        dtype = element.dtype
    elif "data" in element and "shape" in element.attrs:  # a sparse matrix
        shape = tuple(element.attrs["shape"])
        dtype = element["data"].dtype
    else:
        raise ValueError(f"{label} is a table, not an array of features")
    if len(shape) != 2:
        raise ValueError(f"{label} has the shape {shape}; expected (tiles, width)")
    require_float(dtype, label)
    return matrix_shape(shape, label), dtype


def _describe_tile_store(
    path: Path, group: Any, table: Any, rep: str
) -> tuple[TileScale, dict[str, str] | None]:
    """Return scale and model of a store that `stp.io.write_tiles` or SpatialData wrote."""
    import anndata

    slide = group.attrs.get(keys.SLIDE, {})
    base = rep.removesuffix(keys.aligned(""))
    uns = {
        key: anndata.io.read_elem(table[f"uns/{key}"])
        for key in (rep, base)
        if f"uns/{key}" in table
    }
    try:
        model = model_of(anndata.AnnData(uns=uns), rep)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    params = uns.get(base, {}).get("params", {})
    um_per_unit = slide.get("um_per_unit")
    if not slide and group.attrs.get(STORE, {}).get("unit") == "um":
        um_per_unit = 1.0
    scale = TileScale(
        params.get("tile_um", slide.get("tile_um")),
        params.get("um_per_px"),
        um_per_unit,
        is_corner=False,
        slide_um_per_px=slide.get("um_per_px"),
    )
    texts = model and {key: value for key, value in model.items() if isinstance(value, str)}
    return scale, texts


def _describe_lazyslide(
    path: Path, group: Any, arrays: StoreArrays, width: int
) -> tuple[TileScale, dict[str, str]]:
    """Return scale and model of a store of LazySlide."""
    tiles = arrays.shapes_key
    spec = group.attrs[TILE_SPEC].get(tiles, {})
    mpp = spec.get("mpp")
    # Of level 0, in whose pixels the places are.
    um_per_unit = group.attrs.get("slide_properties", {}).get("mpp")
    tile_um = None
    if spec.get("width"):
        if mpp:
            tile_um = spec["width"] * mpp
        elif um_per_unit:
            tile_um = spec.get("base_width", spec["width"]) * um_per_unit
    extractor = arrays.table_key.removesuffix(f"_{tiles}")
    if arrays.rep != X:
        extractor = f"{extractor} {arrays.rep}"
    tile = f"{spec.get('width')} x {spec.get('height')} px at {mpp} um"
    model = Extraction(LAZYSLIDE, extractor, "", tile, width).model_record()
    return TileScale(tile_um, mpp, um_per_unit, slide_um_per_px=um_per_unit), model
