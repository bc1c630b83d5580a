"""The only place that touches the slots of an AnnData: finding tables, reading counts, writing results."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._keys import REGION, SPOT

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

BLOCK_ROWS = 4096  # rows of counts held in memory at a time


def get_table(data: Any, table_key: str = "table") -> "AnnData":
    """Return the table of an AnnData (itself), a SpatialData, or the path of a SpatialData zarr store (lazy X)."""
    if isinstance(data, str | Path):
        return _open_table(Path(data), table_key)
    if not hasattr(data, "tables"):
        if not (hasattr(data, "obs_names") and hasattr(data, "obsm")):
            raise TypeError(f"expected an AnnData, a SpatialData or the path of a store, got {type(data).__name__}")
        return data
    if table_key not in data.tables:
        raise KeyError(f"no table {table_key!r} in the SpatialData; pass table_key= one of {sorted(data.tables)}")
    return data.tables[table_key]


def _open_table(path: Path, table_key: str) -> "AnnData":
    import anndata
    import zarr

    try:
        group = zarr.open_group(path, mode="r")[f"tables/{table_key}"]
    except (FileNotFoundError, KeyError, zarr.errors.ContainsArrayError) as error:
        raise ValueError(
            f"{path} is not a SpatialData store with a table {table_key!r}; stp.io.write_store makes one"
        ) from error
    X = group["X"]
    X = anndata.io.sparse_dataset(X) if isinstance(X, zarr.Group) else X[:]
    return anndata.AnnData(X=X, obs=anndata.io.read_elem(group["obs"]), var=anndata.io.read_elem(group["var"]))


def tie(adata: "AnnData", region: str) -> "AnnData":
    """Make a table annotate the shapes `region`, row by row."""
    from spatialdata.models import TableModel

    adata.obs[REGION] = region
    adata.obs[REGION] = adata.obs[REGION].astype("category")
    adata.obs[SPOT] = np.arange(adata.n_obs)
    adata.uns.pop("spatialdata_attrs", None)
    return TableModel.parse(adata, region=region, region_key=REGION, instance_key=SPOT)


def names_on_disk(frame: Any) -> np.ndarray:
    """Read the index of a dataframe from its zarr group: stored as an array, or as values beside a mask."""
    index = frame[frame.attrs["_index"]]
    values = index if hasattr(index, "shape") else index["values"]
    return np.asarray(values[:], dtype=object)


def begin(data: Any, table_key: str, copy: bool) -> "AnnData":
    """Return the table that a verb annotates: the user's own, or its copy."""
    adata = get_table(data, table_key)
    if adata.isbacked and copy:
        raise ValueError("copy=True on a backed AnnData would read it all; call .to_memory() first and pass its result")
    return adata.copy() if copy else adata


def require(adata: "AnnData", slot: str, key: str, made_by: str) -> Any:
    """Return `adata.<slot>[key]`, or raise a KeyError that names the call which makes it."""
    values = getattr(adata, slot)
    if key not in values:
        raise KeyError(f"adata.{slot}[{key!r}] is missing; run {made_by} first")
    return values[key]


def gene_names(adata: "AnnData", gene_ids_key: str | None = None) -> np.ndarray:
    """Return the gene names of the table: `var_names`, or a column of `var`."""
    if gene_ids_key is None:
        return adata.var_names.to_numpy().astype(object)
    return require(adata, "var", gene_ids_key, f"nothing else: pass gene_ids_key= one of {list(adata.var)} or it")


def get_counts(adata: "AnnData", layer: str | None = None) -> Any:
    """Return the raw counts, of any kind that AnnData holds, after looking at the first rows of them."""
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"no layer {layer!r}; pass layer= one of {list(adata.layers)} or None for X")
    X = adata.X if layer is None else adata.layers[layer]
    if X is None:
        raise ValueError(f"the table has no X; pass layer= one of {list(adata.layers)}")
    wrong = _not_a_count(_to_csr(X[: min(256, adata.n_obs)]).data)
    if wrong is not None:
        raise ValueError(_counts_message(adata, layer, wrong))
    return X


def count_blocks(adata: "AnnData", layer: str | None = None, block_rows: int = BLOCK_ROWS) -> Iterator["csr_matrix"]:
    """Yield the raw counts as canonical CSR blocks of rows: sorted, without duplicates, every value checked."""
    X = get_counts(adata, layer)
    X = X.tocsr() if getattr(X, "format", None) == "csc" and hasattr(X, "tocsr") else X
    for start in range(0, adata.n_obs, block_rows):
        block = _to_csr(X[start : start + block_rows])
        wrong = _not_a_count(block.data)
        if wrong is not None:
            raise ValueError(_counts_message(adata, layer, wrong))
        yield block


def log_normalized_blocks(adata: "AnnData", layer: str | None = None) -> Iterator["csr_matrix"]:
    """Yield log1p of counts per 10,000 of each spot, block by block; spots without counts stay zero."""
    for block in count_blocks(adata, layer):
        total = np.asarray(block.sum(axis=1), dtype=float).ravel()
        block.data = block.data * np.repeat(1e4 / np.where(total > 0, total, 1), np.diff(block.indptr))
        yield block.log1p()


def _to_csr(block: Any) -> "csr_matrix":
    from scipy.sparse import csr_matrix

    matrix = csr_matrix(block.compute() if hasattr(block, "compute") else block, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _not_a_count(values: np.ndarray) -> float | None:
    """Return the first value that is no count, if there is one."""
    wrong = ~(values >= 0) | (values != np.floor(values)) | ~np.isfinite(values)
    return float(values[wrong.argmax()]) if wrong.any() else None


def _counts_message(adata: "AnnData", layer: str | None, wrong: float) -> str:
    def holds_counts(name: str) -> bool:
        return _not_a_count(_to_csr(adata.layers[name][: min(256, adata.n_obs)]).data) is None

    where = "X" if layer is None else f"layer {layer!r}"
    layers = [name for name in adata.layers if holds_counts(name)]
    remedy = f"pass layer={layers[0]!r}" if layers else "start from the raw counts"
    return f"{where} holds {wrong:.4g}, which is no raw count (is it normalized, log-transformed or scaled?); {remedy}"


def record(adata: "AnnData", key: str, params: Mapping[str, Any], **entries: Any) -> None:
    """Write `uns[key] = {"params": params, **entries}` in types that h5ad and zarr keep."""
    adata.uns[key] = {"params": _plain(params), **{name: _plain(value) for name, value in entries.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
