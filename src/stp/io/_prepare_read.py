"""Write the source of one row of a manifest as a store."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp.data.store import SpotStore
from stp.genes.vocabulary import Vocabulary
from stp.images.regions import list_regions
from stp.io._from_anndata import from_anndata
from stp.io._manifest_columns import (
    H5AD,
    HEST,
    SPATIALDATA,
    VISIUM,
    VISIUM_HD,
    XENIUM,
    ManifestRow,
)
from stp.io._manifest_kind import hest_root, newest_hest_table
from stp.io._read_hest import read_hest
from stp.io._read_visium import read_visium
from stp.io._read_visium_hd import read_visium_hd
from stp.io._read_xenium import read_xenium
from stp.io._store import write_store
from stp.tables.keys import TABLE
from stp.tables.table import require_column

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

DEFAULT_UM_PER_PX = 0.5  # of patches, as in `write_store`
MIN_GENES = 100  # that a spot must detect to be trained on, as in the configs


def write_row(row: ManifestRow, path: Path, vocabulary: Vocabulary | None) -> None:
    """Read the source of a row and write it as a store.

    Parameters
    ----------
    row
        Row of a manifest.
    path
        The new store.
    vocabulary
        Genes of the species, by which columns are named; by default the human vocabulary.
    """
    slide, table_key = _read_source(row)
    # Readers of other kinds than these two have resolved the scale.
    has_scale = row.kind != SPATIALDATA and hasattr(slide, "images")
    write_store(
        slide,
        path,
        table_key=table_key,
        layer=row.layer,
        gene_ids_key=row.gene_ids_key or "auto",
        vocabulary=vocabulary,
        image_key=row.image_key,
        coordinate_system=row.coordinate_system,
        um_per_px=None if has_scale else row.um_per_px,
        spot_pitch_um=None if has_scale else row.spot_pitch_um,
        patch_um_per_px=row.patch_um_per_px or DEFAULT_UM_PER_PX,
    )


def find_problem(path: Path) -> str:
    """Return why a store cannot be trained on, or an empty text."""
    store = SpotStore(path)
    problems = []
    if store.coordinates is None:
        problems.append("it has no spot positions")
    if not len(store.trainable(MIN_GENES)):
        problems.append(f"no spot on tissue detects {MIN_GENES} genes")
    return "; ".join(problems)


def _read_source(row: ManifestRow) -> tuple[Any, str]:
    """Return the slide of a row, as SpatialData or AnnData, and the name of its table."""
    if row.kind == H5AD:
        return _read_h5ad(row), TABLE
    if row.kind == SPATIALDATA:
        return _read_spatialdata(row)
    if row.kind == HEST:
        root = hest_root(row.path)
        has_json = (root / "metadata" / f"{row.path.stem}.json").is_file()
        table = None if has_json else newest_hest_table(root)
        return read_hest(root, row.path.stem, metadata=table, um_per_px=row.um_per_px), TABLE
    if row.kind == XENIUM:
        return read_xenium(row.path, image=row.image, um_per_px=row.um_per_px, name=row.name), TABLE
    if row.kind == VISIUM:
        sdata = read_visium(row.path, image=row.image, um_per_px=row.um_per_px, name=row.name)
    elif row.kind == VISIUM_HD and row.bin_um is not None:
        sdata = read_visium_hd(
            row.path, bin_um=row.bin_um, image=row.image, um_per_px=row.um_per_px, name=row.name
        )
    else:
        raise ValueError(f"the kind {row.kind!r} is unknown")
    if row.image is None:
        _remove_pictures(sdata)
    return sdata, next(iter(sdata.tables))


def _read_h5ad(row: ManifestRow) -> "AnnData | SpatialData":
    """Return the spots of an h5ad file, joined with their image if there is one."""
    import anndata

    adata = anndata.read_h5ad(row.path)
    library = row.library or row.name
    if row.library_key is not None:
        labels = require_column(adata, row.library_key, "library_key").astype(str)
        if library not in set(labels):
            raise ValueError(
                f"obs[{row.library_key!r}] of {row.path} has no {library!r}, only "
                f"{_list(sorted(set(labels)))}; write one of them into the column 'library'"
            )
        adata = adata[labels == library].copy()
    if row.image is None:
        return adata
    if row.library_key is None:
        return from_anndata(
            adata,
            row.image,
            um_per_px=row.um_per_px,
            spot_pitch_um=row.spot_pitch_um,
            name=row.name,
        )
    return from_anndata(
        adata,
        {library: row.image},
        library_key=row.library_key,
        um_per_px=row.um_per_px,
        spot_pitch_um=row.spot_pitch_um,
    )


def _read_spatialdata(row: ManifestRow) -> tuple["SpatialData", str]:
    """Return a SpatialData with the slide of a row alone, and the name of its table."""
    import spatialdata

    sdata = spatialdata.read_zarr(row.path)
    table_key = row.table_key
    if table_key is None:
        if len(sdata.tables) != 1:
            raise ValueError(
                f"{row.path} has {len(sdata.tables)} tables ({_list(sdata.tables)}); write the "
                "name of one into the column 'table_key'"
            )
        table_key = next(iter(sdata.tables))
    table = sdata.tables.get(table_key)
    if table is None or row.coordinate_system is None:
        return sdata, table_key
    if "spatialdata_attrs" in table.uns and len(list_regions(table)) > 1:
        sdata = sdata.filter_by_coordinate_system(row.coordinate_system)
    return sdata, table_key


def _remove_pictures(sdata: "SpatialData") -> None:
    """Remove the reduced pictures of Space Ranger, which are too coarse for patches."""
    for name in list(sdata.images):
        del sdata.images[name]


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
