"""The spots of a Space Ranger folder: counts, positions and scale factors."""

import csv
import gzip
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp._log import logger, preview
from stp.io._space_ranger import MatrixFiles, SpaceRangerFiles

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

BARCODE = "barcode"
ON_ARRAY = ["in_tissue", "array_row", "array_col"]
ON_IMAGE = ["pxl_row_in_fullres", "pxl_col_in_fullres"]  # y, x
SPOT_DIAMETER = "spot_diameter_fullres"


def read_spots(files: SpaceRangerFiles) -> "AnnData":
    """Return the counts of the spots, with their place on the array and x, y in `obsm["spatial"]`.

    All rows of the matrix are there, with their type in `var["feature_types"]`.

    Raises
    ------
    ValueError
        A spot has no position, or a file cannot be read.
    """
    adata = _read_matrix(files.matrix)
    positions = read_positions(files.positions)
    has_position = adata.obs_names.isin(positions.index[positions.notna().all(axis=1)])
    if files.matrix.is_raw and has_position.any():
        logger.info(
            f"{files.folder} has no filtered matrix, so {files.matrix.name} was read, in which "
            f"{has_position.sum()} of {adata.n_obs} barcodes have a position; "
            "obs['in_tissue'] is 0 off the tissue"
        )
        adata = adata[has_position].copy()
    elif not has_position.all():
        raise ValueError(
            f"{(~has_position).sum()} of {adata.n_obs} spots have no position in "
            f"{files.positions}: {preview(adata.obs_names[~has_position])}; the file is "
            "incomplete, or it is that of another sample"
        )
    places = positions.loc[adata.obs_names]
    adata.obs[ON_ARRAY] = places[ON_ARRAY].astype(int).to_numpy()
    adata.obsm["spatial"] = places[ON_IMAGE[::-1]].to_numpy(dtype=float)
    return adata


def read_positions(path: Path) -> "pd.DataFrame":
    """Return the positions of the barcodes, from a file of any version of Space Ranger.

    Raises
    ------
    ValueError
        The file lacks a column, a value is no number, or a barcode is repeated.
    """
    import pandas as pd

    names = [BARCODE, *ON_ARRAY, *ON_IMAGE]
    if path.suffix == ".parquet":
        table = pd.read_parquet(path).reset_index()
    elif _has_header(path):
        table = pd.read_csv(path, encoding="utf-8")
    else:
        table = pd.read_csv(path, header=None, encoding="utf-8")
        if table.shape[1] == len(names):
            table.columns = pd.Index(names)
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(
            f"{path} lacks the columns {', '.join(missing)}; Space Ranger writes {', '.join(names)}"
        )
    table = table[names].set_index(BARCODE)
    table.index = table.index.astype(str)
    if not table.index.is_unique:
        repeated = table.index[table.index.duplicated()].unique()
        raise ValueError(f"{path} lists barcodes several times: {preview(repeated)}")
    try:
        return table.astype(float)
    except ValueError as error:
        raise ValueError(f"{path} has values that are no numbers: {error}") from error


def read_scale_factors(path: Path) -> dict[str, float]:
    """Return the scale factors of a folder by name.

    Raises
    ------
    ValueError
        The file has no names with numbers, or it lacks the diameter of the spots.
    """
    text = _read_bytes(path)
    try:
        entries = json.loads(text).items()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} has no scale factors of Space Ranger: {error}") from error
    factors = {name: float(value) for name, value in entries if isinstance(value, int | float)}
    if not factors.get(SPOT_DIAMETER, 0) > 0:
        raise ValueError(f"{path} has no {SPOT_DIAMETER}; Space Ranger writes it")
    return factors


def _read_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def _has_header(path: Path) -> bool:
    """Return whether the first line of a CSV file has names."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return "in_tissue" in file.readline()


def _read_matrix(matrix: MatrixFiles) -> "AnnData":
    """Return the counts of all features; feature names are made unique."""
    try:
        adata = _read_h5(matrix.h5) if matrix.h5 is not None else _read_parts(matrix.parts)
    except (OSError, KeyError, EOFError) as error:
        raise ValueError(
            f"{matrix.path} cannot be read ({error}); is the file complete?"
        ) from error
    if "probe_ids" in adata.var:
        raise ValueError(
            f"{matrix.path} counts probes, not genes; put filtered_feature_bc_matrix.h5 there"
        )
    if not adata.obs_names.is_unique:
        repeated = adata.obs_names[adata.obs_names.duplicated()].unique()
        raise ValueError(f"{matrix.path} has barcodes several times: {preview(repeated)}")
    adata.var_names_make_unique()
    return adata


def _read_h5(path: Path) -> "AnnData":
    import scanpy

    with warnings.catch_warnings():
        # Several genes have one symbol; they get unique names afterwards.
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        return scanpy.read_10x_h5(path, gex_only=False)


# scanpy.read_10x_mtx cannot read all three files with and without compression.
def _read_parts(parts: dict[str, Path]) -> "AnnData":
    import anndata
    import pandas as pd
    import scipy.io

    counts = scipy.io.mmread(parts["matrix.mtx"]).T.tocsr().astype(np.float32)
    features = _read_tsv(parts["features.tsv"])
    barcodes = _read_tsv(parts["barcodes.tsv"])
    shape = (len(barcodes), len(features))
    if counts.shape != shape:
        raise ValueError(
            f"{parts['matrix.mtx']} has {counts.shape[0]} barcodes and {counts.shape[1]} features, "
            f"but the files next to it list {shape[0]} and {shape[1]}; they are of another matrix"
        )
    types = features[2] if 2 in features else "Gene Expression"  # genes.tsv has two columns
    names = features[1] if 1 in features else features[0]
    var = pd.DataFrame({"gene_ids": features[0].to_numpy(), "feature_types": types})
    var.index = anndata.utils.make_index_unique(pd.Index(names.to_numpy()))
    adata = anndata.AnnData(counts, var=var)
    adata.obs_names = barcodes[0].to_numpy()
    return adata


def _read_tsv(path: Path) -> "pd.DataFrame":
    """Return a table without header as text; a gene may be called NA."""
    import pandas as pd

    return pd.read_csv(
        path,
        sep="\t",
        header=None,
        dtype=str,
        keep_default_na=False,
        quoting=csv.QUOTE_NONE,
        encoding="utf-8",
    )
